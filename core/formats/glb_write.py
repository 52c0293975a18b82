"""Contains the writer of binary glTF 2.0 (.glb): one node, mesh and primitive per `Mesh`.

Colours follow the glTF specification: vertex colours and factors linear, base colour textures
sRGB, metallic-roughness textures linear. No axis is changed: +Y is up and +Z front in both.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from ..geometry.skeleton import Skeleton, SkinWeights
from ..mesh import Material, Mesh
from .arrays import smooth_normals, to_array
from .color_space import srgb_to_linear
from .glb_rig import GlbRig, inverse_bind_matrices, joint_nodes
from .gltf_container import join_glb
from .images import ImageFormat, encode_image

LOGGER = logging.getLogger(__name__)

GENERATOR = "Lift3D"
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
U8, U16, U32, F32 = 5121, 5123, 5125, 5126
LINEAR, LINEAR_MIPMAP_LINEAR = 9729, 9987
CLAMP_TO_EDGE, REPEAT = 33071, 10497


@dataclass(frozen=True)
class GlbParams:
    """Options of the GLB writer.

    Attributes:
        texture_format: "png" (exact) or "jpeg" (smaller, lossy) for base colour textures.
        jpeg_quality: 1..100.
        write_normals: store normals; smooth ones are computed where a mesh has none. Without
            them viewers draw flat facets.
    """

    texture_format: ImageFormat = "png"
    jpeg_quality: int = 92
    write_normals: bool = True


def encode_glb(
    meshes: Sequence[Mesh],
    *,
    metadata: dict[str, Any] | None = None,
    params: GlbParams | None = None,
    rig: GlbRig | None = None,
) -> bytes:
    """Bytes of a GLB with one named node per mesh.

    Args:
        meshes: parts of the scene; empty ones are left out.
        metadata: JSON values for ``asset.extras``.
        params: writer options.
        rig: skeleton that moves all meshes; they are then skinned to it.

    Raises:
        ValueError: no mesh has a face, the metadata is no JSON, or the rig is of other meshes.
    """
    if rig is not None:
        rig.require_fit(meshes)
    drawn = [mesh for mesh in meshes if not mesh.is_empty]
    if not drawn:
        raise ValueError("There is nothing to write: no mesh has a face.")
    if len(drawn) < len(meshes):
        LOGGER.warning("Left out %d empty meshes: glTF cannot hold them.", len(meshes) - len(drawn))
    builder = _GlbBuilder(params or GlbParams())
    for index, mesh in enumerate(meshes):
        if not mesh.is_empty:
            builder.add_mesh(mesh, None if rig is None else rig.skins[index])
    if rig is not None:
        builder.add_skeleton(rig.skeleton)
    return builder.finish(_checked_metadata(metadata))


def _checked_metadata(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    if metadata is None:
        return None
    try:
        return json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"GLB metadata must consist of JSON values: {error}.") from error


@dataclass
class _GlbBuilder:
    """Collects the JSON arrays and the binary chunk of one file."""

    params: GlbParams
    chunks: list[bytes] = field(default_factory=list)
    length: int = 0
    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    roots: list[int] = field(default_factory=list)
    extensions: set[str] = field(default_factory=set)
    known_images: dict[tuple[bytes, str], int] = field(default_factory=dict)

    def add_mesh(self, mesh: Mesh, skin: SkinWeights | None = None) -> None:
        """Append a node with a mesh of one primitive, which the file's only skeleton may move."""
        attributes = {"POSITION": self._vector(to_array(mesh.vertices), bounds=True)}
        if self.params.write_normals:
            attributes["NORMAL"] = self._vector(to_array(smooth_normals(mesh)))
        if mesh.uvs is not None:
            attributes["TEXCOORD_0"] = self._vector(to_array(mesh.uvs))
        if mesh.vertex_colors is not None:
            linear = srgb_to_linear(to_array(mesh.vertex_colors, "<f8"))
            attributes["COLOR_0"] = self._vector(linear.astype("<f4"))
        if skin is not None:
            attributes["JOINTS_0"] = self._vector(to_array(skin.joints, "<u1"), kind=U8)
            attributes["WEIGHTS_0"] = self._vector(to_array(skin.weights))
        primitive = {
            "attributes": attributes,
            "indices": self._indices(mesh),
            "material": self._material(mesh),
            "mode": 4,
        }
        index = self._append("meshes", {"name": mesh.name, "primitives": [primitive]})
        node: dict[str, Any] = {"name": mesh.name, "mesh": index}
        if skin is not None:
            node["skin"] = 0
        self.roots.append(self._append("nodes", node))

    def add_skeleton(self, skeleton: Skeleton) -> None:
        """Append the joints as nodes, and the skin that all meshes before have as number 0."""
        first = len(self.lists["nodes"])
        for node in joint_nodes(skeleton, first):
            self._append("nodes", node)
        self.roots += [first + index for index, parent in enumerate(skeleton.parents) if parent < 0]
        matrices = inverse_bind_matrices(skeleton)
        accessor = {
            "bufferView": self._view(matrices.tobytes()),
            "componentType": F32,
            "count": len(matrices),
            "type": "MAT4",
        }
        skin = {
            "name": "humanoid",
            "joints": list(range(first, first + len(skeleton.names))),
            "inverseBindMatrices": self._append("accessors", accessor),
            "skeleton": first,
        }
        self._append("skins", skin)

    def finish(self, metadata: dict[str, Any] | None) -> bytes:
        """Bytes of the file."""
        asset: dict[str, Any] = {"version": "2.0", "generator": GENERATOR}
        if metadata is not None:
            asset["extras"] = metadata
        document = {
            "asset": asset,
            "scene": 0,
            "scenes": [{"nodes": self.roots}],
            **self.lists,
            "buffers": [{"byteLength": self.length}],
        }
        if self.extensions:
            document["extensionsUsed"] = sorted(self.extensions)
        return join_glb(document, b"".join(self.chunks))

    def _append(self, kind: str, entry: dict[str, Any]) -> int:
        entries = self.lists.setdefault(kind, [])
        entries.append(entry)
        return len(entries) - 1

    def _view(self, data: bytes, target: int | None = None) -> int:
        view = {"buffer": 0, "byteOffset": self.length, "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        padded = data + b"\0" * (-len(data) % 4)  # every view starts on a multiple of 4
        self.chunks.append(padded)
        self.length += len(padded)
        return self._append("bufferViews", view)

    def _vector(
        self, values: Shaped[np.ndarray, "element column"], bounds: bool = False, kind: int = F32
    ) -> int:
        accessor = {
            "bufferView": self._view(values.tobytes(), ARRAY_BUFFER),
            "componentType": kind,
            "count": len(values),
            "type": f"VEC{values.shape[1]}",
        }
        if bounds:
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        return self._append("accessors", accessor)

    def _indices(self, mesh: Mesh) -> int:
        # The largest value of each type is the restart marker, which no index may have.
        is_small = mesh.num_vertices <= 65535
        indices = to_array(mesh.faces, "<u2" if is_small else "<u4").reshape(-1)
        accessor = {
            "bufferView": self._view(indices.tobytes(), ELEMENT_ARRAY_BUFFER),
            "componentType": U16 if is_small else U32,
            "count": len(indices),
            "type": "SCALAR",
        }
        return self._append("accessors", accessor)

    def _material(self, mesh: Mesh) -> int:
        pbr: dict[str, Any] = {
            "baseColorFactor": _linear_factor(mesh.material),
            "metallicFactor": float(mesh.material.metallic),
            "roughnessFactor": float(mesh.material.roughness),
        }
        if mesh.texture is not None:
            pbr["baseColorTexture"] = {
                "index": self._texture(mesh, mesh.texture, self.params.texture_format)
            }
        if mesh.metallic_roughness is not None and mesh.uvs is not None:
            pbr["metallicRoughnessTexture"] = {
                "index": self._texture(mesh, mesh.metallic_roughness, "png")
            }
        entry: dict[str, Any] = {
            "name": mesh.name,
            "pbrMetallicRoughness": pbr,
            "doubleSided": mesh.material.double_sided,
        }
        if mesh.material.alpha < 1:
            entry["alphaMode"] = "BLEND"
        if mesh.material.unlit:
            entry["extensions"] = {"KHR_materials_unlit": {}}
            self.extensions.add("KHR_materials_unlit")
        return self._append("materials", entry)

    def _texture(self, mesh: Mesh, image: Tensor, image_format: ImageFormat) -> int:
        uvs = mesh.uvs
        inside = uvs is None or bool(((uvs >= 0) & (uvs <= 1)).all())
        source = self._image(image, image_format)
        return self._append(
            "textures", {"source": source, "sampler": self._sampler(clamped=inside)}
        )

    def _image(self, image: Tensor, image_format: ImageFormat) -> int:
        data = encode_image(image, image_format, quality=self.params.jpeg_quality)
        key = (hashlib.sha256(data).digest(), image_format)
        if key not in self.known_images:
            entry = {"bufferView": self._view(data), "mimeType": f"image/{image_format}"}
            self.known_images[key] = self._append("images", entry)
        return self.known_images[key]

    def _sampler(self, *, clamped: bool) -> int:
        wrap = CLAMP_TO_EDGE if clamped else REPEAT
        sampler = {
            "magFilter": LINEAR,
            "minFilter": LINEAR_MIPMAP_LINEAR,
            "wrapS": wrap,
            "wrapT": wrap,
        }
        known = self.lists.setdefault("samplers", [])
        return known.index(sampler) if sampler in known else self._append("samplers", sampler)


def _linear_factor(material: Material) -> list[float]:
    linear = srgb_to_linear(np.asarray(material.base_color, dtype=np.float64))
    return [*map(float, linear), float(material.alpha)]
