"""Contains the fusion of depth maps into a truncated signed distance function (TSDF).

Reference: Curless and Levoy 1996, "A volumetric method for building complex models from range
images". The SDF is negative inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..camera import Camera, ViewRig
from .transforms import project_points

SLAB_POINTS = 1 << 20


@dataclass(frozen=True)
class FusedVolume:
    """A grid of distances; sample [0, 0, 0] lies at ``lower``, the last one at ``upper``.

    Attributes:
        sdf: mean signed distance, cut off at plus and minus the truncation.
        weight: number of views that say something about a sample.
        lower: world position of the first sample.
        upper: world position of the last sample.
    """

    sdf: Float[Tensor, "x y z"]
    weight: Float[Tensor, "x y z"]
    lower: Float[Tensor, 3]
    upper: Float[Tensor, 3]


def fuse_depth_maps(
    depths: Float[Tensor, "view height width"],
    rig: ViewRig,
    lower: Sequence[float] | Float[Tensor, 3],
    upper: Sequence[float] | Float[Tensor, 3],
    *,
    resolution: int = 128,
    truncation_voxels: float = 4.0,
    unseen_is_inside: bool = True,
    on_view: Callable[[int], None] = lambda view: None,
) -> FusedVolume:
    """Average the distances that depth maps see along their rays.

    A sample in front of a surface counts up to the truncation; behind it only within the
    truncation, since nothing is known of what is farther behind. Pixels without depth say that
    everything along their ray is free.

    Args:
        depths: camera z of the surface; 0 where nothing is.
        rig: one camera per map.
        lower: corner of the box.
        upper: opposite corner.
        resolution: samples along the longest side, at least 8.
        truncation_voxels: in voxels.
        unseen_is_inside: samples that no view says anything about lie inside. Right when cameras
            stand all round a closed object; otherwise they lie outside.
        on_view: called after each map; may raise to interrupt.

    Raises:
        ValueError: cameras, maps and box do not fit together.
    """
    require_shape("depths", depths, len(rig), None, None)
    require_finite("depths", depths)
    if resolution < 8 or not truncation_voxels >= 1:
        raise ValueError(
            "resolution must be at least 8 and truncation_voxels at least 1, got "
            f"{resolution} and {truncation_voxels}."
        )
    low = torch.as_tensor(lower, dtype=depths.dtype, device=depths.device)
    high = torch.as_tensor(upper, dtype=depths.dtype, device=depths.device)
    if not bool((high > low).all()):
        raise ValueError(f"upper {high.tolist()} must lie above lower {low.tolist()}.")
    voxel = float((high - low).max()) / (resolution - 1)
    axes = [
        torch.linspace(float(a), float(b), max(round(float(b - a) / voxel) + 1, 2)).to(low)
        for a, b in zip(low, high, strict=True)
    ]
    shape = tuple(len(axis) for axis in axes)
    total, weight = torch.zeros(shape).to(low), torch.zeros(shape).to(low)
    with torch.no_grad():
        for index, camera in enumerate(rig):
            _add_view(total, weight, axes, camera, depths[index], truncation_voxels * voxel)
            on_view(index)
    unseen = -1.0 if unseen_is_inside else 1.0
    mean = torch.where(weight > 0, total / weight.clamp(min=1e-6), unseen)
    return FusedVolume(mean * truncation_voxels * voxel, weight, low, high)


def _add_view(
    total: Tensor,
    weight: Tensor,
    axes: list[Tensor],
    camera: Camera,
    depth: Tensor,
    truncation: float,
) -> None:
    """Add what one map says to the sums, in place and slab by slab."""
    height, width = depth.shape
    plane = torch.stack(torch.meshgrid(axes[1], axes[2], indexing="ij"), dim=-1).reshape(-1, 2)
    step = max(SLAB_POINTS // len(plane), 1)
    for first in range(0, len(axes[0]), step):
        xs = axes[0][first : first + step]
        points = torch.cat(
            [xs.repeat_interleave(len(plane))[:, None], plane.repeat(len(xs), 1)], dim=1
        )
        pixels, ahead = project_points(points, camera, width=width, height=height)
        surface, known = sample_depth(depth, pixels, truncation)
        known &= ahead > camera.near
        distance = torch.where(surface > 0, surface - ahead, torch.inf)
        known &= distance > -truncation
        value = torch.where(known, (distance / truncation).clamp(max=1.0), 0.0)
        slab = total[first : first + step]
        slab += value.reshape(slab.shape)
        weight[first : first + step] += known.reshape(slab.shape).to(weight)


def sample_depth(
    depth: Float[Tensor, "height width"], pixels: Float[Tensor, "point 2"], jump: float
) -> tuple[Float[Tensor, " point"], Bool[Tensor, " point"]]:
    """Depth at places of a map: bilinear on smooth surfaces, the nearest pixel at jumps.

    Args:
        depth: 0 where nothing is.
        pixels: (x, y) with centres at half numbers.
        jump: neighbours that differ by more, or of which one is empty, are not mixed.

    Returns:
        The depths, and whether each place lies inside the map.
    """
    height, width = depth.shape
    inside = (pixels >= 0).all(dim=1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    safe = torch.where(inside[:, None], pixels, 0.0)
    flat = depth.reshape(-1)
    column, row = (safe.floor().long()).unbind(1)
    nearest = flat[row * width + column]
    corner = (safe - 0.5).floor()
    share = safe - 0.5 - corner
    left, top = corner.long().unbind(1)
    columns = torch.stack([left, left + 1], dim=1).clamp(0, width - 1)
    rows = torch.stack([top, top + 1], dim=1).clamp(0, height - 1)
    four = flat[rows[:, :, None] * width + columns[:, None, :]]  # [point, row, column]
    across = four[..., 0] + share[:, :1] * (four[..., 1] - four[..., 0])
    smooth = across[:, 0] + share[:, 1] * (across[:, 1] - across[:, 0])
    low, high = four.flatten(1).amin(dim=1), four.flatten(1).amax(dim=1)
    is_smooth = (low > 0) & (high - low <= jump)
    return torch.where(is_smooth, smooth, nearest), inside
