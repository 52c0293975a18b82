"""Contains the last polish of the autoencoder: its decoder alone, on latents that stay as they are.

Whatever was trained on the latents keeps its value. A little noise on the latents makes the decoder
forgive the small errors of a diffusion model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .loop import LoopParams, Losses
from .vae import CROP_PX, DOWNSCALE, object_weights


@dataclass(frozen=True)
class DecoderParams:
    """How the decoder is polished.

    Attributes:
        crops: crops of 128 px in a batch.
        object_weight: of pixels that are not white.
        square_weight: of squared errors beside absolute ones.
        mean_weight: of errors averaged over 4x4 pixels.
        noise: standard deviation on the latents, whose own is 1.
        loop: optimisation; no steps when None.
    """

    crops: int = 4
    object_weight: float = 3.0
    square_weight: float = 0.5
    mean_weight: float = 1.0
    noise: float = 0.08
    loop: LoopParams | None = field(
        default_factory=lambda: LoopParams(
            steps=4_000, learning_rate=5e-4, betas=(0.9, 0.99), bfloat16=True, final_share=0.0
        )
    )


class DecoderTraining(nn.Module):
    """The decoder of an autoencoder with the latents of all pictures.

    Args:
        vae: a diffusers ``AutoencoderKL``; only its decoder is trained.
        latents: of the pictures, may be half precision.
        pictures: bytes [height, width, 3].
        params: settings.
    """

    def __init__(
        self,
        vae: Any,
        latents: Float[Tensor, "picture channel height width"],
        pictures: Sequence[np.ndarray],
        params: DecoderParams,
    ) -> None:
        super().__init__()
        self.post_quant_conv = vae.post_quant_conv
        self.decoder = vae.decoder
        self.latents = latents
        self.pictures = pictures
        self.params = params

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """Weighted reconstruction error of one batch of crops."""
        params = self.params
        latents, target = self._batch(generator)
        noise = torch.randn(latents.shape, generator=generator)
        decoded = self.decoder(self.post_quant_conv(latents + params.noise * noise)).float()
        weight = object_weights(target, params.object_weight)
        difference = decoded - target
        pixel = (weight * (difference.abs() + params.square_weight * difference**2)).mean()
        local = functional.avg_pool2d(weight * difference, 4).abs().mean()
        return {"total": pixel + params.mean_weight * local, "pixel": pixel, "local": local}

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        latents, crops = [], []
        cells = CROP_PX // DOWNSCALE
        for _ in range(self.params.crops):
            index = int(torch.randint(len(self.latents), (), generator=generator))
            code = self.latents[index].float()
            places = code.shape[2] - cells + 1
            column = int(torch.randint(places, (), generator=generator))
            latents.append(code[:, :cells, column : column + cells])
            first = column * DOWNSCALE
            crop = torch.from_numpy(self.pictures[index][:CROP_PX, first : first + CROP_PX])
            crops.append(crop.permute(2, 0, 1).float() / 127.5 - 1)
        return torch.stack(latents), torch.stack(crops)
