"""Contains the reader of Wavefront OBJ files.

OBJ indexes positions, texture coordinates and normals separately; a `Mesh` has one index. A vertex
is repeated for each distinct pair of coordinates and normal that its faces use.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64

from ..mesh import Mesh
from .arrays import merge_equal_rows, parse_numbers, to_tensor
from .files import MissingSiblingError, SiblingLoader, no_siblings, safe_relative_name
from .limits import (
    MAX_FACES,
    MAX_PARTS,
    MAX_TEXT_BYTES,
    MAX_TOKEN_BYTES,
    MAX_VERTICES,
    require_at_most,
)
from .obj_material import ObjMaterial, decode_mtl
from .polygons import triangulate_polygons

LOGGER = logging.getLogger(__name__)

ABSENT = -1


@dataclass
class _ObjText:
    """The lines of a file, sorted by kind; parts are runs of faces with one name and material."""

    vertices: list[list[bytes]] = field(default_factory=list)
    uvs: list[list[bytes]] = field(default_factory=list)
    normals: list[list[bytes]] = field(default_factory=list)
    corners: list[bytes] = field(default_factory=list)
    face_sizes: list[int] = field(default_factory=list)
    face_parts: list[int] = field(default_factory=list)
    seen_before_face: list[tuple[int, int, int]] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)
    parts: dict[tuple[str, str], int] = field(default_factory=dict)


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
    text = _sort_lines(data)
    if not text.corners:
        raise ValueError("it holds no faces.")
    vertices, colors = _parse_vertices(text.vertices)
    uvs = _parse_columns(text.uvs, 2, "texture coordinates")
    normals = _parse_columns(text.normals, 3, "normals")
    corners = _resolve(_parse_corners(text.corners), text, (len(vertices), len(uvs), len(normals)))
    sizes = np.asarray(text.face_sizes, dtype=np.int64)
    triangles, polygons = triangulate_polygons(vertices[corners[:, 0]], sizes)
    if not len(triangles):
        raise ValueError("it holds no face with three corners.")
    require_at_most("faces", len(triangles), MAX_FACES)
    uvs[:, 1] = 1.0 - uvs[:, 1]  # OBJ counts v from the bottom, core from the top
    corners = _merge_references(corners, uvs, normals)
    libraries = _load_libraries(text.libraries, load_sibling)
    part_of_triangle = np.asarray(text.face_parts)[polygons]
    meshes = []
    for (name, material_name), part in text.parts.items():
        part_corners = corners[triangles[part_of_triangle == part].reshape(-1)]
        if not len(part_corners):
            continue
        surface = libraries.get(material_name, ObjMaterial())
        meshes.append(
            _build_mesh(
                part_corners,
                vertices,
                colors,
                uvs,
                normals,
                surface,
                _part_name(name, material_name, text),
            )  # fmt: skip
        )
    return meshes


def _sort_lines(data: bytes) -> _ObjText:
    text = _ObjText()
    object_name = group_name = material_name = ""
    part = ABSENT
    for line in data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines():
        words = line.split()
        if not words:
            continue
        keyword = words[0]
        if keyword == b"v":
            text.vertices.append(words[1:])
        elif keyword == b"vt":
            text.uvs.append(words[1:3])
        elif keyword == b"vn":
            text.normals.append(words[1:4])
        elif keyword == b"f":
            if part == ABSENT:
                key = (object_name or group_name, material_name)
                part = text.parts.setdefault(key, len(text.parts))
                require_at_most("mesh parts", len(text.parts), MAX_PARTS)
            text.corners.extend(words[1:])
            text.face_sizes.append(len(words) - 1)
            text.face_parts.append(part)
            text.seen_before_face.append((len(text.vertices), len(text.uvs), len(text.normals)))
        elif keyword in (b"o", b"g", b"usemtl"):
            name = line.strip()[len(keyword) :].strip().decode("utf-8", "replace")
            object_name = name if keyword == b"o" else object_name
            group_name = name if keyword == b"g" else group_name
            material_name = name if keyword == b"usemtl" else material_name
            part = ABSENT
        elif keyword == b"mtllib":
            text.libraries.append(line.strip()[6:].strip().decode("utf-8", "replace"))
    require_at_most("vertices", len(text.vertices), MAX_VERTICES)
    require_at_most("faces", len(text.face_sizes), MAX_FACES)
    return text


def _parse_columns(rows: list[list[bytes]], columns: int, what: str) -> np.ndarray:
    if any(len(row) != columns for row in rows):
        raise ValueError(f"a line of {what} has fewer than {columns} numbers.")
    tokens = [token for row in rows for token in row]
    return parse_numbers(tokens, "f8", what).reshape(-1, columns)


def _parse_vertices(rows: list[list[bytes]]) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions, and sRGB colours when every vertex has them (``v x y z r g b``)."""
    if any(len(row) < 3 for row in rows):
        raise ValueError("a vertex line has fewer than three numbers.")
    positions = _parse_columns([row[:3] for row in rows], 3, "vertices")
    # Four numbers are x y z w; six or seven end in a colour.
    if not rows or not all(len(row) >= 6 for row in rows):
        return positions, None
    return positions, np.clip(_parse_columns([row[3:6] for row in rows], 3, "colours"), 0.0, 1.0)


