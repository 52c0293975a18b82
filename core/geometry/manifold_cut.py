"""Contains the cut of a mesh where its surface is not a manifold.

A vertex that several fans of faces share becomes one vertex per fan. At an edge with more than two
faces, the two faces that enclose a piece of the inside stay together and the others come apart: two
boxes that touch along an edge become two closed boxes.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..mesh import Mesh
from .components import link_components
from .edges import build_edges, side_vertices
from .remesh_split import divide_faces
from .submesh import first_of_each, take_vertices, vertex_columns, with_vertex_columns


def cut_non_manifold(mesh: Mesh) -> Mesh:
    """Mesh whose vertices are doubled where needed, so that it is a manifold.

    No vertex moves and no face is lost, but faces are divided where a sheet touches itself along
    an edge. Faces must not be degenerate nor stand twice, and should wind outwards, because pairing
    depends on which side is inside.
    """
    if mesh.is_empty:
        return mesh
    joined = joined_sides(mesh.vertices, mesh.faces)
    fans = corner_fans(mesh.faces, joined).reshape(-1)
    first = first_of_each(fans)
    corners = mesh.faces.reshape(-1)[first]
    if len(first) > len(torch.unique(corners)):
        # A vertex keeps its number for its first fan; more fans get numbers at the end.
        order = torch.argsort(corners, stable=True)
        is_extra = torch.zeros(len(first), dtype=torch.bool, device=fans.device)
        is_extra[order[1:]] = corners[order[1:]] == corners[order[:-1]]
        extra = corners[is_extra]
        number = corners.clone()
        number[is_extra] = mesh.num_vertices + torch.arange(len(extra), device=fans.device)
        source = torch.cat([torch.arange(mesh.num_vertices, device=fans.device), extra])
        mesh = take_vertices(mesh, source, number[fans].reshape(-1, 3))
    return _part_edges(mesh, joined)


def _part_edges(mesh: Mesh, joined: Int64[Tensor, "pair 2"]) -> Mesh:
    """Give each pair of joined sides its own middle where several pairs lie on one edge."""
    table = build_edges(mesh.faces)
    crowded = (table.face_count > 2)[table.face_edges.reshape(-1)]
    if not bool(crowded.any()):
        return mesh
    sheet = torch.arange(3 * mesh.num_faces, device=mesh.faces.device)
    sheet[joined[:, 1]] = joined[:, 0]
    sheets, place = torch.unique(sheet[crowded], return_inverse=True)
    middles = torch.full_like(sheet, -1)
    middles[crowded] = mesh.num_vertices + place
    columns = vertex_columns(mesh)
    ends = side_vertices(mesh.faces)[sheets]
    columns = torch.cat([columns, columns[ends].mean(dim=1)])
    faces = divide_faces(mesh.faces, middles.reshape(-1, 3))
    return with_vertex_columns(mesh, columns, faces)


def corner_fans(
    faces: Int64[Tensor, "face 3"], joined: Int64[Tensor, "pair 2"]
) -> Int64[Tensor, "face 3"]:
    """Number of the fan that each corner belongs to.

    Two corners at one vertex belong to one fan when a chain of faces connects them, each joined to
    the next along an edge at that vertex.

    Args:
        faces: vertex indices.
        joined: pairs of sides (3 * face + k) that are the same edge of the surface.
    """
    corners = faces.reshape(-1)
    first, second = joined.unbind(1)
    after_first, after_second = (side // 3 * 3 + (side + 1) % 3 for side in (first, second))
    opposed = corners[first] != corners[second]  # directions differ, as they should
    links_from = torch.cat([first, after_first])
    links_to = torch.cat(
        [
            torch.where(opposed, after_second, second),
            torch.where(opposed, second, after_second),
        ]
    )
    return link_components(links_from, links_to, len(corners)).reshape(-1, 3)


def joined_sides(
    vertices: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"]
) -> Int64[Tensor, "pair 2"]:
    """Pairs of sides that stay together: all at edges of two faces, the best ones at others."""
    table = build_edges(faces)
    pairs = table.edge_sides[table.face_count == 2]
    crowded = (table.face_count > 2).nonzero()[:, 0]
    if not len(crowded):
        return pairs
    edge_of_side = table.face_edges.reshape(-1)
    order = torch.argsort(edge_of_side, stable=True)
    bounds = torch.cat([table.face_count.new_zeros(1), table.face_count.cumsum(0)]).cpu().numpy()
    sides = order.cpu().numpy()
    starts = side_vertices(faces)[:, 0].cpu().numpy()
    apexes = faces.roll(-2, dims=1).reshape(-1).cpu().numpy()
    points = vertices.detach().double().cpu().numpy()
    edges = table.edges.cpu().numpy()
    found: list[tuple[int, int]] = []
    for edge in crowded.tolist():
        here = sides[bounds[edge] : bounds[edge + 1]]
        found += _pair_round_edge(
            here, starts[here] == edges[edge, 0], points[edges[edge]], points[apexes[here]]
        )
    extra = torch.tensor(found, dtype=torch.int64, device=faces.device).reshape(-1, 2)
    return torch.cat([pairs, extra])


def _pair_round_edge(
    sides: np.ndarray, along: np.ndarray, ends: np.ndarray, apexes: np.ndarray
) -> list[tuple[int, int]]:
    """Match faces round one edge like brackets, by angle.

    Turning about the edge, the inside begins behind a face that passes the edge backwards and ends
    at a face that passes it forwards (``along``).
    """
    axis = ends[1] - ends[0]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-300)
    helper = np.eye(3)[np.argmin(np.abs(axis))]
    right = np.cross(axis, helper)
    up = np.cross(axis, right)
    offsets = apexes - ends[0]
    order = np.argsort(np.arctan2(offsets @ up, offsets @ right), kind="stable")
    pairs, open_sides, used = [], [], set()
    for position in [*order, *order]:  # twice round, because a wedge may pass the start angle
        if position in used:
            continue
        if not along[position]:
            open_sides.append(position)
        else:
            while open_sides and open_sides[-1] in used:
                open_sides.pop()
            if open_sides:
                begin = open_sides.pop()
                used |= {begin, position}
                pairs.append((int(sides[begin]), int(sides[position])))
    return pairs
