"""Contains the mask of where the front view shows hair: what differs between two of its levels.

Reference: released program of StdGEN (level difference, segments of SAM).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._checks import require_finite, require_shape

LOGGER = logging.getLogger(__name__)

REFERENCE_AREA = 1024 * 1024
SQUARE = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class HairMaskParams:
    """Thresholds; areas are shares of the picture.

    Attributes:
        difference: summed over RGB, above which a pixel has changed between the levels.
        min_area: of a connected piece.
        max_area: of a connected piece.
        min_overlap: share of a segment that must have changed.
        unchanged: difference below which a pixel of a segment counts as not changed.
        outside_ratio: largest share of such pixels in a segment.
        min_cover: share of the changed pixels that the segments must cover to be used.
    """

    difference: float = 0.25
    min_area: float = 1000 / REFERENCE_AREA
    max_area: float = 100_000 / REFERENCE_AREA
    min_overlap: float = 0.5
    unchanged: float = 0.10
    outside_ratio: float = 0.20
    min_cover: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.min_area < self.max_area:
            raise ValueError(
                f"min_area must lie below max_area, got {self.min_area} and {self.max_area}."
            )


def make_hair_mask(
    whole: Float[Tensor, "height width 3"],
    without_hair: Float[Tensor, "height width 3"],
    *,
    segments: Float[Tensor, "segment height width"] | None = None,
    params: HairMaskParams | None = None,
) -> Bool[Tensor, "height width"]:
    """Where the front view shows hair.

    Args:
        whole: front view of the whole character, sRGB.
        without_hair: the same view without hair.
        segments: masks of pieces of the first picture, as of a segmentation model; those that
            mostly changed are joined. Without them, or where they miss too much, the changed
            pixels themselves are closed.
        params: thresholds.

    Returns:
        The mask; all False, with a warning, where the levels do not differ.
    """
    params = params or HairMaskParams()
    require_shape("whole", whole, None, None, 3)
    require_shape("without_hair", without_hair, *whole.shape)
    for name, value in (("whole", whole), ("without_hair", without_hair)):
        require_finite(name, value)
    off = (whole - without_hair).abs().sum(dim=-1).cpu().numpy()
    changed = _pieces_of_size(off > params.difference, params)
    if not changed.any():
        LOGGER.warning(
            "The front views with and without hair do not differ: there is no hair mask."
        )
        return torch.zeros(off.shape, dtype=torch.bool)
    kept = np.zeros_like(changed)
    if segments is not None:
        require_shape("segments", segments, None, *off.shape)
        kept = _changed_segments(segments.cpu().numpy() > 0.5, off, changed, params)
    if (kept & changed).sum() < params.min_cover * changed.sum():
        kept = _closed(changed)
    return torch.from_numpy(kept)


def _pieces_of_size(mask: np.ndarray, params: HairMaskParams) -> np.ndarray:
    """Connected pieces that are neither specks nor most of the picture."""
    from scipy.ndimage import label

    pieces, count = label(mask, structure=SQUARE)
    areas = np.bincount(pieces.reshape(-1), minlength=count + 1) / mask.size
    fits = (areas > params.min_area) & (areas < params.max_area)
    fits[0] = False
    return fits[pieces]


def _changed_segments(
    segments: np.ndarray, off: np.ndarray, changed: np.ndarray, params: HairMaskParams
) -> np.ndarray:
    kept = np.zeros_like(changed)
    still = off < params.unchanged
    for segment in segments:
        area = segment.sum()
        if not area:
            continue
        overlap = (segment & changed).sum() / area
        outside = (segment & still).sum() / area
        if overlap > params.min_overlap and outside < params.outside_ratio:
            kept |= segment
    return kept


def _closed(mask: np.ndarray) -> np.ndarray:
    """Small gaps filled: three steps outwards and three back."""
    from scipy.ndimage import binary_dilation, binary_erosion

    padded = np.pad(mask, 3)
    grown = binary_dilation(padded, structure=SQUARE, iterations=3)
    return binary_erosion(grown, structure=SQUARE, iterations=3)[3:-3, 3:-3]
