"""Contains what a bundle image tells about a shape: soft masks and world normals of its views.

A pixel at a silhouette mixes the object's colour e with white: c = a e + (1 - a). That e encodes a
unit normal, |2 e - 1| = 1, leaves two values of the coverage a, the roots of a^2 - 2 s a + 2 q = 0
with s the sum and q the squared length of 1 - c. Which of them holds is told by the colour of the
nearest pixel well inside, where there is one, and by what a camera can see. The normal without the
white follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._checks import require_shape
from ..bundle_image import BundleImage, masks_from_white
from ..camera import ViewRig
from ..geometry.normals import decode_bundle_normals

CORE_EROSION_PX = 2
SEARCH_PX = 4
MIN_COVERAGE = 0.1
INSIDE = 0.5
# Tolerances of coverage, for pictures of 8 bits and pixels that see a bit of a curve.
FULL_SLACK = 0.05
FACING_SLACK = 0.1
# Where a pixel well inside is near, coverage is at most so far from what its colour tells.
GUESS_SLACK = 0.25
# A rod's pixel averages many normals, which looks like less coverage: go so far towards full.
CURVED_SHARE = 0.25


@dataclass(frozen=True)
class ShapeViews:
    """The geometric content of a set of views.

    Attributes:
        normals_world: unit normals where the masks are not zero.
        masks: coverage 0..1.
        rig: one camera per view.
    """

    normals_world: Float[Tensor, "view height width 3"]
    masks: Float[Tensor, "view height width"]
    rig: ViewRig


def read_bundle_views(
    bundle: BundleImage, rig: ViewRig, masks: Float[Tensor, "view height width"] | None = None
) -> ShapeViews:
    """Decode the normal row of a bundle.

    Args:
        bundle: both rows on white.
        rig: one camera per column.
        masks: coverage from elsewhere (matting); None finds it by the distance from white.

    Raises:
        ValueError: the number of cameras or the size of the masks does not fit.
    """
    views = bundle.normal_views
    if len(rig) != bundle.num_views:
        raise ValueError(
            f"The bundle has {bundle.num_views} views, the rig {len(rig)} cameras; "
            "give one camera per column."
        )
    coverage, colors = unmix_normal_views(views, masks)
    normals = decode_bundle_normals(colors, rig)
    return ShapeViews(normals * (coverage > 0)[..., None], coverage, rig)


def unmix_normal_views(
    views: Float[Tensor, "view height width 3"],
    masks: Float[Tensor, "view height width"] | None = None,
) -> tuple[Float[Tensor, "view height width"], Float[Tensor, "view height width 3"]]:
    """Coverage of normal tiles on white, and the object's colours without the white.

    Args:
        views: normal colours on white.
        masks: coverage from elsewhere; None finds it by the distance from white.
    """
    if masks is not None:
        require_shape("masks", masks, *views.shape[:3])
        masks = masks.to(views)
    solid, is_near = _nearest_solid_color(views, masks_from_white(views) > INSIDE)
    coverage = _soft_masks(views, solid, is_near) if masks is None else masks.clamp(0, 1)
    share = coverage[..., None].clamp(min=MIN_COVERAGE)
    unmixed = ((views - (1 - share)) / share).clamp(0, 1)
    # A given mask may hold pixels that are white in the bundle: they take their neighbour's colour.
    far_off = (2 * unmixed - 1).norm(dim=-1, keepdim=True) > 1.5
    return coverage, torch.where(far_off, solid, unmixed)


def soft_masks_from_white(
    views: Float[Tensor, "view height width 3"],
) -> Float[Tensor, "view height width"]:
    """Coverage 0..1 of normal tiles on white, in the bundle's encoding; 1 well inside."""
    return _soft_masks(views, *_nearest_solid_color(views, masks_from_white(views) > INSIDE))


def _soft_masks(views: Tensor, solid: Tensor, is_near: Tensor) -> Tensor:
    hard = masks_from_white(views) > INSIDE
    full, missing = 1 - solid, 1 - views
    guess = (missing * full).sum(dim=-1) / full.square().sum(dim=-1).clamp(min=1e-6)
    share = _coverage_of_unit_normals(missing, guess.clamp(0, 1), is_near).clamp(0, 1)
    share = torch.where(_erode(hard, 1), torch.ones_like(share), share)
    return torch.where(hard, share, torch.zeros_like(share))


def _coverage_of_unit_normals(
    missing: Float[Tensor, "view height width 3"],
    guess: Float[Tensor, "view height width"],
    is_near: Bool[Tensor, "view height width"],
) -> Float[Tensor, "view height width"]:
    """The coverage with which a colour over white is that of a unit normal.

    Args:
        missing: 1 - c, what the colour lacks to white.
        guess: coverage if the colour without white were that of the pixel inside.
        is_near: whether there is such a pixel; thin parts have none, and the guess is poor.
    """
    total = missing.sum(dim=-1)
    root = (total.square() - 2 * missing.square().sum(dim=-1)).clamp(min=0).sqrt()
    larger, smaller = total + root, total - root
    # The smaller root is out where its normal would look away from the camera.
    wins = smaller < 2 * missing[..., 2] - FACING_SLACK
    wins |= (larger - guess).abs() < (smaller - guess).abs()
    wins |= ~is_near & ((larger - 1).abs() < FULL_SLACK) & (guess > INSIDE)
    wins &= larger <= 1 + FULL_SLACK
    certain = torch.where(wins, larger, smaller)
    certain = guess + (certain - guess).clamp(-GUESS_SLACK, GUESS_SLACK)
    thin = torch.where(wins, larger, torch.lerp(smaller, larger.clamp(max=1), CURVED_SHARE))
    return torch.where(is_near, certain, thin)


def _erode(
    mask: Bool[Tensor, "view height width"], pixels: int
) -> Bool[Tensor, "view height width"]:
    outside = torch.nn.functional.pad((~mask).float()[:, None], [pixels] * 4, value=1.0)
    return torch.nn.functional.max_pool2d(outside, 2 * pixels + 1, stride=1)[:, 0] < INSIDE


def _nearest_solid_color(
    views: Float[Tensor, "view height width 3"], hard: Bool[Tensor, "view height width"]
) -> tuple[Float[Tensor, "view height width 3"], Bool[Tensor, "view height width"]]:
    """Per pixel the colour of the nearest pixel inside the eroded mask, and whether one is near.

    In parts too thin to have an inside: of the pixel farthest from white nearby.
    """
    from scipy import ndimage

    core = _erode(hard, CORE_EROSION_PX)
    strength = (1 - views).square().sum(dim=-1)
    side = 2 * SEARCH_PX + 1
    _, strongest = torch.nn.functional.max_pool2d(
        strength[:, None], side, stride=1, padding=SEARCH_PX, return_indices=True
    )
    found, is_near = [], []
    for image, inside, fallback in zip(views, core, strongest[:, 0], strict=True):
        index, close = fallback, torch.zeros_like(inside)
        if bool(inside.any()):
            distance, (rows, columns) = ndimage.distance_transform_edt(
                ~inside.cpu().numpy(), return_indices=True
            )
            nearest = torch.from_numpy(rows * image.shape[1] + columns).to(fallback)
            close = torch.from_numpy(distance <= SEARCH_PX).to(inside.device)
            index = torch.where(close, nearest, fallback)
        found.append(image.reshape(-1, 3)[index.reshape(-1)].reshape(image.shape))
        is_near.append(close)
    return torch.stack(found), torch.stack(is_near)
