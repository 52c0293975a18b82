"""The toy network of the goldens: eps = tanh(A x + b t / 1000 + c text), text a scalar token."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from lift3d.core.diffusion.model import Conditioning, LatentFormat, ModelDefaults
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


@dataclass
class ToyModel:
    """The toy network as a `DiffusionModel`: a linear autoencoder and texts that become numbers.

    A latent pixel holds the 2x2 pixels' mean colours (channel 0..2) and mean brightness.
    """

    toy: ToyDenoiser
    defaults: ModelDefaults = field(default_factory=lambda: ModelDefaults(64, 7.5))
    latent_format: LatentFormat = field(default_factory=lambda: LatentFormat(4, 2))
    sigma_range: tuple[float, float] = (0.02, 15.0)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def family(self) -> str:
        return self.toy.family

    def denoise(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        return self.toy(latents, sigma, conditioning)

    def encode_text(self, prompts, *, pooled_prompts=None) -> Conditioning:
        return text(*(sum(map(ord, prompt)) % 97 / 97 for prompt in prompts))

    def encode_image(self, images: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2) * 2 - 1, 2)
        return torch.cat([small, small.mean(dim=1, keepdim=True)], dim=1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        large = torch.nn.functional.interpolate(latents[:, :3], scale_factor=2, mode="nearest")
        return ((large + 1) / 2).permute(0, 2, 3, 1).clamp(0, 1)

    def preview_latents(self, latents: Tensor) -> Tensor:
        return self.decode_latents(latents[:1])[0]

    def with_image_prompt(self, conditioning, image, strength):
        raise ValueError("The toy has no image prompts.")

    def with_lora(self, path, strength=1.0):
        raise ValueError("The toy has no LoRA.")

    def load_control(self, path):
        raise ValueError("The toy has no ControlNet.")
