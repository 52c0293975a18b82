"""Contains image metrics: PSNR, SSIM and the overlap of silhouettes.

Images are display-referred, 0..1, [view, height, width, channel]; masks are [view, height, width].
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03


def psnr(
    images: Float[Tensor, "view height width channel"],
    reference: Float[Tensor, "view height width channel"],
) -> float:
    """Peak signal-to-noise ratio in dB over all views; infinite for equal images.

    Reference: -10 log10 MSE on [0, 1], the protocol of GSV3D (Tao et al. 2025), Sec. 4.
    """
    _require_comparable(images, reference)
    mean_square = float(((images.double() - reference.double()) ** 2).mean())
    return math.inf if mean_square == 0 else -10.0 * math.log10(mean_square)


def ssim(
    images: Float[Tensor, "view height width channel"],
    reference: Float[Tensor, "view height width channel"],
) -> float:
    """Structural similarity, mean over views, channels and all windows that fit in the image.

    Reference: Wang et al. 2004; Gaussian window of 11 pixels, sigma 1.5, K1 0.01, K2 0.03.
    """
    _require_comparable(images, reference)
    if min(images.shape[1:3]) < SSIM_WINDOW_PX:
        raise ValueError(
            f"SSIM needs images of at least {SSIM_WINDOW_PX} x {SSIM_WINDOW_PX} pixels, got "
            f"{images.shape[2]} x {images.shape[1]}."
        )
    first, second = (x.permute(0, 3, 1, 2).flatten(0, 1)[:, None] for x in (images, reference))
    mean_1, mean_2 = _window_mean(first), _window_mean(second)
    variance_1 = _window_mean(first * first) - mean_1 * mean_1
    variance_2 = _window_mean(second * second) - mean_2 * mean_2
    covariance = _window_mean(first * second) - mean_1 * mean_2
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    structure = (2 * covariance + c2) / (variance_1 + variance_2 + c2)
    return float((luminance * structure).mean())


def silhouette_iou(
    masks: Float[Tensor, "view height width"], reference: Float[Tensor, "view height width"]
) -> Float[Tensor, " view"]:
    """Intersection over union of silhouettes, one number per view; 1 where both are empty.

    Soft masks are compared as fuzzy sets: sum of minima over sum of maxima.
    """
    _require_comparable(masks, reference)
    union = torch.maximum(masks, reference).sum(dim=(1, 2))
    intersection = torch.minimum(masks, reference).sum(dim=(1, 2))
    return torch.where(union > 0, intersection / union.clamp(min=1e-12), torch.ones_like(union))


def _window_mean(image: Tensor) -> Tensor:
    offsets = torch.arange(SSIM_WINDOW_PX, device=image.device, dtype=image.dtype)
    weights = torch.exp(-0.5 * ((offsets - SSIM_WINDOW_PX // 2) / SSIM_SIGMA_PX) ** 2)
    weights = weights / weights.sum()
    rows = torch.nn.functional.conv2d(image, weights.view(1, 1, -1, 1))
    return torch.nn.functional.conv2d(rows, weights.view(1, 1, 1, -1))


def _require_comparable(images: Tensor, reference: Tensor) -> None:
    if images.shape != reference.shape:
        raise ValueError(
            f"Images to compare must have one shape, got {list(images.shape)} and "
            f"{list(reference.shape)}; render or resize one of them."
        )
    if not images.numel():
        raise ValueError("There is nothing to compare: the images have no pixels.")
    require_finite("images", images)
    require_finite("reference", reference)
