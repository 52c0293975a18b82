"""Contains triangle meshes as PLY, with vertex colours and normals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..mesh import Mesh, merge_meshes
from .arrays import flat_vertex_colors, to_array, to_tensor
from .limits import MAX_FACES, MAX_VERTICES, require_at_most
from .ply_container import PlyElement, decode_ply, encode_ply
from .polygons import triangulate_polygons

_COLOR_NAMES = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)
_UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))


def encode_ply_mesh(meshes: Sequence[Mesh]) -> bytes:
    """Binary little-endian PLY of all meshes together.

    Colours are sRGB with 8 bits. PLY has no textures: their colours at the vertices are kept.
    """
    colored = [_with_flat_colors(mesh) for mesh in meshes]
    merged = merge_meshes(colored) if len(colored) != 1 else colored[0]
    if merged.is_empty:
        raise ValueError("There is nothing to write: no mesh has a face.")
    fields: list[tuple] = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    values = [to_array(merged.vertices).T]
    if merged.vertex_normals is not None:
        fields += [("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
        values.append(to_array(merged.vertex_normals).T)
    if merged.uvs is not None:
        fields += [("s", "<f4"), ("t", "<f4")]
        uvs = to_array(merged.uvs)
        values.append(np.stack([uvs[:, 0], 1.0 - uvs[:, 1]]))
    if merged.vertex_colors is not None:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
        values.append(np.rint(np.clip(to_array(merged.vertex_colors), 0, 1) * 255).T)
    vertices = np.zeros(merged.num_vertices, dtype=fields)
    for (name, _), column in zip(fields, np.concatenate(values), strict=True):
        vertices[name] = column
    faces = np.zeros(
        merged.num_faces, dtype=[("#vertex_indices", "u1"), ("vertex_indices", "<i4", 3)]
    )
    faces["#vertex_indices"] = 3
    faces["vertex_indices"] = to_array(merged.faces, "<i4")
    comments = ("Lift3D mesh, +Y up, +Z front",)
    return encode_ply([("vertex", vertices), ("face", faces)], comments)


def decode_ply_mesh(data: bytes) -> list[Mesh]:
    """The mesh of an ASCII or binary PLY; polygons are triangulated.

    Raises:
        ValueError: damaged, Gaussians instead of a mesh, or a point cloud without faces.
    """
    elements = decode_ply(data)
    vertex = elements.get("vertex", PlyElement(0))
    if is_splat_ply(elements):
        raise ValueError("it holds Gaussians, not a mesh; load it as a splat file.")
    face = elements.get("face", PlyElement(0))
    name = next((n for n in ("vertex_indices", "vertex_index") if n in face.lists), None)
    if name is None or not face.count:
        raise ValueError(f"it holds {vertex.count} points but no faces, so it is no mesh.")
    require_at_most("vertices", vertex.count, MAX_VERTICES)
    positions = _columns(vertex.columns, [("x", "y", "z")])
    if positions is None:
        raise ValueError("its vertices have no x, y and z.")
    sizes, corners = face.lists[name]
    if corners.dtype.kind == "f":
        raise ValueError("its face indices are no whole numbers.")
    corners = corners.astype(np.int64)
    if corners.size and not 0 <= corners.min() <= corners.max() < vertex.count:
        raise ValueError(
            f"faces point at vertices {corners.min()}..{corners.max()}, but the mesh has "
            f"{vertex.count} vertices."
        )
    triangles, _ = triangulate_polygons(positions[corners], sizes.astype(np.int64))
    require_at_most("faces", len(triangles), MAX_FACES)
    if not len(triangles):
        raise ValueError("it holds no face with three corners.")
    colors = read_vertex_colors(vertex.columns)
    normals = _columns(vertex.columns, [("nx", "ny", "nz")])
    uvs = _columns(vertex.columns, _UV_NAMES)
    if uvs is not None:
        uvs = np.stack([uvs[:, 0], 1.0 - uvs[:, 1]], axis=1)
    return [
        Mesh(
            vertices=to_tensor(positions),
            faces=to_tensor(corners[triangles], torch.int64),
            vertex_colors=None if colors is None else to_tensor(colors),
            uvs=None if uvs is None else to_tensor(uvs),
            vertex_normals=None if normals is None else to_tensor(normals),
        )
    ]


def is_splat_ply(elements: Mapping[str, PlyElement]) -> bool:
    """True when a PLY holds Gaussians, plain or in PlayCanvas' compressed form."""
    columns = elements.get("vertex", PlyElement(0)).columns
    return {"scale_0", "rot_0"} <= columns.keys() or "packed_position" in columns


def _with_flat_colors(mesh: Mesh) -> Mesh:
    colors = flat_vertex_colors(mesh)
    return replace(mesh, vertex_colors=colors, texture=None, metallic_roughness=None)


def _columns(
    columns: Mapping[str, np.ndarray], names: Sequence[tuple[str, ...]]
) -> np.ndarray | None:
    """Columns of the first complete set of names, as float64 [row, column]."""
    for wanted in names:
        if all(name in columns for name in wanted):
            with np.errstate(invalid="ignore"):  # NaN is refused later, by the noun
                return np.stack([columns[name].astype(np.float64) for name in wanted], axis=1)
    return None


def read_vertex_colors(columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Colours 0..1 [row, 3] under any of their usual names; None without them."""
    for wanted in _COLOR_NAMES:
        if all(name in columns for name in wanted):
            kind = columns[wanted[0]].dtype
            largest = 1.0 if kind.kind == "f" else float(np.iinfo(kind).max)
            values = _columns(columns, [wanted])
            return None if values is None else np.clip(values / largest, 0.0, 1.0)
    return None
