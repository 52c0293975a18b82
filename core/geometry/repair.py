"""Contains what tells whether a triangle mesh is sound, and what makes it so."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .._checks import require_shape
from ..mesh import Mesh
from .edges import build_edges, side_vertices
from .holes import fill_holes
from .manifold_cut import corner_fans, cut_non_manifold
from .orientation import orient_outward
from .sorting import stable_sort
from .submesh import first_of_each, group_rows, select_faces, take_vertices

LOGGER = logging.getLogger(__name__)

MAX_STRIDE = 1 << 21  # three vertex numbers below it fit into 63 bits


def degenerate_faces(faces: Int64[Tensor, "face 3"]) -> Bool[Tensor, " face"]:
    """Faces that use a vertex twice."""
    a, b, c = faces.unbind(1)
    return (a == b) | (b == c) | (c == a)


def duplicate_faces(faces: Int64[Tensor, "face 3"]) -> Bool[Tensor, " face"]:
    """Faces whose three vertices an earlier face has too, in whatever order."""
    if not len(faces):
        return torch.zeros(0, dtype=torch.bool, device=faces.device)
    low, middle, high = faces.sort(dim=1).values.unbind(1)
    stride = int(high.max()) + 1
    if stride < MAX_STRIDE:
        key = (low * stride + middle) * stride + high
    else:
        _, key = torch.unique(torch.stack([low, middle, high], 1), dim=0, return_inverse=True)
    key, order = stable_sort(key)
    repeated = torch.zeros(len(faces), dtype=torch.bool, device=faces.device)
    repeated[order[1:]] = key[1:] == key[:-1]
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
    table = build_edges(faces)
    if bool((table.face_count > 2).any()):
        return False
    num_fans = int(corner_fans(faces, table.edge_sides[table.face_count == 2]).max()) + 1
    return num_fans == len(torch.unique(faces))


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


@dataclass(frozen=True)
class RepairParams:
    """What `repair_mesh` does.

    Attributes:
        weld: join vertices at one place whose colours and texture coordinates are equal too.
        weld_tolerance: how far, in units of the vertices, such places may lie apart.
        orient: make neighbours agree and the volume positive.
        max_hole_edges: holes with at most this many edges are closed; 0 closes none.
    """

    weld: bool = True
    weld_tolerance: float = 0.0
    orient: bool = True
    max_hole_edges: int = 32


def repair_mesh(mesh: Mesh, params: RepairParams | None = None) -> Mesh:
    """A manifold mesh from any mesh: the result always passes `is_manifold`.

    Vertices are welded; degenerate and repeated faces and unused vertices go; vertices are doubled
    where the surface touches itself; faces are turned outwards; small holes are closed. A mesh that
    needs nothing of this keeps its vertices and faces.
    """
    params = RepairParams() if params is None else params
    before = mesh.num_vertices, mesh.num_faces
    if params.weld:
        mesh = merge_duplicate_vertices(mesh, tolerance=params.weld_tolerance)
    bad = degenerate_faces(mesh.faces) | duplicate_faces(mesh.faces)
    mesh = select_faces(mesh, ~bad)
    if params.orient:
        mesh = orient_outward(mesh)
    mesh = cut_non_manifold(mesh)
    if params.max_hole_edges:
        mesh = fill_holes(mesh, params.max_hole_edges)
    if params.orient:
        mesh = orient_outward(mesh)
    after = mesh.num_vertices, mesh.num_faces
    if before != after:
        LOGGER.info("Repaired the mesh: %d vertices, %d faces -> %d, %d.", *before, *after)
    return mesh


def merge_duplicate_vertices(mesh: Mesh, *, tolerance: float = 0.0) -> Mesh:
    """Join vertices that agree in position, colour and texture coordinates.

    Args:
        mesh: for instance a soup of separate triangles.
        tolerance: positions are compared on a grid of this spacing; 0 compares exactly.

    Returns:
        A mesh in the order of the first of each group; faces may have become degenerate.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}.")
    places = mesh.vertices if tolerance == 0 else (mesh.vertices.double() / tolerance).round()
    keys = [places, mesh.vertex_colors, mesh.uvs]
    groups = group_rows(torch.cat([key.double() for key in keys if key is not None], dim=1))
    first = first_of_each(groups)
    if len(first) == mesh.num_vertices:
        return mesh
    order = first.argsort()
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order), device=order.device)
    return take_vertices(mesh, first[order], number[groups][mesh.faces])
