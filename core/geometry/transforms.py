"""Contains changes of space: quaternions, homogeneous points, projection to pixels and rays."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import Camera

MIN_NORM = 1e-12


def normalize(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Unit vectors; the zero vector stays zero and its gradient finite."""
    squared = (vectors * vectors).sum(dim=-1, keepdim=True)
    return vectors * torch.rsqrt(
        squared.clamp(min=MIN_NORM**2 if vectors.dtype == torch.float64 else 1e-30)
    )


def quat_to_matrix(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of quaternions wxyz of any non-zero length."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*quats.shape[:-1], 3, 3)


def matrix_to_quat(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions wxyz with w >= 0 of rotation matrices."""
    m = rotations
    trace_terms = torch.stack(
        [
            1 + m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2],
            1 + m[..., 0, 0] - m[..., 1, 1] - m[..., 2, 2],
            1 - m[..., 0, 0] + m[..., 1, 1] - m[..., 2, 2],
            1 - m[..., 0, 0] - m[..., 1, 1] + m[..., 2, 2],
        ],
        dim=-1,
    )  # four times the squares of w, x, y, z
    yz, zx, xy = m[..., 2, 1], m[..., 0, 2], m[..., 1, 0]
    zy, xz, yx = m[..., 1, 2], m[..., 2, 0], m[..., 0, 1]
    candidates = torch.stack(
        [
            torch.stack([trace_terms[..., 0], yz - zy, zx - xz, xy - yx], dim=-1),
            torch.stack([yz - zy, trace_terms[..., 1], xy + yx, zx + xz], dim=-1),
            torch.stack([zx - xz, xy + yx, trace_terms[..., 2], yz + zy], dim=-1),
            torch.stack([xy - yx, zx + xz, yz + zy, trace_terms[..., 3]], dim=-1),
        ],
        dim=-2,
    )  # row i is exact up to scale where component i is largest
    best = trace_terms.argmax(dim=-1)[..., None, None].expand(*m.shape[:-2], 1, 4)
    quats = torch.gather(candidates, -2, best).squeeze(-2)
    quats = quats / quats.norm(dim=-1, keepdim=True)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def quat_multiply(
    first: Float[Tensor, "*batch 4"], second: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Hamilton product wxyz: the rotation ``second`` followed by ``first``."""
    w1, x1, y1, z1 = first.unbind(-1)
    w2, x2, y2, z2 = second.unbind(-1)
    parts = [
        w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
        w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
        w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
    ]
    return torch.stack(parts, dim=-1)


def homogenize(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Points with a last coordinate of one."""
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)


def project_points(
    points: Float[Tensor, "point 3"], camera: Camera, *, width: int, height: int
) -> tuple[Float[Tensor, "point 2"], Float[Tensor, " point"]]:
    """World points to pixel coordinates (x right, y down, corner origin) and camera depth.

    Depth is the distance along the viewing direction, positive in front of the camera. Points
    behind a perspective camera get pixel coordinates that mean nothing: test the depth.
    """
    camera_points = homogenize(points) @ camera.world_to_camera.to(points).T
    x, y, depth = camera_points[:, 0], camera_points[:, 1], -camera_points[:, 2]
    focal = camera.focal_px(height)
    if camera.is_perspective:
        safe = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
        x, y = x / safe, y / safe
    pixels = torch.stack([width / 2 + focal * x, height / 2 - focal * y], dim=-1)
    return pixels, depth


def pixel_rays(
    camera: Camera, *, width: int, height: int
) -> tuple[Float[Tensor, "height width 3"], Float[Tensor, "height width 3"]]:
    """World-space origins and unit directions of the rays through all pixel centres."""
    pose = camera.camera_to_world
    focal = camera.focal_px(height)
    xs = (torch.arange(width, device=pose.device, dtype=pose.dtype) + 0.5 - width / 2) / focal
    ys = (height / 2 - torch.arange(height, device=pose.device, dtype=pose.dtype) - 0.5) / focal
    y_grid, x_grid = torch.meshgrid(ys, xs, indexing="ij")
    zeros = torch.zeros_like(x_grid)
    if camera.is_perspective:
        local = torch.stack([x_grid, y_grid, zeros - 1], dim=-1)
        directions = normalize(local @ pose[:3, :3].T)
        return pose[:3, 3].expand_as(directions), directions
    offsets = torch.stack([x_grid, y_grid, zeros], dim=-1) @ pose[:3, :3].T
    origins = pose[:3, 3] + offsets
    return origins, (-pose[:3, 2]).expand_as(origins)
