"""Contains the writer of Wavefront OBJ files with material library and PNG textures."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import numpy as np

from ..mesh import Mesh
from .arrays import to_array
from .images import encode_image
from .obj_material import encode_mtl

LOGGER = logging.getLogger(__name__)


def encode_obj(meshes: Sequence[Mesh], stem: str = "mesh") -> dict[str, bytes]:
    """Files of an OBJ by name: textures, ``stem.mtl``, and last ``stem.obj``.

    Vertex colours use the common extension ``v x y z r g b`` (sRGB). Numbers have nine digits, so
    that float32 values come back exactly. Metallic-roughness maps have no place in OBJ.

    Args:
        meshes: parts, each an object with its own material; empty ones are left out.
        stem: file name without suffix.

    Raises:
        ValueError: no mesh has a face.
    """
    drawn = [mesh for mesh in meshes if not mesh.is_empty]
    if not drawn:
        raise ValueError("There is nothing to write: no mesh has a face.")
    safe_stem = re.sub(r"[^\w.\-]", "_", stem)  # parsers split the names in OBJ at blanks
    files: dict[str, bytes] = {}
    materials, objects = "", [f"# Lift3D\nmtllib {safe_stem}.mtl\n"]
    first_vertex = first_uv = first_normal = 1
    for index, mesh in enumerate(drawn):
        texture_name = None
        if mesh.texture is not None:
            texture_name = f"{safe_stem}_{index}.png"
            files[texture_name] = encode_image(mesh.texture)
        if mesh.metallic_roughness is not None:
            LOGGER.warning("OBJ has no metallic-roughness map: that of %r is lost.", mesh.name)
        materials += encode_mtl(f"material_{index}", mesh.material, texture_name)
        objects.append(_encode_object(mesh, index, (first_vertex, first_uv, first_normal)))
        first_vertex += mesh.num_vertices
        first_uv += mesh.num_vertices if mesh.uvs is not None else 0
        first_normal += mesh.num_vertices if mesh.vertex_normals is not None else 0
    files[f"{safe_stem}.mtl"] = materials.encode()
    files[f"{stem}.obj"] = "".join(objects).encode()
    return files


def _encode_object(mesh: Mesh, index: int, first: tuple[int, int, int]) -> str:
    name = " ".join(mesh.name.split()) or f"mesh_{index}"
    rows = to_array(mesh.vertices)
    if mesh.vertex_colors is not None:
        rows = np.concatenate([rows, to_array(mesh.vertex_colors)], axis=1)
    lines = [f"o {name}\n", _format_rows("v", rows)]
    faces = to_array(mesh.faces, "<i8")
    columns = [faces + first[0]]
    if mesh.uvs is not None:
        uvs = to_array(mesh.uvs)
        lines.append(_format_rows("vt", np.stack([uvs[:, 0], 1.0 - uvs[:, 1]], axis=1)))
        columns.append(faces + first[1])
    if mesh.vertex_normals is not None:
        lines.append(_format_rows("vn", to_array(mesh.vertex_normals)))
        columns.append(faces + first[2])
    corner = "%d/%d/%d"[: 3 * len(columns) - 1]
    if mesh.uvs is None and mesh.vertex_normals is not None:
        corner = "%d//%d"
    lines.append(f"usemtl material_{index}\n")
    corners = np.stack(columns, axis=-1).reshape(len(faces), -1)
    lines.append(_format(f"f {corner} {corner} {corner}\n", corners))
    return "".join(lines)


def _format_rows(keyword: str, rows: np.ndarray) -> str:
    return _format(f"{keyword}{' %.9g' * rows.shape[1]}\n", rows)


def _format(template: str, rows: np.ndarray) -> str:
    return (template * len(rows)) % tuple(rows.reshape(-1).tolist())
