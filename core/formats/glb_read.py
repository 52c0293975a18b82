"""Contains the reader of glTF 2.0 files, .glb and .gltf.

Every primitive of every node becomes one `Mesh` in world coordinates. Skinned meshes come in the
pose in which their joints were saved. Animations and morph targets are left out.
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
from .gltf_container import GltfDocument, open_gltf
from .gltf_materials import GltfMaterial, MaterialReader
from .gltf_scene import Matrix, world_matrices
from .gltf_skin import rest_pose_matrices
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
    scene = _SceneReader(document)
    nodes = document.json.children("nodes")
    parts: list[Mesh] = []
    if nodes:
        for index, world in scene.world_matrices.items():
            if nodes[index].has("mesh"):
                parts += scene.read_node(nodes[index], world)
    else:
        for index in range(len(document.json.children("meshes"))):
            parts += scene.read_node(JsonObject({"mesh": index}), np.eye(4))
    if scene.skipped:
        LOGGER.warning("Left out %d primitives that are points or lines.", scene.skipped)
    if not parts:
        raise ValueError("it holds no triangles.")
    return parts


def read_glb_metadata(data: bytes) -> dict[str, Any]:
    """The metadata that was written into ``asset.extras``; empty when there is none."""
    asset = open_gltf(data, no_siblings).json.child("asset")
    extras = asset.data.get("extras")
    return extras if isinstance(extras, dict) else {}


class _SceneReader:
    """Places primitives in the world and keeps count of what they add up to."""

    def __init__(self, document: GltfDocument) -> None:
        self._accessors = AccessorReader(document)
        self._primitives = _PrimitiveReader(self._accessors, MaterialReader(document))
        self._meshes = document.json.children("meshes")
        self._skins = document.json.children("skins")
        self._num_parts = self._num_vertices = self._num_faces = 0
        self.world_matrices = world_matrices(document.json)
        self.skipped = 0

    def read_node(self, node: JsonObject, world: Matrix) -> list[Mesh]:
        """The primitives of a node, in world coordinates."""
        gltf_mesh = pick(self._meshes, node.integer("mesh"), "mesh")
        name = node.text("name", "") or gltf_mesh.text("name", "") or f"mesh_{self._num_parts}"
        parts: list[Mesh] = []
        for entry in gltf_mesh.children("primitives"):
            mesh = self._primitives.read(entry)
            if mesh is None:
                self.skipped += 1
                continue
            self._count(mesh)
            parts.append(self._pose(mesh, entry, node, world))
        if len(parts) == 1:
            return [replace(parts[0], name=name)]
        return [replace(mesh, name=f"{name}_{index}") for index, mesh in enumerate(parts)]

    def _pose(self, mesh: Mesh, entry: JsonObject, node: JsonObject, world: Matrix) -> Mesh:
        if node.has("skin"):
            matrices = rest_pose_matrices(
                pick(self._skins, node.integer("skin"), "skin"),
                entry.child("attributes"),
                self.world_matrices,
                self._accessors,
            )
            if matrices is not None:
                return _deform(mesh, matrices)  # the node's own matrix does not count
        return _place(mesh, world)

    def _count(self, mesh: Mesh) -> None:
        """Instances are counted too: a small file can repeat a mesh a million times."""
        self._num_parts += 1
        self._num_vertices += mesh.num_vertices
        self._num_faces += mesh.num_faces
        require_at_most("mesh parts", self._num_parts, MAX_PARTS)
        require_at_most("vertices", self._num_vertices, MAX_VERTICES)
        require_at_most("faces", self._num_faces, MAX_FACES)


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


def _deform(mesh: Mesh, matrices: Float[np.ndarray, "vertex 4 4"]) -> Mesh:
    """Copy with one matrix per vertex."""
    if len(matrices) != mesh.num_vertices:
        raise ValueError(f"a skin has weights for {len(matrices)} of {mesh.num_vertices} vertices.")
    turns, offsets = torch.from_numpy(matrices[:, :3, :3]), torch.from_numpy(matrices[:, :3, 3])
    vertices = torch.einsum("vij,vj->vi", turns, mesh.vertices.double()) + offsets
    normals = mesh.vertex_normals
    if normals is not None:
        turned = torch.einsum("vij,vj->vi", turns, normals.double())
        normals = torch.nn.functional.normalize(turned, dim=1).float()
    return replace(mesh, vertices=vertices.float(), vertex_normals=normals)


def _place(mesh: Mesh, world: Matrix) -> Mesh:
    """Copy of a mesh moved into the world; mirrored nodes keep their outside outside."""
    if np.array_equal(world, np.eye(4)):
        return mesh
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
    )
