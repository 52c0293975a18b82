"""Contains the masks of bundle edits: which part may change, in pixels and in latents.

A mask is 1 where the bundle may change and 0 where it must stay. It covers the whole picture
[2 tiles, columns * tile]; masks of single views hold for both rows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .._checks import require_finite, require_shape
from ..bundle_image import BundleImage, join_bundle, split_bundle

EDITED = 0.5


def join_view_masks(
    masks: Float[Tensor, "view height width"],
) -> Float[Tensor, "rows columns"]:
    """Mask of the whole bundle from one mask per view, the same for both rows."""
    require_shape("masks", masks, None, None, None)
    row = masks.permute(1, 0, 2).reshape(masks.shape[1], -1)
    return torch.cat([row, row])


def fit_bundle_mask(
    masks: Float[Tensor, "mask height width"], num_views: int, tile_px: int
) -> Float[Tensor, "rows columns"]:
    """Mask of a whole bundle in its size, from whatever form it comes in.

    Args:
        masks: one mask of the whole picture, one per view, or one per tile (RGB tiles first).
        num_views: columns of the bundle.
        tile_px: side of its tiles.

    Raises:
        ValueError: a number or shape that fits neither, values outside 0..1, or nothing selected.
    """
    require_shape("mask", masks, None, None, None)
    require_finite("mask", masks)
    count, height, width = masks.shape
    if count == 1 and width * 2 == height * num_views:
        tiles = _cut_mask(masks[0], num_views)
    elif count in (num_views, 2 * num_views) and height == width:
        tiles = masks if count == 2 * num_views else torch.cat([masks, masks])
    else:
        raise ValueError(
            f"The mask must be one picture of the whole bundle (2 : {num_views}), or {num_views} "
            f"or {2 * num_views} square tiles; got {count} of {width} x {height} pixels."
        )
    tiles = functional.interpolate(
        tiles[:, None].float(), (tile_px, tile_px), mode="bilinear", antialias=True
    )[:, 0].clamp(0, 1)
    if not bool((tiles > EDITED).any()):
        raise ValueError(
            "The mask selects nothing: no pixel of it is above one half. Paint or choose the part "
            "to change, or leave the mask away to change everything."
        )
    return _join_tiles(tiles, num_views)


def feather_mask(
    mask: Float[Tensor, "rows columns"], num_views: int, feather_px: float
) -> Float[Tensor, "rows columns"]:
    """Weights of an edit: 1 inside the mask, falling to exactly 0 within ``feather_px`` outside.

    Tiles are feathered one by one, because neighbours in the picture are none on the object.

    Raises:
        ValueError: a negative width.
    """
    from scipy import ndimage

    if feather_px < 0:
        raise ValueError(f"feather_px must not be negative, got {feather_px}.")
    weights = []
    for tile in _cut_mask(mask, num_views):
        inside = (tile > EDITED).cpu().numpy()
        ramp = torch.zeros_like(tile)
        if inside.any():
            distance = torch.from_numpy(ndimage.distance_transform_edt(~inside)).to(tile)
            ramp = (1 - distance / (feather_px + 1)).clamp(0, 1)
        smooth = ramp * ramp * (3 - 2 * ramp)
        weights.append(torch.maximum(smooth, tile))
    return _join_tiles(torch.stack(weights), num_views)


def latent_mask(
    weights: Float[Tensor, "rows columns"], downscale: int
) -> Float[Tensor, "1 1 latent_rows latent_columns"]:
    """1 for each latent pixel that covers any pixel with a weight, 0 for the others."""
    return functional.max_pool2d((weights > 0).to(weights)[None, None], downscale)


def composite_bundle(
    original: BundleImage, edited: BundleImage, weights: Float[Tensor, "rows columns"]
) -> BundleImage:
    """The edited bundle where weights are 1, the original, bit by bit, where they are 0.

    Raises:
        ValueError: sizes that differ.
    """
    below, above = join_bundle(original), join_bundle(edited)
    require_shape("edited bundle", above, *below.shape)
    require_shape("weights", weights, *below.shape[:2])
    share = weights.to(below)[..., None]
    mixed = torch.where(share >= 1, above, below + share * (above - below))
    return split_bundle(torch.where(share <= 0, below, mixed), original.num_views)


def _cut_mask(mask: Tensor, num_views: int) -> Float[Tensor, "tile height width"]:
    tile = mask.shape[0] // 2
    return mask.reshape(2, tile, num_views, -1).permute(0, 2, 1, 3).reshape(2 * num_views, tile, -1)


def _join_tiles(tiles: Tensor, num_views: int) -> Float[Tensor, "rows columns"]:
    _, height, width = tiles.shape
    rows = tiles.reshape(2, num_views, height, width).permute(0, 2, 1, 3)
    return rows.reshape(2 * height, num_views * width)
