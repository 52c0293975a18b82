"""Contains the loss between the Gaussians of given views and the pixels that they stand for.

Each Gaussian of the decoder lies on the ray of a pixel of a given view, whose true depth, colour
and coverage are known. Comparing it with them needs no drawing: a step takes a fraction of the
time, and the gradient says directly where a surface is, which renders from all sides only hint at.
It is a warm-up that neither GSV3D nor GRM has; their loss follows it (`splat_losses`), since only
that makes Gaussians of several views agree and chooses their sizes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ..camera import ViewRig
from ..gaussian_cloud import HARMONIC_DC, GaussianCloud
from .orbit_sheets import OrbitViews
from .splat_losses import Losses

OPACITY_WEIGHT = 0.2
LEAST_COVERAGE = 1e-3


def pixel_losses(cloud: GaussianCloud, rig: ViewRig, truth: OrbitViews) -> Losses:
    """Mean absolute errors of depth (world units) and colour, and cross-entropy of opacity.

    Depth and colour count where the object covers a pixel, by how much it does; the truth is
    averaged over the pixels of a Gaussian first. ``total`` is depth + colour + 0.2 opacity.

    Args:
        cloud: a Gaussian per pixel of every view, view by view, row by row.
        rig: the cameras of the views.
        truth: the views; their side is a multiple of that of the Gaussians.

    Raises:
        ValueError: the Gaussians are no square grid per view that fits the pictures.
    """
    views, size = len(rig), int(truth.alpha.shape[1])
    side = round((cloud.num_gaussians / views) ** 0.5)
    if side**2 * views != cloud.num_gaussians or size % side or len(truth.alpha) != views:
        raise ValueError(
            f"{cloud.num_gaussians} Gaussians do not stand for the pixels of {views} views of "
            f"{size} pixels; give the decoder's Gaussians of these {len(truth.alpha)} views."
        )
    color, coverage, depth, surface = _average(truth, size // side, cloud.means)
    found = (0.5 + HARMONIC_DC * cloud.harmonics[:, 0]).reshape(views, side, side, 3)
    opacity = cloud.opacities.reshape(views, side, side)
    depth_error = (_depths(cloud, rig, side) - depth).abs() * surface
    color_error = (found - color).abs().mean(dim=-1) * coverage
    parts = {
        "pixel_depth": depth_error.mean(),
        "pixel_color": color_error.mean(),
        "pixel_opacity": functional.binary_cross_entropy(opacity.clamp(1e-6, 1 - 1e-6), coverage),
    }
    total = parts["pixel_depth"] + parts["pixel_color"] + OPACITY_WEIGHT * parts["pixel_opacity"]
    return {"total": total, **parts}


def _average(truth: OrbitViews, factor: int, like: Tensor) -> tuple[Tensor, ...]:
    """The object's own colour, coverage, depth and share with a depth, in blocks of pixels."""

    def pooled(values: Tensor) -> Tensor:
        maps = functional.avg_pool2d(values.permute(0, 3, 1, 2), factor)
        return maps.permute(0, 2, 3, 1)

    alpha = truth.alpha.to(like)[..., None]
    seen = (truth.depth.to(like) > 0).to(like)[..., None]
    coverage, surface = pooled(alpha), pooled(seen)
    own = pooled(truth.rgb.to(like) - (1 - alpha)) / coverage.clamp(min=LEAST_COVERAGE)
    depth = pooled(truth.depth.to(like)[..., None] * seen) / surface.clamp(min=LEAST_COVERAGE)
    return own.clamp(0, 1), coverage[..., 0], depth[..., 0], surface[..., 0]


def _depths(cloud: GaussianCloud, rig: ViewRig, side: int) -> Float[Tensor, "view side side"]:
    """Depth of each Gaussian along the viewing direction of the view that it comes from."""
    poses = torch.stack([camera.camera_to_world for camera in rig]).to(cloud.means)
    offsets = cloud.means.reshape(len(rig), -1, 3) - poses[:, None, :3, 3]
    return -(offsets * poses[:, None, :3, 2]).sum(dim=-1).reshape(len(rig), side, side)
