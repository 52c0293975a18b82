"""Contains changes of frame for Gaussians: means, quaternions and harmonics turn together.

Core keeps Gaussians in the world frame (+Y up, +Z front). Files and ComfyUI's SPLAT use the 3DGS
frame (+Y down, +Z forward). The two differ by 180 degrees about X.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..gaussian_cloud import GaussianCloud
from .harmonics import rotate_harmonics
from .transforms import matrix_to_quat, quat_multiply

# Signs of the basis functions under (x, y, z) -> (x, -y, -z), degrees 0 to 3.
_HALF_TURN_SIGNS = (
    1.0,
    -1.0, -1.0, 1.0,
    -1.0, 1.0, 1.0, -1.0, 1.0,
    -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0,
)  # fmt: skip


def world_to_3dgs(cloud: GaussianCloud) -> GaussianCloud:
    """Cloud in the 3DGS frame (+Y down, +Z forward); exact, no rounding."""
    return _turn_about_x(cloud, 1.0)


def from_3dgs(cloud: GaussianCloud) -> GaussianCloud:
    """Cloud in the world frame from one in the 3DGS frame; exact inverse of `world_to_3dgs`."""
    return _turn_about_x(cloud, -1.0)


def _turn_about_x(cloud: GaussianCloud, sense: float) -> GaussianCloud:
    w, x, y, z = cloud.quats.unbind(dim=1)
    signs = cloud.harmonics.new_tensor(_HALF_TURN_SIGNS[: cloud.harmonics.shape[1]])
    return replace(
        cloud,
        means=cloud.means * cloud.means.new_tensor([1.0, -1.0, -1.0]),
        quats=sense * torch.stack([-x, w, -z, y], dim=1),  # (0, 1, 0, 0) * q
        harmonics=cloud.harmonics * signs[:, None],
    )


def transform_gaussians(cloud: GaussianCloud, matrix: Float[Tensor, "4 4"]) -> GaussianCloud:
    """Cloud moved by a rotation, a uniform scale and a translation, given as a 4x4 matrix.

    Raises:
        ValueError: the matrix shears, scales unevenly, mirrors or projects, which Gaussians with a
            quaternion and harmonics cannot follow.
    """
    require_shape("matrix", matrix, 4, 4)
    require_finite("matrix", matrix)
    linear = matrix[:3, :3].to(cloud.means.device, torch.float64)
    determinant = float(torch.linalg.det(linear.detach()))
    if determinant <= 0:
        raise ValueError(
            f"Gaussians cannot be mirrored or flattened: the determinant is {determinant:.3g}, "
            "it must be positive."
        )
    scale = torch.linalg.det(linear) ** (1 / 3)
    rotation = linear / scale
    gram = rotation.detach().T @ rotation.detach()
    residual = float((gram - torch.eye(3, device=gram.device, dtype=gram.dtype)).abs().max())
    bottom = matrix[3].detach().double() - torch.tensor([0, 0, 0, 1.0], device=matrix.device)
    if residual > 1e-4 or float(bottom.abs().max()) > 1e-6:
        raise ValueError(
            "Gaussians need a rotation, a uniform scale and a translation; this matrix shears, "
            f"scales unevenly or projects (R^T R is off by {residual:.3g})."
        )
    turn = matrix_to_quat(rotation).to(cloud.quats)
    means = cloud.means @ linear.to(cloud.means).T + matrix[:3, 3].to(cloud.means)
    return replace(
        cloud,
        means=means,
        scales=cloud.scales * scale.to(cloud.scales),
        quats=quat_multiply(turn.expand_as(cloud.quats), cloud.quats),
        harmonics=rotate_harmonics(cloud.harmonics, rotation),
    )
