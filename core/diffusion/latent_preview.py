"""Contains the quick preview of latents: a linear map from latent channels to colour.

The map is not a table of constants: it is fitted once per image encoder, to a small picture of
colour patches that the encoder itself has encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

CHART_PX = 256
PATCH_PX = 32
WHITE_SHARE = 0.4
"""Share of the chart's patches that are white, the background of the pictures made here."""

RIDGE = 1e-3
"""Weight of the shrinkage, relative to the mean variance of the latents."""


@dataclass(frozen=True)
class LatentPreview:
    """Colour as a linear function of latents: colour = latents @ weights + offset."""

    weights: Float[Tensor, "channel rgb=3"]
    offset: Float[Tensor, " rgb=3"]

    def render(
        self, latents: Float[Tensor, "channel height width"], downscale: int
    ) -> Float[Tensor, "height_px width_px 3"]:
        """Rough picture in 0..1, as large as the decoded one would be."""
        colors = torch.einsum("chw,cr->rhw", latents.float().cpu(), self.weights)
        colors = (colors + self.offset[:, None, None]).clamp(0, 1)
        large = functional.interpolate(colors[None], scale_factor=downscale, mode="bilinear")
        return large[0].movedim(0, -1)


def fit_preview(encode: Callable[[Tensor], Tensor], downscale: int) -> LatentPreview:
    """Fit the map by least squares to an encoded chart of colour patches.

    Args:
        encode: images 0..1 [batch, height, width, 3] to latents [batch, channel, height, width].
        downscale: image pixels per latent pixel.
    """
    chart = _color_chart()
    latents = encode(chart).float().cpu()[0]
    colors = functional.avg_pool2d(chart.movedim(-1, 1), downscale)[0].flatten(1).T
    values = latents.flatten(1).T  # [latent pixel, channel]
    mean, mean_color = values.mean(dim=0), colors.mean(dim=0)
    centred = values - mean
    gram = centred.T @ centred
    shrink = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
    weights = torch.linalg.solve(
        gram + shrink * torch.eye(len(gram)), centred.T @ (colors - mean_color)
    )
    return LatentPreview(weights, mean_color - mean @ weights)


def _color_chart() -> Float[Tensor, "1 height width 3"]:
    """Patches of random colours with soft and hard edges, the same every time."""
    generator = torch.Generator().manual_seed(0)
    count = CHART_PX // PATCH_PX
    patches = torch.rand(1, 3, count, count, generator=generator)
    white = torch.rand(1, 1, count, count, generator=generator) < WHITE_SHARE
    patches = torch.where(white, 1.0, patches)
    hard = functional.interpolate(patches, scale_factor=PATCH_PX, mode="nearest")
    soft = functional.interpolate(patches, scale_factor=PATCH_PX, mode="bicubic")
    left = torch.arange(CHART_PX) < CHART_PX // 2
    return torch.where(left, hard, soft).clamp(0, 1).movedim(1, -1)
