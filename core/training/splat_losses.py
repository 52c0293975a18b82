"""Contains the losses between renders of Gaussians and pictures of the true object.

Symbols: I pictures, D depth maps, P objects, Q views.

Reference: Tao et al. 2025, "GSV3D", Eq. 3-5: L_3D = L_rgb + 0.2 L_depth, both squared errors. As
printed they are sums over pixels; here they are means, so that the weights do not depend on the
resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..gaussian_cloud import GaussianCloud
from ..rendering.splats import render_splats
from .orbit_sheets import OrbitViews

Losses = Mapping[str, Tensor]
FAINTEST_DRAWN = 1 / 255
"""The compositing rule of all backends: less than this of a colour is left out."""


@dataclass(frozen=True)
class SplatLossParams:
    """Weights of the parts.

    Attributes:
        depth_weight: of the depth error.
        mask_weight: of the squared error of coverage; not in the paper.
        random_background: a new colour behind the object in each step, so that white parts of the
            object are told from the background; the paper has white.
    """

    depth_weight: float = 0.2
    mask_weight: float = 0.0
    random_background: bool = False

    def __post_init__(self) -> None:
        if min(self.depth_weight, self.mask_weight) < 0:
            raise ValueError(
                f"Weights must not be negative, got {self.depth_weight} and {self.mask_weight}."
            )


def splat_losses(
    cloud: GaussianCloud,
    rig: ViewRig,
    truth: OrbitViews,
    params: SplatLossParams,
    generator: torch.Generator,
) -> Losses:
    """Errors of one object's Gaussians in some views; ``total`` is L_3D.

    Depth maps are compared as coverage * (depth - distance of the camera from the centre): the
    background counts as the plane through the centre, edges are soft in both, and the size of the
    error does not depend on the radius of the orbit.

    Args:
        cloud: with gradients.
        rig: one camera per view.
        truth: the views.
        params: weights.
        generator: of the backgrounds.
    """
    # Fainter Gaussians are never drawn and get no gradient either.
    cloud = cloud.select(cloud.opacities.detach() > FAINTEST_DRAWN)
    height, width = (int(side) for side in truth.alpha.shape[1:])
    behind = _backgrounds(len(rig), params, generator).to(cloud.means)
    render = render_splats(
        cloud, rig, width=width, height=height, background=behind, with_normals=False
    )
    alpha = truth.alpha.to(cloud.means)
    wanted = truth.rgb.to(alpha) - (1 - alpha[..., None]) * (1 - behind[:, None, None])
    rgb = (render.rgb - wanted).square().mean()
    true_depth = truth.depth.to(alpha)
    seen = alpha * (true_depth > 0)
    depth = _relative_depth(render.depth, render.alpha, rig)
    depth = depth - _relative_depth(true_depth, seen, rig)
    depth = depth.square().mean()
    mask = (render.alpha - alpha).square().mean()
    total = rgb + params.depth_weight * depth + params.mask_weight * mask
    return {"total": total, "rgb": rgb, "depth": depth, "mask": mask}


def mean_losses(parts: list[Losses]) -> dict[str, Tensor]:
    """Means over the objects of a batch."""
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


def _relative_depth(depth: Tensor, alpha: Tensor, rig: ViewRig) -> Float[Tensor, "view h w"]:
    distance = torch.stack([camera.position.norm() for camera in rig]).to(depth)
    return alpha * (depth - distance[:, None, None])


def _backgrounds(
    count: int, params: SplatLossParams, generator: torch.Generator
) -> Float[Tensor, "view 3"]:
    if params.random_background:
        return torch.rand(count, 3, generator=generator)
    return torch.ones(count, 3)
