"""Contains Canny's edge detector.

Reference: Canny 1986, "A computational approach to edge detection": smoothed gradient, thinning
along the gradient, two thresholds joined by connection.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from .._checks import require_shape
from ..rendering.visibility import gaussian_blur

TANGENT_22_5 = 0.41421356
# Neighbours along the gradient, as (row, column), for the four sectors of its direction.
SECTORS = ((0, 1), (1, 1), (1, 0), (1, -1))


def find_edges(
    image: Float[Tensor, "height width 3"],
    *,
    low: float = 0.15,
    high: float = 0.3,
    blur_px: float = 1.4,
) -> Bool[Tensor, "height width"]:
    """Edges one pixel wide.

    The gradient of a pixel is that of the channel where it is steepest. It is measured by Sobel's
    operator without normalisation: a hard step of height h gives 4 h, and 2.1 h after the blur.

    Args:
        image: picture 0..1.
        low: gradients above it are edges if they are connected to one above ``high``.
        high: gradients above it are edges.
        blur_px: standard deviation of the blur that goes before.

    Raises:
        ValueError: thresholds in the wrong order.
    """
    require_shape("image", image, None, None, 3)
    if not 0 <= low <= high:
        raise ValueError(f"Need 0 <= low <= high thresholds, got {low} and {high}.")
    smooth = gaussian_blur(image.permute(2, 0, 1).float(), sigma_px=blur_px)
    across, down = _sobel(smooth)
    strength = (across.square() + down.square()).sqrt()
    strength, channel = strength.max(dim=0)
    across, down = (part.gather(0, channel[None])[0] for part in (across, down))
    return _connected(_thinned(strength, across, down), low, high)


def _sobel(images: Float[Tensor, "channel height width"]) -> tuple[Tensor, Tensor]:
    """Derivatives to the right and downwards."""
    kernel = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([kernel, kernel.T])[:, None]
    padded = functional.pad(images[:, None], (1, 1, 1, 1), mode="replicate")
    slopes = functional.conv2d(padded, kernels)
    return slopes[:, 0], slopes[:, 1]


def _thinned(
    strength: Float[Tensor, "height width"], across: Tensor, down: Tensor
) -> Float[Tensor, "height width"]:
    """Strength where it is a maximum along the gradient, else 0; of equal neighbours one stays."""
    steep, flat = down.abs() > across.abs() / TANGENT_22_5, down.abs() < across.abs() * TANGENT_22_5
    diagonal = torch.where(across * down > 0, 1, 3)
    sector = torch.where(flat, 0, torch.where(steep, 2, diagonal))
    padded = functional.pad(strength, (1, 1, 1, 1))
    height, width = strength.shape
    maximal = torch.zeros_like(strength, dtype=torch.bool)
    for index, (row, column) in enumerate(SECTORS):
        ahead = padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        behind = padded[1 - row : 1 - row + height, 1 - column : 1 - column + width]
        maximal |= (sector == index) & (strength > behind) & (strength >= ahead)
    return torch.where(maximal, strength, torch.zeros_like(strength))


def _connected(
    strength: Float[Tensor, "height width"], low: float, high: float
) -> Bool[Tensor, "height width"]:
    """Pixels above ``low`` that hang together with one above ``high``."""
    import numpy as np
    from scipy import ndimage

    weak = (strength > low).cpu().numpy()
    labels, count = ndimage.label(weak, structure=np.ones((3, 3)))
    strong = np.zeros(count + 1, dtype=bool)
    strong[labels[(strength > high).cpu().numpy()]] = True
    strong[0] = False
    return torch.from_numpy(strong[labels]).to(strength.device)
