"""Contains pictures sampled by the embedded view model while it trains, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.guidance import guide
from ..diffusion.sampling import make_noise, sample_latents
from ..diffusion.schedules import alphas_to_sigmas, make_karras_sigmas, signal_scale
from .view_diffusion import ViewDiffusionTraining, tokenize


class TrainedDenoiser:
    """The network under training as a `Denoiser` with classifier-free guidance.

    Args:
        training: network and text encoder.
        tokenizer: of the texts.
        prompts: one per entry of the batch.
        scale: of the guidance.
    """

    def __init__(
        self,
        training: ViewDiffusionTraining,
        tokenizer: Any,
        prompts: Sequence[str],
        scale: float,
    ) -> None:
        self.training = training
        self.scale = scale
        tokens = tokenize(tokenizer, list(prompts))
        empty = tokenize(tokenizer, [""]).expand(len(prompts), -1)
        self.tokens = torch.cat([tokens, empty])
        self.sigmas = alphas_to_sigmas(training.alphas)

    def __call__(self, latents: Tensor, sigma: Tensor, conditioning: Any) -> Tensor:
        """Clean latents from latents in sigma form."""
        twice, level = latents.repeat(2, 1, 1, 1), sigma.repeat(2)
        timesteps = (self.sigmas[None] - level[:, None]).abs().argmin(dim=1)
        spread = level.reshape(-1, 1, 1, 1)
        scale = signal_scale(spread, "variance_preserving")
        said = self.training.predict(twice * scale, timesteps, self.tokens)
        if self.training.params.prediction == "v_prediction":
            clean = scale**2 * twice - spread * scale * said
        else:
            clean = twice - spread * said
        positive, unconditional = clean.chunk(2)
        return guide(unconditional, positive, self.scale)


@torch.no_grad()
def sample_views(
    training: ViewDiffusionTraining,
    tokenizer: Any,
    vae: Any,
    prompts: Sequence[str],
    *,
    scale: float = 3.0,
    steps: int = 12,
    seed: int = 0,
) -> Float[Tensor, "prompt height width 3"]:
    """One picture per prompt, 0..1."""
    denoise = TrainedDenoiser(training, tokenizer, prompts, scale)
    sigmas = make_karras_sigmas(steps, sigma_min=0.03, sigma_max=float(denoise.sigmas[-1]))
    noise = make_noise((len(prompts), *training.latents.shape[1:]), seed)
    latents = sample_latents(denoise, float(sigmas[0]) * noise, sigmas, None)
    pictures = vae.decode(latents).sample.float()
    return ((pictures + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
