"""Contains the reader of glTF 2.0 files, .glb and .gltf.

Every primitive of every node becomes one `Mesh` in world coordinates. Animation, morph targets and
skins are left out: a skinned mesh comes in the pose it was modelled in.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64

from ..mesh import Mesh
from .arrays import to_tensor
from .color_space import linear_to_srgb
from .files import SiblingLoader, no_siblings
from .gltf_accessors import AccessorReader
from .gltf_container import open_gltf
from .gltf_materials import GltfMaterial, MaterialReader
from .gltf_scene import Matrix, mesh_nodes
from .json_fields import JsonObject, pick
from .limits import MAX_FACES, MAX_PARTS, MAX_VERTICES, require_at_most

LOGGER = logging.getLogger(__name__)

TRIANGLES, STRIP, FAN = 4, 5, 6


def decode_glb(data: bytes, load_sibling: SiblingLoader = no_siblings) -> list[Mesh]:
    """Meshes of the default scene of a .glb or .gltf file, named after their nodes.

    Args:
        data: bytes of the file.
        load_sibling: gives the buffers and images that a .gltf names beside itself.

    Raises:
        ValueError: the file is damaged, compressed, unsafe, too large or has no triangles.
    """
    document = open_gltf(data, load_sibling)
    primitives = _PrimitiveReader(AccessorReader(document), MaterialReader(document))
    gltf_meshes = document.json.children("meshes")
    parts: list[Mesh] = []
    skipped = num_vertices = num_faces = 0
    nodes = mesh_nodes(document.json)
    if not document.json.has("nodes"):
        nodes = iter((JsonObject({"mesh": i}), np.eye(4)) for i in range(len(gltf_meshes)))
    for node, world in nodes:
        gltf_mesh = pick(gltf_meshes, node.integer("mesh"), "mesh")
        name = node.text("name", "") or gltf_mesh.text("name", "") or f"mesh_{len(parts)}"
        found = [primitives.read(entry) for entry in gltf_mesh.children("primitives")]
        meshes = [mesh for mesh in found if mesh is not None]
        skipped += len(found) - len(meshes)
        for position, mesh in enumerate(meshes):
            num_vertices, num_faces = num_vertices + mesh.num_vertices, num_faces + mesh.num_faces
            require_at_most("vertices", num_vertices, MAX_VERTICES)
            require_at_most("faces", num_faces, MAX_FACES)
            require_at_most("mesh parts", len(parts) + 1, MAX_PARTS)
            part_name = name if len(meshes) == 1 else f"{name}_{position}"
            parts.append(_place(mesh, world, part_name))
    if skipped:
        LOGGER.warning("Left out %d primitives that are points or lines.", skipped)
    if not parts:
        raise ValueError("it holds no triangles.")
    return parts


def read_glb_metadata(data: bytes) -> dict[str, Any]:
    """The metadata that was written into ``asset.extras``; empty when there is none."""
    asset = open_gltf(data, no_siblings).json.child("asset")
    extras = asset.data.get("extras")
    return extras if isinstance(extras, dict) else {}


class _PrimitiveReader:
    def __init__(self, accessors: AccessorReader, materials: MaterialReader) -> None:
        self._accessors = accessors
        self._materials = materials
        self._cache: dict[str, Mesh | None] = {}  # nodes may share a mesh

    def read(self, entry: JsonObject) -> Mesh | None:
        """Mesh in its own coordinates; None for points, lines and primitives without vertices."""
        if entry.where not in self._cache:
            self._cache[entry.where] = self._parse(entry)
        return self._cache[entry.where]

    def _parse(self, entry: JsonObject) -> Mesh | None:
        attributes = entry.child("attributes")
        mode = entry.integer("mode", TRIANGLES)
        if mode not in (TRIANGLES, STRIP, FAN) or not attributes.has("POSITION"):
            return None
        vertices = self._accessors.floats(attributes.integer("POSITION"), (3,))
        if entry.has("indices"):
            corners = self._accessors.indices(entry.integer("indices"))
        else:
            corners = np.arange(len(vertices), dtype=np.int64)
        faces = _corners_to_faces(corners, mode)
        if not len(faces):
            return None
        surface = (
            self._materials.read(entry.integer("material"))
            if entry.has("material")
            else GltfMaterial()
        )
        uvs = self._optional(attributes, f"TEXCOORD_{surface.placement.uv_set}", (2,))
        colors = self._optional(attributes, "COLOR_0", (3, 4))
        normals = self._optional(attributes, "NORMAL", (3,))
        texture = surface.texture
        if texture is not None and uvs is None:
            LOGGER.warning("%s has a texture but no uvs: the texture is left out.", entry.where)
            texture = None
        return Mesh(
            vertices=to_tensor(vertices),
            faces=to_tensor(faces, torch.int64),
            vertex_colors=None if colors is None else to_tensor(linear_to_srgb(colors[:, :3])),
            uvs=None if uvs is None else to_tensor(surface.placement.apply(uvs)),
            texture=texture,
            metallic_roughness=None if uvs is None else surface.metallic_roughness,
            vertex_normals=None if normals is None else to_tensor(normals),
            material=surface.material,
        )

    def _optional(
        self, attributes: JsonObject, name: str, columns: tuple[int, ...]
    ) -> Float[np.ndarray, "vertex column"] | None:
        if not attributes.has(name):
            return None
        return self._accessors.floats(attributes.integer(name), columns)


def _corners_to_faces(
    corners: Int64[np.ndarray, " corner"], mode: int
) -> Int64[np.ndarray, "face 3"]:
    """Triangles of a list, strip or fan; strips lose the collapsed ones that join their pieces."""
    if mode == TRIANGLES:
        if len(corners) % 3:
            raise ValueError(f"a triangle list has {len(corners)} corners, no multiple of 3.")
        return corners.reshape(-1, 3)
    if len(corners) < 3:
        return np.zeros((0, 3), dtype=np.int64)
    if mode == FAN:
        first = np.full(len(corners) - 2, corners[0])
        return np.stack([first, corners[1:-1], corners[2:]], axis=1)
    faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    faces[1::2] = faces[1::2][:, [1, 0, 2]]  # every other triangle of a strip is turned over
    a, b, c = faces.T
    return faces[(a != b) & (b != c) & (c != a)]


def _place(mesh: Mesh, world: Matrix, name: str) -> Mesh:
    """Copy of a mesh moved into the world; mirrored nodes keep their outside outside."""
    if np.array_equal(world, np.eye(4)):
        return replace(mesh, name=name)
    linear = torch.from_numpy(world[:3, :3].copy())
    offset = torch.from_numpy(world[:3, 3].copy())
    determinant = float(torch.linalg.det(linear))
    normals = mesh.vertex_normals
    if normals is not None:
        # Cofactors instead of the inverse transpose: they exist for flattened nodes too.
        cofactors = torch.stack(
            [torch.linalg.cross(linear[i - 2], linear[i - 1]) for i in range(3)]
        )
        turned = normals.double() @ cofactors.T * (-1.0 if determinant < 0 else 1.0)
        normals = torch.nn.functional.normalize(turned, dim=1).float()
    return replace(
        mesh,
        vertices=(mesh.vertices.double() @ linear.T + offset).float(),
        faces=mesh.faces.flip(1) if determinant < 0 else mesh.faces,
        vertex_normals=normals,
        name=name,
    )
