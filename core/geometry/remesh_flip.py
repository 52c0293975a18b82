"""Contains the last part of a remeshing pass: turn edges where that evens out the vertex degrees.

Reference: Palfinger 2022, "Continuous remeshing for inverse rendering", section 3.3; Botsch and
Kobbelt 2004, "A remeshing approach to multiresolution modeling" (valence 6, and 4 on boundaries).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .edges import EdgeTable, boundary_vertices, has_edge, vertex_degrees

BOUNDARY_DEGREE_BONUS = 2  # a boundary vertex is regular with four edges instead of six


def flip_edges(
    vertices: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"], table: EdgeTable
) -> Int64[Tensor, "face 3"]:
    """Flip edges between vertices of high degree whose opposite vertices have a low one.

    An edge ab between the faces abc and bad becomes cd when the sum of squared deviations from
    degree 6 gets smaller, both new faces look the way the old two did on average, cd is no edge
    yet, and no better flip touches one of the four vertices.
    """
    num_vertices = len(vertices)
    interior = (table.face_count == 2).nonzero()[:, 0]
    sides = table.edge_sides[interior]
    quads = _quads_round(faces, sides)  # [edge, (a, b, c, d)]
    degrees = vertex_degrees(table.edges, num_vertices)
    degrees = degrees + BOUNDARY_DEGREE_BONUS * boundary_vertices(table, num_vertices)
    a, b, c, d = (degrees[quads[:, column]] for column in range(4))
    gain = a + b - c - d - 2  # half of the decrease of the squared deviations

    wanted = (gain > 0).nonzero()[:, 0]
    wanted = wanted[_is_sound(vertices, faces, table, quads[wanted], sides[wanted])]
    chosen = wanted[_best_round_vertices(quads[wanted], gain[wanted], num_vertices)]
    a, b, c, d = quads[chosen].unbind(1)
    flipped = faces.clone()
    flipped[sides[chosen, 0] // 3] = torch.stack([a, d, c], dim=1)
    flipped[sides[chosen, 1] // 3] = torch.stack([d, b, c], dim=1)
    return flipped


def _quads_round(
    faces: Int64[Tensor, "face 3"], sides: Int64[Tensor, "edge 2"]
) -> Int64[Tensor, "edge 4"]:
    """Vertices a, b, c, d of the faces abc and bad at each edge ab."""
    corner = [faces.roll(-shift, dims=1).reshape(-1) for shift in range(3)]
    first, second = sides.unbind(1)
    return torch.stack(
        [corner[0][first], corner[1][first], corner[2][first], corner[2][second]], dim=1
    )


def _is_sound(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    table: EdgeTable,
    quads: Int64[Tensor, "edge 4"],
    sides: Int64[Tensor, "edge 2"],
) -> Bool[Tensor, " edge"]:
    """Whether a flip keeps the mesh manifold and does not fold it."""
    a, b, c, d = vertices[quads].unbind(dim=1)
    old = torch.linalg.cross(b - a, c - a) + torch.linalg.cross(a - b, d - b)
    new_first = torch.linalg.cross(d - a, c - a)
    new_second = torch.linalg.cross(b - d, c - d)
    agrees = ((new_first * old).sum(dim=-1) > 0) & ((new_second * old).sum(dim=-1) > 0)
    opposed = faces.reshape(-1)[sides[:, 1]] == quads[:, 1]  # the second face runs from b to a
    is_new = (quads[:, 2] != quads[:, 3]) & ~has_edge(table, quads[:, 2], quads[:, 3])
    return agrees & opposed & is_new


def _best_round_vertices(
    quads: Int64[Tensor, "edge 4"], gain: Int64[Tensor, " edge"], num_vertices: int
) -> Bool[Tensor, " edge"]:
    """Flips that no better one touches; among equals the later edge wins."""
    order = torch.argsort(gain, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(1, len(order) + 1, device=order.device)
    best_at_vertex = torch.zeros(num_vertices, dtype=torch.int64, device=order.device)
    for column in range(4):
        best_at_vertex.scatter_reduce_(0, quads[:, column], rank, "amax")
    return best_at_vertex[quads].amax(dim=1) == rank
