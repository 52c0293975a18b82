"""Contains rectified-flow matching: noise levels of training and the loss on velocities.

x_t = (1 - t) x0 + t noise; the network predicts v = noise - x0.

References: Liu et al. 2023, Flow Straight and Fast; Esser et al. 2024, Scaling Rectified Flow
Transformers, Sec. 3.1 (logit-normal levels).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.schedules import FLUX_SHIFT, expand_sigma, shift_sigma


@dataclass(frozen=True)
class LevelParams:
    """How noise levels are drawn.

    Attributes:
        even_share: share of levels that are even before the shift; the rest is logit-normal.
        shift: moves the even ones towards 1. What a text means for the whole picture is learnt
            near 1 only, where noise hides the rest, and the logit-normal law seldom goes there.
    """

    even_share: float = 0.6
    shift: float = FLUX_SHIFT


def draw_levels(
    count: int, generator: torch.Generator, params: LevelParams = LevelParams()
) -> Float[Tensor, " level"]:
    """Noise levels within 0..1."""
    even = torch.rand(count, generator=generator)
    normal = torch.randn(count, generator=generator).sigmoid()
    chosen = torch.rand(count, generator=generator) < params.even_share
    return torch.where(chosen, shift_sigma(even, params.shift), normal)


def noised_and_velocity(
    latents: Float[Tensor, " batch *latent"],
    noise: Float[Tensor, " batch *latent"],
    levels: Float[Tensor, " batch"],
) -> tuple[Float[Tensor, " batch *latent"], Float[Tensor, " batch *latent"]]:
    """What the network sees and what it should say."""
    level = expand_sigma(levels, latents)
    return (1 - level) * latents + level * noise, noise - latents
