"""Contains repairs of bundle pictures: clean normals on pure white, and another tile size.

A pixel at a silhouette mixes the object's colour e with white: c = a e + (1 - a), with coverage a.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ..bundle_image import BundleImage
from ..geometry.transforms import normalize
from .bundle_views import unmix_normal_views
from .enlarge_views import enlarge_masks, resize_smoothly, without_background

MIN_LENGTH = 0.2
"""Decoded normals shorter than this have no direction worth keeping."""


def clean_bundle(bundle: BundleImage) -> BundleImage:
    """Copy with unit normals and a pure white background, as a renderer would have made it.

    Generated normal maps are a little too long or short, and their white is not quite white. The
    mask comes from the normal row; silhouettes stay soft.
    """
    views = bundle.normal_views
    coverage, colors = unmix_normal_views(views)
    share, vectors = coverage[..., None], 2 * colors - 1
    pointless = vectors.norm(dim=-1, keepdim=True) < MIN_LENGTH
    unit = torch.where(pointless, colors, (normalize(vectors) + 1) / 2)
    white = torch.ones_like(views)
    normals = share * unit + (1 - share)
    # A view without any object stays as it is: there is nothing to tell it from its background.
    empty = (coverage.amax(dim=(1, 2)) <= 0)[:, None, None, None]
    rgb = torch.where((share > 0) | empty, bundle.rgb_views, white)
    return BundleImage(rgb, torch.where(empty, views, normals))


def resize_bundle(bundle: BundleImage, tile_px: int) -> BundleImage:
    """Copy whose tiles are ``tile_px`` wide and high; tiles do not run into each other.

    Enlarged silhouettes stay where they are and as sharp as a renderer would draw them.
    """
    if tile_px < 1:
        raise ValueError(f"tile_px must be at least 1, got {tile_px}.")
    if tile_px > bundle.rgb_views.shape[1]:
        return _enlarged(bundle, tile_px)
    return BundleImage(
        resize_views(bundle.rgb_views, tile_px), resize_views(bundle.normal_views, tile_px)
    )


def _enlarged(bundle: BundleImage, tile_px: int) -> BundleImage:
    """Enlarge what the pixels show, without the white between them, and lay it on white again."""
    size = (tile_px, tile_px)
    coverage, colors = unmix_normal_views(bundle.normal_views)
    share = enlarge_masks(coverage, size)[..., None]
    normals = resize_smoothly(colors, size, "bicubic").clamp(0, 1)
    rgb = resize_smoothly(without_background(bundle.rgb_views, coverage), size, "bilinear")
    # Without any object there is nothing to lay on white: such a view is just enlarged.
    empty = (coverage.amax(dim=(1, 2)) <= 0)[:, None, None, None]
    plain = [resize_views(views, tile_px) for views in (bundle.rgb_views, bundle.normal_views)]
    return BundleImage(
        torch.where(empty, plain[0], share * rgb + (1 - share)),
        torch.where(empty, plain[1], share * normals + (1 - share)),
    )


def resize_views(
    views: Float[Tensor, "view height width channel"], size_px: int
) -> Float[Tensor, "view size_px size_px channel"]:
    """Views resized to squares, 0..1: averaged when shrunk, cubic when enlarged."""
    if views.shape[1] == views.shape[2] == size_px:
        return views
    ink = (1 - views).movedim(-1, 1)  # 0 on white: rounding then leaves white alone
    resized = functional.interpolate(ink, (size_px, size_px), mode="bicubic", antialias=True)
    return (1 - resized).movedim(1, -1).clamp(0, 1)