def _parse_corners(tokens: list[bytes]) -> Int64[np.ndarray, "corner 3"]:
    """Raw indices of position, uv and normal, 0 where a corner has none."""
    if max(map(len, tokens)) > MAX_TOKEN_BYTES:
        raise ValueError("a face has an index of absurd length; the file is damaged.")
    corners = np.zeros((len(tokens), 3), dtype=np.int64)
    stripped = np.char.rstrip(np.array(tokens), b"/")  # "7/" is a position alone
    slashes = np.where(np.char.find(stripped, b"//") >= 0, -2, np.char.count(stripped, b"/"))
    for shape in np.unique(slashes):
        columns = {0: [0], 1: [0, 1], 2: [0, 1, 2], -2: [0, 2]}.get(int(shape))
        if columns is None:
            raise ValueError("a face has a corner with more than three indices.")
        members = np.flatnonzero(slashes == shape)
        numbers = b" ".join(stripped[members].tolist()).replace(b"/", b" ").split()
        if len(numbers) != len(members) * len(columns):
            raise ValueError("a face has a corner with an empty index.")
        values = parse_numbers(numbers, "i8", "face indices").reshape(-1, len(columns))
        if (values == 0).any():
            raise ValueError("a face uses index 0, but OBJ counts from 1.")
        corners[members[:, None], columns] = values
    return corners


def _resolve(
    raw: Int64[np.ndarray, "corner 3"], text: _ObjText, counts: tuple[int, int, int]
) -> Int64[np.ndarray, "corner 3"]:
    """Zero-based indices; negative ones count back from the line of their face."""
    if (raw < 0).any():
        seen = np.asarray(text.seen_before_face, dtype=np.int64)
        seen = np.repeat(seen, text.face_sizes, axis=0)
        resolved = np.where(raw > 0, raw - 1, np.where(raw < 0, seen + raw, ABSENT))
        wrong = (raw < 0) & (resolved < 0)
    else:
        resolved = raw - 1
        wrong = np.zeros_like(raw, dtype=bool)
    for column, (what, count) in enumerate(
        zip(("vertex", "texture coordinate", "normal"), counts, strict=True)
    ):
        bad = wrong[:, column] | (resolved[:, column] >= count)
        if bad.any():
            raise ValueError(
                f"a face uses {what} {int(raw[bad, column][0])}, but the file has {count}."
            )
    return resolved


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
    corners: Int64[np.ndarray, "corner 3"],
    vertices: Float[np.ndarray, "vertex 3"],
    colors: Float[np.ndarray, "vertex 3"] | None,
    uvs: Float[np.ndarray, "uv 2"],
    normals: Float[np.ndarray, "normal 3"],
    surface: ObjMaterial,
    name: str,
) -> Mesh:
    keep_uvs, keep_normals = bool((corners[:, 1] >= 0).all()), bool((corners[:, 2] >= 0).all())
    key = corners[:, 0]
    for column, kept, count in ((1, keep_uvs, len(uvs)), (2, keep_normals, len(normals))):
        if kept:
            # Renumbered first, so that the product stays within 64 bits.
            _, dense = np.unique(key, return_inverse=True)
            key = dense.reshape(-1) * count + corners[:, column]
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    picked = corners[first]
    texture = surface.texture if keep_uvs else None
    if surface.texture is not None and not keep_uvs:
        LOGGER.warning("Part %r has a texture but no texture coordinates: left out.", name)
    return Mesh(
        vertices=to_tensor(vertices[picked[:, 0]]),
        faces=to_tensor(index.reshape(-1, 3), torch.int64),
        vertex_colors=None if colors is None else to_tensor(colors[picked[:, 0]]),
        uvs=to_tensor(uvs[picked[:, 1]]) if keep_uvs else None,
        texture=texture,
        vertex_normals=to_tensor(_unit(normals[picked[:, 2]])) if keep_normals else None,
        material=surface.material,
        name=name,
    )


def _unit(normals: Float[np.ndarray, "vertex 3"]) -> Float[np.ndarray, "vertex 3"]:
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(length > 0, length, 1.0)


def _part_name(name: str, material_name: str, text: _ObjText) -> str:
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
