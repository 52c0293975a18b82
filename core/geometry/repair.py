"""Contains what tells whether a triangle mesh is sound: watertight, manifold, oriented outwards."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .._checks import require_shape
from .edges import build_edges, side_vertices


def degenerate_faces(faces: Int64[Tensor, "face 3"]) -> Bool[Tensor, " face"]:
    """Faces that use a vertex twice."""
    a, b, c = faces.unbind(1)
    return (a == b) | (b == c) | (c == a)


def duplicate_faces(faces: Int64[Tensor, "face 3"]) -> Bool[Tensor, " face"]:
    """Faces whose three vertices an earlier face has too, in whatever order."""
    if not len(faces):
        return torch.zeros(0, dtype=torch.bool, device=faces.device)
    _, group = torch.unique(faces.sort(dim=1).values, dim=0, return_inverse=True)
    order = torch.argsort(group, stable=True)
    repeated = torch.zeros(len(faces), dtype=torch.bool, device=faces.device)
    repeated[order[1:]] = group[order[1:]] == group[order[:-1]]
    return repeated


def is_watertight(faces: Int64[Tensor, "face 3"]) -> bool:
    """True when every edge has exactly two faces, and they pass it in opposite directions.

    A mesh without faces is not watertight.
    """
    require_shape("faces", faces, None, 3)
    if not len(faces) or bool(degenerate_faces(faces).any()):
        return False
    table = build_edges(faces)
    if bool((table.face_count != 2).any()):
        return False
    start = side_vertices(faces)[:, 0]
    return bool((start[table.edge_sides[:, 0]] != start[table.edge_sides[:, 1]]).all())


def is_manifold(faces: Int64[Tensor, "face 3"]) -> bool:
    """True when the mesh is a surface everywhere, with or without boundary.

    No face is degenerate or stands twice, no edge has more than two faces, and the faces at each
    vertex form one fan. A mesh without faces is manifold.
    """
    require_shape("faces", faces, None, 3)
    if not len(faces):
        return True
    if bool(degenerate_faces(faces).any()) or bool(duplicate_faces(faces).any()):
        return False
    if bool((build_edges(faces).face_count > 2).any()):
        return False
    num_fans = int(corner_fans(faces).max()) + 1
    return num_fans == len(torch.unique(faces))


def corner_fans(faces: Int64[Tensor, "face 3"]) -> Int64[Tensor, "face 3"]:
    """Number of the fan that each corner belongs to.

    Two corners at one vertex belong to one fan when a chain of faces connects them, each sharing
    with the next an edge at that vertex which has exactly two faces.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    table = build_edges(faces)
    sides = table.edge_sides[table.face_count == 2]  # [pair, 2], as 3 * face + k
    first, second = sides.unbind(1)
    corners = faces.reshape(-1)
    next_corner = sides // 3 * 3 + (sides + 1) % 3
    opposed = corners[first] != corners[second]  # directions differ, as they should
    partner_of_start = torch.where(opposed, next_corner[:, 1], second)
    partner_of_end = torch.where(opposed, second, next_corner[:, 1])
    rows = torch.cat([first, next_corner[:, 0]]).cpu().numpy()
    columns = torch.cat([partner_of_start, partner_of_end]).cpu().numpy()
    size = len(corners)
    graph = coo_matrix(([True] * len(rows), (rows, columns)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    return torch.as_tensor(labels, dtype=torch.int64, device=faces.device).reshape(-1, 3)


def euler_characteristic(faces: Int64[Tensor, "face 3"]) -> int:
    """Vertices in use minus edges plus faces: 2 per sphere, 0 per torus, -2 per double torus."""
    require_shape("faces", faces, None, 3)
    return len(torch.unique(faces)) - len(build_edges(faces).edges) + len(faces)


def signed_volume(
    vertices: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"]
) -> Float[Tensor, ""]:
    """Enclosed volume in cubed units; positive when the faces wind counter-clockwise outside.

    Differentiable. For an open mesh the value depends on where the origin is.
    """
    a, b, c = vertices[faces].unbind(dim=1)
    return (a * torch.linalg.cross(b, c)).sum() / 6
