"""Contains how meshes change their vertices and faces without losing what the vertices carry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..mesh import Mesh


def take_vertices(
    mesh: Mesh, index: Int64[Tensor, " new_vertex"], faces: Int64[Tensor, "new_face 3"]
) -> Mesh:
    """Mesh whose vertex i is vertex ``index[i]`` of the old one with all its attributes."""

    def taken(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[index]

    return replace(
        mesh,
        vertices=mesh.vertices[index],
        faces=faces,
        vertex_colors=taken(mesh.vertex_colors),
        uvs=taken(mesh.uvs),
        vertex_normals=taken(mesh.vertex_normals),
    )


def select_faces(mesh: Mesh, keep: Bool[Tensor, " face"]) -> Mesh:
    """Mesh of the faces to keep, without the vertices that no face uses any more."""
    used, faces = torch.unique(mesh.faces[keep], return_inverse=True)
    return take_vertices(mesh, used, faces.reshape(-1, 3))


def vertex_columns(mesh: Mesh) -> Float[Tensor, "vertex channel"]:
    """Positions, then colours and texture coordinates where the mesh has them, to interpolate."""
    parts = [mesh.vertices, mesh.vertex_colors, mesh.uvs]
    return torch.cat([part.to(mesh.vertices) for part in parts if part is not None], dim=1)


def with_vertex_columns(
    mesh: Mesh,
    columns: Float[Tensor, "new_vertex channel"],
    faces: Int64[Tensor, "new_face 3"],
) -> Mesh:
    """Mesh with other vertices and faces; ``columns`` as `vertex_columns` lays them out.

    Stored normals are dropped, because they no longer hold.
    """
    start = 3
    values: dict[str, Any] = {}
    for name in ("vertex_colors", "uvs"):
        old = getattr(mesh, name)
        if old is not None:
            values[name] = columns[:, start : start + old.shape[1]].to(old.dtype)
            start += old.shape[1]
    return replace(mesh, vertices=columns[:, :3], faces=faces, vertex_normals=None, **values)


def group_rows(columns: Float[Tensor, "row channel"]) -> Int64[Tensor, " row"]:
    """A number per row; equal rows get equal numbers, 0 to number of groups - 1."""
    group = torch.zeros(len(columns), dtype=torch.int64, device=columns.device)
    for column in columns.unbind(1):
        values, place = torch.unique(column, return_inverse=True)
        _, group = torch.unique(group * len(values) + place, return_inverse=True)
    return group


def first_of_each(groups: Int64[Tensor, " row"]) -> Int64[Tensor, " group"]:
    """First row of each group 0..n - 1."""
    count = int(groups.max()) + 1 if len(groups) else 0
    first = torch.full((count,), len(groups), dtype=torch.int64, device=groups.device)
    rows = torch.arange(len(groups), device=groups.device)
    return first.scatter_reduce(0, groups, rows, "amin")
