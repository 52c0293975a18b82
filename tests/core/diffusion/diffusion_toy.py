"""The toy network of the goldens: eps = tanh(A x + b t / 1000 + c text), text a scalar token."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from lift3d.core.diffusion.model import Conditioning
from lift3d.core.diffusion.schedules import (
    alphas_to_sigmas,
    flow_to_vp_sigma,
    make_alphas_cumprod,
    signal_scale,
)
from torch import Tensor

SIGMAS = alphas_to_sigmas(make_alphas_cumprod())


def text(*values: float) -> Conditioning:
    return Conditioning(torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1))


@dataclass
class ToyDenoiser:
    matrix: Tensor
    time_vector: Tensor
    text_vector: Tensor
    time_offset: int = 0
    family: str = "variance_preserving"
    entries: list[int] = field(default_factory=list)

    def __call__(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        self.entries.append(len(latents))
        flow = self.family == "rectified_flow"
        vp_sigma = flow_to_vp_sigma(sigma) if flow else sigma
        timestep = (SIGMAS[None] - vp_sigma.double()[:, None]).abs().argmin(dim=1)
        level = sigma.to(latents).reshape(-1, *[1] * (latents.ndim - 1))
        scaled = signal_scale(level, self.family) * latents
        hidden = (
            scaled.flatten(1) @ self.matrix.T
            + (timestep + self.time_offset)[:, None].to(latents) / 1000 * self.time_vector
            + conditioning.tokens[:, 0, :1].to(latents) * self.text_vector
        )
        return latents - level * torch.tanh(hidden).reshape(latents.shape)


def random_toy(dim: int, seed: int = 0, **options) -> ToyDenoiser:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return ToyDenoiser(draw(dim, dim) / dim**0.5, draw(dim), draw(dim), **options)
