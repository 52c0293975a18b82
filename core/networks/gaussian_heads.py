"""Contains what the 12 numbers per pixel of the Gaussian decoder mean, and their unprojection.

Channels: 0 depth, 1-3 colour, 4 opacity, 5-7 scales, 8-11 rotation. A Gaussian lies on the ray of
its pixel; with all numbers zero it lies in the plane through the origin that faces the camera,
grey, with opacity sigmoid(-2).

Reference: Xu et al. 2024, "GRM", Sec. 3.3 and its released code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..gaussian_cloud import GaussianCloud, color_to_harmonic
from ..geometry.pluecker import rig_rays

NUM_CHANNELS = 12
OPACITY_OFFSET = -2.0
SOFTPLUS_FACTOR = 0.1
ScaleKind = Literal["sigmoid", "exp", "softplus"]
DepthKind = Literal["z", "distance"]


@dataclass(frozen=True)
class HeadParams:
    """How numbers become Gaussians.

    Attributes:
        scale_kind: "sigmoid": low + (high - low) sigmoid(x); "exp": exp(x) times the geometric mean
            of the range, clipped to it; "softplus": 0.1 softplus(x), clipped to it.
        scale_range: smallest and largest standard deviation in world units.
        depth_kind: "z" along the viewing direction (GRM's code), or "distance" along the ray (its
            paper).
    """

    scale_kind: ScaleKind = "sigmoid"
    scale_range: tuple[float, float] = (0.0005, 0.02)
    depth_kind: DepthKind = "z"

    def __post_init__(self) -> None:
        low, high = self.scale_range
        if not 0 < low < high:
            raise ValueError(f"scale_range must rise and be positive, got {self.scale_range}.")
        if self.scale_kind not in ("sigmoid", "exp", "softplus"):
            raise ValueError(f"Unknown scale_kind {self.scale_kind!r}.")
        if self.depth_kind not in ("z", "distance"):
            raise ValueError(f"Unknown depth_kind {self.depth_kind!r}.")


def gaussians_of_pixels(
    raw: Float[Tensor, "view 12 height width"], rig: ViewRig, params: HeadParams = HeadParams()
) -> GaussianCloud:
    """One Gaussian per pixel, in the world frame of the rig; view by view, row by row.

    Args:
        raw: numbers of the decoder for one object.
        rig: one camera per view.
        params: meaning of the numbers.

    Raises:
        ValueError: another number of views than of cameras.
    """
    if len(rig) != len(raw):
        raise ValueError(f"Got {len(raw)} views for {len(rig)} cameras; give one camera per view.")
    height, width = raw.shape[-2:]
    pixels = raw.float().permute(0, 2, 3, 1)
    depth, color, opacity, scale, rotation = pixels.split([1, 3, 1, 3, 4], dim=-1)
    identity = rotation.new_tensor([1.0, 0.0, 0.0, 0.0])
    return GaussianCloud.from_unnormalized(
        means=unproject(depth[..., 0], rig.to(raw.device), params.depth_kind).reshape(-1, 3),
        scales=_scales(scale, params).reshape(-1, 3),
        # GRM normalises the numbers themselves, which has no direction where they are all zero.
        quats=(rotation + identity).reshape(-1, 4),
        opacities=torch.sigmoid(opacity + OPACITY_OFFSET).reshape(height * width * len(raw)),
        harmonics=color_to_harmonic(torch.sigmoid(color).reshape(-1, 3)),
    )


def unproject(
    change: Float[Tensor, "view height width"], rig: ViewRig, kind: DepthKind = "z"
) -> Float[Tensor, "view height width 3"]:
    """World points on the rays of all pixels, at the camera's distance from the origin + change."""
    height, width = change.shape[1:]
    origins, directions = rig_rays(rig, width=int(width), height=int(height))
    poses = torch.stack([camera.camera_to_world for camera in rig]).to(change)
    origins, directions = origins.to(change), directions.to(change)
    depth = change + poses[:, :3, 3].norm(dim=1)[:, None, None]
    if kind == "z":
        forward = -poses[:, None, None, :3, 2]
        depth = depth / (directions * forward).sum(dim=-1)
    return origins + depth[..., None] * directions


def _scales(x: Tensor, params: HeadParams) -> Tensor:
    low, high = params.scale_range
    if params.scale_kind == "sigmoid":
        return low + (high - low) * torch.sigmoid(x)
    if params.scale_kind == "exp":
        middle = math.log(low * high) / 2
        return (x + middle).clamp(math.log(low), math.log(high)).exp()
    return (SOFTPLUS_FACTOR * torch.nn.functional.softplus(x)).clamp(low, high)


def prune_cloud(
    cloud: GaussianCloud, *, min_opacity: float = 0.05, bound: float = 1.0
) -> GaussianCloud:
    """The Gaussians worth keeping: not too faint, inside the cube [-bound, bound]^3.

    Raises:
        ValueError: none is left.
    """
    kept = (cloud.opacities > min_opacity) & (cloud.means.abs().amax(dim=1) < bound)
    if not bool(kept.any()):
        raise ValueError(
            f"None of the {cloud.num_gaussians} Gaussians has an opacity above {min_opacity:g} "
            f"within {bound:g} of the centre; lower the opacity limit or raise the bound."
        )
    return cloud.select(kept)
