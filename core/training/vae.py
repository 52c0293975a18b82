"""Contains the training of the small image autoencoder that all embedded models share.

A plain autoencoder of this size learns shapes long before hues. Three losses bring the hues in from
the first step: a linear read-out of colour from the latents, errors of local means, and a weight
on the object. For the first steps the latents are also drawn to the principal components of 8x8
patches, which hold colour already. Afterwards each latent channel is scaled to unit variance inside
the 1x1 convolutions between autoencoder and latents.
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

DOWNSCALE = 8
TILE_PX = 64
CROP_PX = 128


@dataclass(frozen=True)
class VaeParams:
    """Size and losses of the autoencoder.

    Attributes:
        channels: of a latent pixel.
        widths: channels of the four levels.
        crops: crops of 128 px in a batch.
        tile_share: share of the batches that hold single tiles of 64 px instead.
        object_weight: of pixels that are not white, against 1 for white ones.
        kl_weight: of the mean divergence from a normal distribution.
        square_weight: of squared errors beside absolute ones.
        mean_weight: of errors averaged over 4x4 pixels.
        color_weight: of the linear read-out of 8x8 mean colours.
        anchor_weight: of the distance to principal components, at the first step.
        anchor_steps: steps until that weight has fallen to 0.
        loop: optimisation.
    """

    channels: int = 16
    widths: tuple[int, ...] = (32, 64, 128, 128)
    crops: int = 4
    tile_share: float = 0.2
    object_weight: float = 3.0
    kl_weight: float = 1e-4
    square_weight: float = 0.5
    mean_weight: float = 2.0
    color_weight: float = 1.0
    anchor_weight: float = 1.0
    anchor_steps: int = 800
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(
            steps=10_000, learning_rate=1e-3, betas=(0.9, 0.99), bfloat16=True, final_share=0.0
        )
    )


def make_vae(params: VaeParams) -> Any:
    """A diffusers ``AutoencoderKL`` with fresh weights: [picture, 3, height, width] in -1..1."""
    from diffusers import AutoencoderKL

    levels = len(params.widths)
    return AutoencoderKL(
        block_out_channels=params.widths,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=params.channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=True,
        use_post_quant_conv=True,
        scaling_factor=1.0,
        shift_factor=0.0,
        sample_size=CROP_PX,
    )


class VaeTraining(nn.Module):
    """The autoencoder with the read-out that is thrown away after training."""

    def __init__(self, pictures: Sequence[np.ndarray], params: VaeParams) -> None:
        super().__init__()
        self.params = params
        self.pictures = pictures
        self.vae = make_vae(params)
        self.read_out = nn.Conv2d(params.channels, 3, 1)
        components, spread = patch_components(pictures, params.channels)
        self.components = components
        self.spread = spread

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """Loss of one batch; see the module's text for the terms."""
        params = self.params
        target = self._batch(generator)
        weight = object_weights(target, params.object_weight)
        posterior = self.vae.encode(target).latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=generator)
        latents = mean + (0.5 * log_variance).exp() * noise
        difference = self.vae.decode(latents).sample.float() - target
        pixel = (weight * (difference.abs() + params.square_weight * difference**2)).mean()
        local = functional.avg_pool2d(weight * difference, 4).abs().mean()
        color = self._color_loss(latents, target, weight)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        total = pixel + params.mean_weight * local
        total = total + params.color_weight * color + params.kl_weight * kl
        fade = max(0.0, 1 - step / max(params.anchor_steps, 1))
        if fade > 0:
            anchored = (mean - self._principal(target)).abs().mean()
            total = total + params.anchor_weight * fade * anchored
        return {"total": total, "pixel": pixel, "local": local, "color": color, "kl": kl}

    def _color_loss(self, latents: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        colors = functional.avg_pool2d(target, DOWNSCALE)
        shares = functional.avg_pool2d(weight, DOWNSCALE)
        return (shares * (self.read_out(latents).float() - colors).abs()).mean()

    def _principal(self, target: Tensor) -> Tensor:
        patches = functional.conv2d(target, self.components, stride=DOWNSCALE)
        return patches / self.spread[None, :, None, None]

    def _batch(self, generator: torch.Generator) -> Tensor:
        count = self.params.crops
        tiles = bool(torch.rand((), generator=generator) < self.params.tile_share)
        size, number = (TILE_PX, 4 * count) if tiles else (CROP_PX, count)
        crops = []
        for _ in range(number):
            index = int(torch.randint(len(self.pictures), (), generator=generator))
            crops.append(_random_crop(self.pictures[index], size, generator))
        return torch.stack(crops)


def _random_crop(picture: np.ndarray, size: int, generator: torch.Generator) -> Tensor:
    height, width = picture.shape[:2]
    row = TILE_PX * int(torch.randint((height - size) // TILE_PX + 1, (), generator=generator))
    places = (width - size) // DOWNSCALE + 1
    column = DOWNSCALE * int(torch.randint(places, (), generator=generator))
    crop = torch.from_numpy(picture[row : row + size, column : column + size])
    return crop.permute(2, 0, 1).float() / 127.5 - 1


def object_weights(
    pictures: Float[Tensor, "picture 3 height width"], weight: float
) -> Float[Tensor, "picture 1 height width"]:
    """``weight`` where a picture (-1..1) is not white, else 1."""
    inside = (pictures < 0.98).any(dim=1, keepdim=True)
    return 1 + (weight - 1) * inside.float()


def patch_components(
    pictures: Sequence[np.ndarray], channels: int, *, samples: int = 300
) -> tuple[Float[Tensor, "channel 3 8 8"], Float[Tensor, " channel"]]:
    """Principal components of 8x8 patches as convolution weights, and their standard deviations."""
    step = max(len(pictures) // samples, 1)
    chosen = np.stack([pictures[i] for i in range(0, len(pictures), step)])
    values = torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 127.5 - 1
    patches = functional.unfold(values, DOWNSCALE, stride=DOWNSCALE)
    flat = patches.transpose(1, 2).reshape(-1, 3 * DOWNSCALE**2)
    _, vectors = torch.linalg.eigh(torch.cov(flat.T.double()))
    basis = vectors.flip(1)[:, :channels].T.float()
    spread = (flat @ basis.T).std(dim=0).clamp(min=1e-3)
    return basis.reshape(channels, 3, DOWNSCALE, DOWNSCALE).contiguous(), spread


@torch.no_grad()
def whiten_latents(vae: Any, pictures: Sequence[np.ndarray], *, samples: int = 300) -> None:
    """Fold the normalisation of the latents into the 1x1 convolutions around them.

    Afterwards every latent channel has mean 0 and variance 1 over whole pictures, so that the
    pipeline's scale is 1 and its shift 0. What the autoencoder does to pictures stays the same.

    Args:
        vae: is changed; has ``quant_conv`` and ``post_quant_conv``.
        pictures: to measure the channels on.
        samples: how many of them.
    """
    step = max(len(pictures) // samples, 1)
    means = []
    for index in range(0, len(pictures), step):
        picture = torch.from_numpy(pictures[index]).permute(2, 0, 1)[None].float() / 127.5 - 1
        means.append(vae.encode(picture).latent_dist.mean[0].flatten(1))
    values = torch.cat(means, dim=1)
    mean, spread = values.mean(dim=1), values.std(dim=1)
    count = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= spread[None, :, None, None]
    quant.weight[:count] /= spread[:, None, None, None]
    quant.bias[:count] = (quant.bias[:count] - mean) / spread
    quant.bias[count:] -= 2 * spread.log()  # the second half holds log variances
