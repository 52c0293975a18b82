"""Contains the reader of Wavefront OBJ files.

OBJ indexes positions, texture coordinates and normals separately; a `Mesh` has one index. A vertex
is repeated for each distinct pair of coordinates and normal that its faces use.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from jaxtyping import Float, Int64

from ..mesh import Mesh
from .arrays import merge_equal_rows, to_tensor
from .files import MissingSiblingError, SiblingLoader, no_siblings, safe_relative_name
from .limits import MAX_FACES, MAX_PARTS, MAX_TEXT_BYTES, require_at_most
from .obj_material import ObjMaterial, decode_mtl
from .obj_text import ObjText, parse_obj
from .polygons import triangulate_polygons

LOGGER = logging.getLogger(__name__)


def decode_obj(data: bytes, load_sibling: SiblingLoader = no_siblings) -> list[Mesh]:
    """Meshes of an OBJ file, one per object (or group) and material.

    Polygons are triangulated. A missing material library or texture is reported and left out.

    Args:
        data: bytes of the file.
        load_sibling: gives material libraries and textures by name.

    Raises:
        ValueError: damaged numbers, indices out of range, unsafe file names, no faces.
    """
    require_at_most("bytes of text", len(data), MAX_TEXT_BYTES)
    text = parse_obj(data)
    require_at_most("mesh parts", len(text.parts), MAX_PARTS)
    triangles, polygons = triangulate_polygons(text.vertices[text.corners[:, 0]], text.face_sizes)
    if not len(triangles):
        raise ValueError("it holds no face with three corners.")
    require_at_most("faces", len(triangles), MAX_FACES)
    corners = _merge_references(text.corners, text.uvs, text.normals)
    libraries = _load_libraries(text.libraries, load_sibling)
    part_of_triangle = text.face_parts[polygons]
    meshes = []
    for part, (_, material_name) in enumerate(text.parts):
        part_corners = corners[triangles[part_of_triangle == part].reshape(-1)]
        if len(part_corners):
            surface = libraries.get(material_name, ObjMaterial())
            meshes.append(_build_mesh(text, part_corners, surface, _part_name(text, part)))
    return meshes


def _merge_references(
    corners: Int64[np.ndarray, "corner 3"], uvs: np.ndarray, normals: np.ndarray
) -> Int64[np.ndarray, "corner 3"]:
    """Corners that refer to equal values refer to the first of them: fewer repeated vertices."""
    merged = corners.copy()
    # Exporters print one normal per corner with rounding noise; 1e-5 is far below what one sees.
    for column, values in ((1, uvs.astype(np.float32)), (2, normals.round(5).astype(np.float32))):
        if not len(values):
            continue
        first, group = merge_equal_rows(values)
        used = corners[:, column] >= 0
        merged[used, column] = first[group[corners[used, column]]]
    return merged


def _build_mesh(
    text: ObjText, corners: Int64[np.ndarray, "corner 3"], surface: ObjMaterial, name: str
) -> Mesh:
    keep_uvs, keep_normals = (bool((corners[:, column] >= 0).all()) for column in (1, 2))
    key = corners[:, 0]
    for column, kept, count in ((1, keep_uvs, len(text.uvs)), (2, keep_normals, len(text.normals))):
        if kept:
            # Renumbered first, so that the product stays within 64 bits.
            _, dense = np.unique(key, return_inverse=True)
            key = dense.reshape(-1) * count + corners[:, column]
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    vertex, uv, normal = corners[first].T
    colors = None if text.colors is None else text.colors[vertex]
    if colors is not None and np.isnan(colors).any():
        colors = None
    if surface.texture is not None and not keep_uvs:
        LOGGER.warning("Part %r has a texture but no texture coordinates: left out.", name)
    return Mesh(
        vertices=to_tensor(text.vertices[vertex]),
        faces=to_tensor(index.reshape(-1, 3), torch.int64),
        vertex_colors=None if colors is None else to_tensor(colors),
        uvs=to_tensor(text.uvs[uv]) if keep_uvs else None,
        texture=surface.texture if keep_uvs else None,
        vertex_normals=to_tensor(_unit(text.normals[normal])) if keep_normals else None,
        material=surface.material,
        name=name,
    )


def _unit(normals: Float[np.ndarray, "vertex 3"]) -> Float[np.ndarray, "vertex 3"]:
    with np.errstate(over="ignore", invalid="ignore"):  # infinite ones are refused by the mesh
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        return normals / np.where(length > 0, length, 1.0)


def _part_name(text: ObjText, part: int) -> str:
    name, material_name = text.parts[part]
    siblings = sum(other == name for other, _ in text.parts)
    if siblings > 1 and material_name:
        return f"{name}_{material_name}" if name else material_name
    return name or material_name or "mesh"


def _load_libraries(names: list[str], load_sibling: SiblingLoader) -> dict[str, ObjMaterial]:
    found: dict[str, ObjMaterial] = {}
    for name in names:
        safe_relative_name(name)
        try:
            data = load_sibling(name)
        except MissingSiblingError as error:
            LOGGER.warning("The materials are left out: the OBJ %s", error)
            continue
        found.update(decode_mtl(data, load_sibling))
    return found
