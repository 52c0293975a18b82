"""Sample meshes, clouds and hand-built files for the format tests."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import torch
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.mesh import Material, Mesh

COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def tetrahedron(**fields: Any) -> Mesh:
    """Four vertices, four outward faces."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    return Mesh(vertices, faces, **fields)


def colored_mesh() -> Mesh:
    """A tetrahedron with everything a mesh can have."""
    generator = torch.Generator().manual_seed(3)
    return tetrahedron(
        vertex_colors=torch.rand(4, 3, generator=generator),
        uvs=torch.rand(4, 2, generator=generator),
        texture=torch.randint(0, 256, (4, 8, 3), generator=generator) / 255,
        metallic_roughness=torch.randint(0, 256, (2, 2, 3), generator=generator) / 255,
        vertex_normals=torch.nn.functional.normalize(
            torch.randn(4, 3, generator=generator), dim=1
        ),
        material=Material(
            base_color=(0.5, 0.25, 1.0), alpha=0.75, metallic=0.5, roughness=0.25,
            double_sided=False, unlit=True,
        ),
        name="painted",
    )  # fmt: skip


def random_cloud(count: int = 50, degree: int = 3, seed: int = 0) -> GaussianCloud:
    """Gaussians with values that every format can hold."""
    generator = torch.Generator().manual_seed(seed)
    return GaussianCloud.from_unnormalized(
        means=torch.randn(count, 3, generator=generator),
        scales=torch.exp(torch.randn(count, 3, generator=generator) - 4),
        quats=torch.randn(count, 4, generator=generator),
        opacities=torch.rand(count, generator=generator) * 0.98 + 0.01,
        harmonics=torch.randn(count, (degree + 1) ** 2, 3, generator=generator) * 0.25,
    )


def build_glb(document: dict[str, Any], arrays: list[np.ndarray] | None = None) -> bytes:
    """A GLB made by hand: one accessor per array, written without the code under test."""
    document = {"asset": {"version": "2.0"}, **document}
    binary = b""
    if arrays:
        document.setdefault("bufferViews", [])
        document.setdefault("accessors", [])
        for array in arrays:
            array = array if array.ndim == 2 else array[:, None]
            document["bufferViews"].append(
                {"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes}
            )
            document["accessors"].append(
                {
                    "bufferView": len(document["bufferViews"]) - 1,
                    "componentType": COMPONENTS[array.dtype.str[1:]],
                    "count": len(array),
                    "type": KINDS[array.shape[1]],
                }
            )
            binary += array.tobytes() + b"\0" * (-array.nbytes % 4)
        document.setdefault("buffers", [{"byteLength": len(binary)}])
    return pack_glb(json.dumps(document).encode(), binary)


def pack_glb(json_bytes: bytes, binary: bytes) -> bytes:
    """Header and chunks of a GLB around given bytes."""
    json_bytes += b" " * (-len(json_bytes) % 4)
    body = struct.pack("<II", len(json_bytes), 0x4E4F534A) + json_bytes
    if binary:
        body += struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def triangle_glb(**changes: Any) -> bytes:
    """A GLB of one triangle; keyword arguments replace top-level keys of the JSON."""
    document: dict[str, Any] = {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "one"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
    }
    return build_glb(
        document | changes,
        [np.eye(3, dtype="<f4"), np.arange(3, dtype="<u2")],
    )
