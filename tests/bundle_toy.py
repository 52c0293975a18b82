"""A diffusion model whose sampled results can be calculated by hand.

Latents are the pictures themselves, averaged over cells of `downscale` pixels and brought to -1..1;
what it predicts is a rule of the test. The token of a text is 1, that of the empty text 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lift3d.core.diffusion.model import Conditioning, LatentFormat, ModelDefaults
from torch import Tensor
from torch.nn import functional

Rule = Callable[[Tensor, Tensor, Conditioning], Tensor]


@dataclass
class ToyNetwork:
    """A ControlNet handle."""

    num_modes: int | None = None
    name: str = "toy"


@dataclass
class ToyModel:
    """Implements `DiffusionModel`; keeps a record of what it was asked."""

    rule: Rule | None = None
    family: str = "rectified_flow"
    guidance_kind: str = "distilled"
    downscale: int = 8
    tile_px: int = 64
    texts: list[tuple[str, str]] = field(default_factory=list)
    asked: list[Conditioning] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    previews: int = 0
    encoded: int = 0
    device: torch.device = torch.device("cpu")

    @property
    def latent_format(self) -> LatentFormat:
        return LatentFormat(channels=3, downscale=self.downscale)

    @property
    def sigma_range(self) -> tuple[float, float]:
        return (1e-3, 1.0) if self.family == "rectified_flow" else (0.03, 14.6)

    @property
    def defaults(self) -> ModelDefaults:
        return ModelDefaults(
            tile_px=self.tile_px, guidance=3.5, guidance_kind=self.guidance_kind, steps=20
        )

    def encode_text(
        self, prompts: Sequence[str], *, pooled_prompts: Sequence[str] | None = None
    ) -> Conditioning:
        pooled = list(prompts if pooled_prompts is None else pooled_prompts)
        self.texts += list(zip(prompts, pooled, strict=True))
        tokens = torch.tensor([[[float(len(text) > 0)]] * 4 for text in prompts])
        return Conditioning(tokens, torch.tensor([[float(len(text))] for text in pooled]))

    def with_image_prompt(
        self, conditioning: Conditioning, image: Tensor, strength: float
    ) -> Conditioning:
        tokens = image.mean(dim=(1, 2))[:, :1, None].expand(-1, 9, -1)
        joined = torch.cat([conditioning.tokens, strength * tokens], dim=1)
        return replace(conditioning, tokens=joined)

    def encode_image(self, images: Tensor) -> Tensor:
        self.encoded += 1
        cells = functional.avg_pool2d(images.movedim(-1, 1), self.downscale)
        return 2 * cells - 1

    def decode_latents(self, latents: Tensor) -> Tensor:
        large = latents.repeat_interleave(self.downscale, 2).repeat_interleave(self.downscale, 3)
        return ((large + 1) / 2).clamp(0, 1).movedim(1, -1)

    def preview_latents(self, latents: Tensor) -> Tensor:
        self.previews += 1
        return ((latents[0] + 1) / 2).clamp(0, 1).movedim(0, -1)

    def denoise(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        assert conditioning.batch == latents.shape[0] == sigma.shape[0]
        self.asked.append(conditioning)
        self.sigmas.append(float(sigma[0]))
        self.sizes.append(tuple(latents.shape))
        if self.rule is not None:
            return self.rule(latents, sigma, conditioning)
        return torch.zeros_like(latents)

    def with_lora(self, path: Path, strength: float = 1.0) -> ToyModel:
        raise ValueError("The toy model takes no LoRA.")

    def load_control(self, path: Path) -> Any:
        return ToyNetwork()
