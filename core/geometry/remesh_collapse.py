"""Contains the first part of a remeshing pass: edges that are too short, or whose face is bad.

``columns`` [vertex, channel] is everything that vertices carry, positions first; two vertices that
merge average all of it. An edge collapses only where the surface stays a manifold of the same
topology (the link condition), and only if nothing else happens within three rings.

Reference: Palfinger 2022, "Continuous remeshing for inverse rendering", section 3.3; Dey et al.
1999, "Topology preserving edge contraction".
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .edges import (
    EdgeTable,
    boundary_vertices,
    count_common_neighbours,
    edge_lengths,
    opposite_vertices,
)
from .normals import face_normals

NUM_RINGS = 3
BAD_AREA = 0.5  # in units of the squared minimal edge length
LONGEST, SHORTEST = 0, 2


def bad_faces(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    normals: Float[Tensor, "vertex 3"],
    min_length: Float[Tensor, " vertex"],
) -> Bool[Tensor, " face"]:
    """Faces that fold back against the normals of their vertices, or have almost no area."""
    doubled = face_normals(vertices, faces, unit=False)
    folded = (doubled * normals[faces].sum(dim=1)).sum(dim=-1) < 0
    limit = BAD_AREA * min_length[faces].mean(dim=1).square()
    return folded | (doubled.norm(dim=-1) / 2 < limit)


def draw_sides(
    count: int, shortest_probability: float, generator: torch.Generator | None
) -> Int64[Tensor, " count"]:
    """Which side of each bad face shall go: 2 the shortest, or by chance 1 or 0 (the longest)."""
    if shortest_probability >= 1:
        return torch.full((count,), SHORTEST)
    draw = torch.rand(count, generator=generator)
    other = torch.randint(LONGEST, SHORTEST, (count,), generator=generator)
    return torch.where(draw < shortest_probability, torch.full_like(other, SHORTEST), other)


def collapse_priorities(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    table: EdgeTable,
    *,
    is_bad: Bool[Tensor, " face"],
    sides: Int64[Tensor, " bad_face"],
    min_length: Float[Tensor, " vertex"],
) -> Float[Tensor, " edge"]:
    """One for an edge chosen by a bad face, plus how far (0..1) the edge is below its minimum."""
    lengths = edge_lengths(vertices, table.edges)
    start, end = table.edges.unbind(1)
    limits = (min_length[start] + min_length[end]) / 2
    priorities = (1 - lengths / limits).clamp(min=0)
    candidates = table.face_edges[is_bad]  # [bad_face, 3]
    by_length = lengths[candidates].argsort(dim=1, descending=True, stable=True)
    chosen = candidates.gather(1, by_length.gather(1, sides[:, None]))[:, 0]
    flag = torch.zeros_like(priorities)
    flag[chosen] = 1
    return priorities + flag


def keeps_manifold(
    faces: Int64[Tensor, "face 3"],
    table: EdgeTable,
    candidates: Int64[Tensor, " candidate"],
    num_vertices: int,
) -> Bool[Tensor, " candidate"]:
    """Whether collapsing each edge alone leaves a manifold of the same topology.

    The ends may share only the corners opposite the edge; an edge across the surface may not join
    two boundaries; and an opposite corner must keep enough faces (a tetrahedron stays one).
    """
    pairs = table.edges[candidates]
    count = table.face_count[candidates]
    allowed = (count <= 2) & (count_common_neighbours(table, pairs, num_vertices) == count)

    on_boundary = boundary_vertices(table, num_vertices)
    joins_boundaries = on_boundary[pairs].all(dim=1) & (count == 2)
    num_faces = torch.bincount(faces.reshape(-1), minlength=num_vertices)
    opposite = opposite_vertices(faces, table.edge_sides[candidates])
    fewest = torch.where(on_boundary, 2, 4)  # faces that the corner must have before the collapse
    exists = opposite >= 0
    enough = num_faces[opposite.clamp(min=0)] >= fewest[opposite.clamp(min=0)]
    return allowed & ~joins_boundaries & (enough | ~exists).all(dim=1)


def best_within_rings(
    table: EdgeTable,
    candidates: Int64[Tensor, " candidate"],
    priorities: Float[Tensor, " candidate"],
    num_vertices: int,
) -> Int64[Tensor, " chosen"]:
    """Candidates whose rank is the highest within three rings: they cannot disturb each other."""
    order = torch.argsort(priorities, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(1, len(order) + 1, device=order.device)
    best_at_vertex = torch.zeros(num_vertices, dtype=torch.int64, device=order.device)
    for column in (0, 1):
        best_at_vertex.scatter_reduce_(0, table.edges[candidates, column], rank, "amax")
    start, end = table.edges.unbind(1)
    start, end = start.contiguous(), end.contiguous()
    for _ in range(NUM_RINGS - 1):
        at_edge = torch.maximum(best_at_vertex[start], best_at_vertex[end])
        best_at_vertex.scatter_reduce_(0, start, at_edge, "amax")
        best_at_vertex.scatter_reduce_(0, end, at_edge, "amax")
    ends = table.edges[candidates]
    best = torch.maximum(best_at_vertex[ends[:, 0]], best_at_vertex[ends[:, 1]])
    return candidates[best == rank]


def select_collapses(
    faces: Int64[Tensor, "face 3"],
    table: EdgeTable,
    priorities: Float[Tensor, " edge"],
    num_vertices: int,
) -> Int64[Tensor, "collapse 2"]:
    """Pairs (kept, removed) of vertices to merge in one go."""
    candidates = (priorities > 0).nonzero()[:, 0]
    if len(candidates):
        candidates = candidates[keeps_manifold(faces, table, candidates, num_vertices)]
    chosen = best_within_rings(table, candidates, priorities[candidates], num_vertices)
    return table.edges[chosen]


def merge_vertices(
    columns: Float[Tensor, "vertex channel"],
    faces: Int64[Tensor, "face 3"],
    pairs: Int64[Tensor, "collapse 2"],
) -> tuple[
    Float[Tensor, "vertex_left channel"],
    Int64[Tensor, "face_left 3"],
    Int64[Tensor, " vertex_left"],
]:
    """Merge disjoint pairs (kept, removed) at their mean.

    Returns:
        Columns and faces, and for each vertex left its number before.
    """
    kept, removed = pairs.unbind(1)
    merged = columns.clone()
    merged[kept] = (columns[kept] + columns[removed]) / 2
    remains = torch.ones(len(columns), dtype=torch.bool, device=columns.device)
    remains[removed] = False
    number = remains.cumsum(0) - 1
    number[removed] = number[kept]
    faces = number[faces]
    a, b, c = faces.unbind(1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    return merged[remains], faces, remains.nonzero()[:, 0]
