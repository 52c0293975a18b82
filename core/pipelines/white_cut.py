"""Contains the cutting of pictures out of their white background, with crisp outlines.

Small autoencoders blur the outline of an object over several pixels. Gaussians that are fitted to
such pictures imitate the blur with a pale haze round the object. Here the share of white in each
pixel is estimated from the colour of the object beside it; colours are freed of it, and the share
becomes a steep coverage.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

LEAST_COLOR = 0.2
"""What is nearer to white than this counts as mixed with it, whatever lies beside it."""
LEAST_SHARE = 0.1
"""Colours are not unmixed from less than this of the object: they would be noise."""


@dataclass(frozen=True)
class CutViews:
    """Pictures without their background.

    Attributes:
        rgb: on white again, with steep outlines.
        masks: coverage 0..1.
    """

    rgb: Float[Tensor, "view height width 3"]
    masks: Float[Tensor, "view height width"]


def cut_from_white(
    views: Float[Tensor, "view height width 3"], *, reach_px: int = 2, steepness: float = 2.5
) -> CutViews:
    """Find the object on white and make its outline steep.

    What is white within the object counts as background.

    Args:
        views: sRGB pictures on white, 0..1.
        reach_px: half the width of the blur; the colour of the object is looked for so far away.
            2 suits pictures of 64 px from an autoencoder that shrinks by 8.
        steepness: slope of the new coverage at the middle of the outline; 1 keeps the old one.

    Raises:
        ValueError: reach_px is negative or steepness not positive.
    """
    if reach_px < 0 or not steepness > 0:
        raise ValueError(
            f"reach_px must not be negative and steepness positive, got {reach_px} and {steepness}."
        )
    missing = (1 - views).permute(0, 3, 1, 2)
    distance = missing.amax(dim=1, keepdim=True)
    side = 2 * reach_px + 1
    full = functional.max_pool2d(distance, side, 1, reach_px).clamp(min=LEAST_COLOR)
    share = (distance / full).clamp(0, 1)
    masks = ((share - 0.5) * steepness + 0.5).clamp(0, 1)
    own = (missing / share.clamp(min=LEAST_SHARE)).clamp(0, 1)
    rgb = 1 - own * masks
    return CutViews(rgb.permute(0, 2, 3, 1), masks[:, 0])
