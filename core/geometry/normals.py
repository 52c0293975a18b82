"""Contains mesh normals and the colour encodings of normal maps.

Bundle encoding (Kiss3DGen): camera space, OpenGL axes, with X negated:
colour = ((1 - nx) / 2, (1 + ny) / 2, (1 + nz) / 2). StdGEN's encoding is (n + 1) / 2 with n in the
frame of the front camera for every view; with our world frame that is the world normal itself.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..camera import ViewRig
from .transforms import normalize


def face_normals(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    *,
    unit: bool = True,
) -> Float[Tensor, "face 3"]:
    """Outward normals of counter-clockwise triangles; twice the area long unless ``unit``."""
    # index_select, unlike indexing, adds up its gradient in a fixed order on the CPU.
    a, b, c = vertices.index_select(0, faces.reshape(-1)).reshape(-1, 3, 3).unbind(dim=1)
    normals = torch.linalg.cross(b - a, c - a)
    return normalize(normals) if unit else normals


def vertex_normals(
    vertices: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"]
) -> Float[Tensor, "vertex 3"]:
    """Area-weighted unit normals of the vertices; zero where no face with area meets one."""
    weighted = face_normals(vertices, faces, unit=False)
    summed = torch.zeros_like(vertices)
    for corner in range(3):
        summed = summed.index_add(0, faces[:, corner], weighted)
    return normalize(summed)


def encode_bundle_normals(
    normals_world: Float[Tensor, "view height width 3"], rig: ViewRig
) -> Float[Tensor, "view height width 3"]:
    """World normals to the colours of the bundle's normal row, one camera per view."""
    rotations = torch.stack([camera.camera_to_world[:3, :3] for camera in rig]).to(normals_world)
    local = torch.einsum("vhwi,vij->vhwj", normals_world, rotations)  # world to camera: R^T n
    flip = local.new_tensor([-1.0, 1.0, 1.0])
    return (local * flip + 1) / 2


def decode_bundle_normals(
    colors: Float[Tensor, "view height width 3"], rig: ViewRig
) -> Float[Tensor, "view height width 3"]:
    """Colours of the bundle's normal row to unit world normals; mask the background first."""
    if colors.shape[0] != len(rig):
        raise ValueError(f"Got {colors.shape[0]} normal views for a rig of {len(rig)} cameras.")
    rotations = torch.stack([camera.camera_to_world[:3, :3] for camera in rig]).to(colors)
    flip = colors.new_tensor([-1.0, 1.0, 1.0])
    local = (2 * colors - 1) * flip
    return normalize(torch.einsum("vij,vhwj->vhwi", rotations, local))


def encode_world_normals(
    normals_world: Float[Tensor, "*batch 3"],
) -> Float[Tensor, "*batch 3"]:
    """World normals to colours (n + 1) / 2: StdGEN's front-camera encoding."""
    return (normals_world + 1) / 2


def decode_world_normals(colors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Colours of `encode_world_normals` to unit world normals."""
    return normalize(2 * colors - 1)
