"""Contains the closing of small holes in a mesh."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from ..mesh import Mesh
from .edges import build_edges, side_vertices
from .submesh import group_rows, vertex_columns, with_vertex_columns


def boundary_loops(faces: Int64[Tensor, "face 3"]) -> list[list[int]]:
    """Closed chains of vertices round each hole, in the direction a face filling it would have.

    Chains that meet at a vertex are left out: cut the mesh into a manifold first.
    """
    table = build_edges(faces)
    sides = table.edge_sides[table.face_count == 1, 0]
    starts, ends = side_vertices(faces)[sides].unbind(1)
    following: dict[int, int] = {}
    forked = set()
    for start, end in zip(ends.tolist(), starts.tolist(), strict=True):  # against the faces
        if start in following:
            forked.add(start)
        following[start] = end
    loops = []
    while following:
        start, vertex = following.popitem()
        loop = [start]
        while vertex != start and vertex in following:
            loop.append(vertex)
            vertex = following.pop(vertex)
        if vertex == start and not forked.intersection(loop):
            loops.append(loop)
    return loops


def fill_holes(mesh: Mesh, max_edges: int = 32) -> Mesh:
    """Close holes of at most ``max_edges`` edges by a fan round a new vertex in their middle.

    Holes of three edges get one face. Texture seams are no holes.
    """
    if mesh.is_empty:
        return mesh
    site = torch.arange(mesh.num_vertices, device=mesh.faces.device)
    if mesh.uvs is not None:
        site = group_rows(mesh.vertices)
    sites = site[mesh.faces]
    representative = torch.zeros_like(site)
    representative[sites.reshape(-1)] = mesh.faces.reshape(-1)
    columns = vertex_columns(mesh)
    new_columns: list[Tensor] = []
    new_faces: list[Tensor] = []
    for loop in boundary_loops(sites):
        if len(loop) < 3 or len(loop) > max_edges or _is_a_face(loop, sites):
            continue
        ring = representative[torch.tensor(loop, device=site.device)]
        if len(ring) == 3:
            new_faces.append(ring[None])
            continue
        apex = torch.full_like(ring, mesh.num_vertices + len(new_columns))
        new_columns.append(columns[ring].mean(dim=0))
        new_faces.append(torch.stack([ring, ring.roll(-1), apex], dim=1))
    if not new_faces:
        return mesh
    columns = torch.cat([columns, *[row[None] for row in new_columns]])
    return with_vertex_columns(mesh, columns, torch.cat([mesh.faces, *new_faces]))


def _is_a_face(loop: list[int], faces: Int64[Tensor, "face 3"]) -> bool:
    """Whether the loop runs round a single triangle, whose back would double it."""
    if len(loop) != 3:
        return False
    corners = torch.tensor(sorted(loop), device=faces.device)
    return bool((faces.sort(dim=1).values == corners).all(dim=1).any())
