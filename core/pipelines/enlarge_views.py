"""Contains the enlargement of small views before reconstruction.

A bundle of 64 pixels per tile holds more than its pixels show at first sight: soft silhouettes and
smooth normals say where the surface lies between pixel centres. Refinement compares pictures pixel
by pixel, so it finds that only on a finer grid.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ..geometry.transforms import normalize
from .bundle_views import ShapeViews

OUTLINE = 0.5
OPAQUE = 0.99
PURITY = 8
"""Power of the coverage by which a pixel's colour counts for its neighbours'."""
LEAST_WEIGHT = 1e-9


def enlarge_views(
    shape: ShapeViews, rgb_views: Float[Tensor, "view height width 3"], longest_px: int
) -> tuple[ShapeViews, Float[Tensor, "view large_height large_width 3"]]:
    """Views interpolated until their longest side is ``longest_px``; larger ones stay as they are.

    Silhouettes keep their place at half coverage and are one pixel soft again; normals and colours
    come from the covered pixels, so that no background mixes in.
    """
    height, width = (int(side) for side in shape.masks.shape[1:])
    scale = longest_px / max(height, width)
    if scale <= 1:
        return shape, rgb_views
    size = (round(height * scale), round(width * scale))
    masks = enlarge_masks(shape.masks, size)
    covered = shape.normals_world * shape.masks[..., None]
    normals = normalize(resize_smoothly(covered, size, "bicubic"))
    rgb = resize_smoothly(without_background(rgb_views, shape.masks), size, "bilinear")
    return ShapeViews(normals * (masks > 0)[..., None], masks, shape.rig), rgb


def enlarge_masks(
    masks: Float[Tensor, "view height width"], size: tuple[int, int]
) -> Float[Tensor, "view large_height large_width"]:
    """Masks of another size whose outlines keep their place and are a pixel soft again."""
    scale = size[0] / masks.shape[1]
    coverage = resize_smoothly(masks[..., None], size, "bicubic")[..., 0]
    return ((coverage - OUTLINE) * scale + OUTLINE).clamp(0, 1)


def without_background(
    rgb_views: Float[Tensor, "view height width 3"], masks: Float[Tensor, "view height width"]
) -> Float[Tensor, "view height width 3"]:
    """Colours in which pixels at silhouettes take those of the fullest pixels beside them."""
    share = masks[..., None]
    weight = share**PURITY + LEAST_WEIGHT
    summed = _averaged(rgb_views * weight) / _averaged(weight)
    return torch.where(share >= OPAQUE, rgb_views, summed)


def _averaged(views: Tensor) -> Tensor:
    """Means over 3 x 3 pixels."""
    return functional.avg_pool2d(views.movedim(-1, 1), 3, stride=1, padding=1).movedim(1, -1)


def resize_smoothly(
    views: Float[Tensor, "view height width channel"],
    size: tuple[int, int],
    mode: Literal["bilinear", "bicubic"],
) -> Float[Tensor, "view large_height large_width channel"]:
    """Interpolated views."""
    large = functional.interpolate(views.movedim(-1, 1), size, mode=mode, align_corners=False)
    return large.movedim(1, -1)


def pixel_size(shape: ShapeViews) -> float:
    """Size of a pixel at the world's origin, in world units; the largest of all views."""
    height = int(shape.masks.shape[1])
    sizes = []
    for camera in shape.rig:
        focal = camera.focal_px(height)
        distance = float(torch.linalg.vector_norm(camera.position))
        sizes.append(distance / focal if camera.is_perspective else 1.0 / focal)
    return max(sizes)
