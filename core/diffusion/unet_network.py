"""Contains the UNets of Stable Diffusion 1.5, 2.1 and SDXL seen as denoisers.

Symbols: s the variance-preserving noise level; the network sees x / sqrt(1 + s^2) and a timestep.
It predicts the noise eps (x0 = x - s eps) or v = (eps - s x0) / sqrt(1 + s^2), for which
x0 = x / (1 + s^2) - v s / sqrt(1 + s^2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .controls import AppliedControl, add_residuals
from .model import Conditioning
from .placement import Placement
from .schedules import Family, alphas_to_sigmas, expand_sigma, make_alphas_cumprod, signal_scale

Prediction = Literal["epsilon", "v_prediction", "sample"]


def nearest_timestep(
    sigma: Float[Tensor, " batch"], table: Float[Tensor, " timestep"]
) -> Float[Tensor, " batch"]:
    """The trained timestep whose noise level is nearest in the logarithm, as ComfyUI chooses it."""
    distance = (sigma.double().log()[:, None] - table.to(sigma.device).log()[None]).abs()
    return distance.argmin(dim=1).float()


def clean_from_prediction(
    latents: Float[Tensor, " batch *latent"],
    predicted: Float[Tensor, " batch *latent"],
    sigma: Float[Tensor, " batch"],
    prediction: Prediction,
) -> Float[Tensor, " batch *latent"]:
    """Clean latents from what a variance-preserving network predicts; see the module's head."""
    level = expand_sigma(sigma, latents)
    if prediction == "sample":
        return predicted
    if prediction == "epsilon":
        return latents - level * predicted
    scale = signal_scale(level, "variance_preserving")
    return latents * scale**2 - predicted * level * scale


@dataclass(frozen=True)
class UNetNetwork:
    """A UNet2DConditionModel as a denoiser.

    Attributes:
        network: the UNet.
        prediction: what it predicts.
        downscale: image pixels per latent pixel (SDXL is told the image size).
        sigmas: noise levels of its timesteps, rising.
    """

    network: Any
    prediction: Prediction
    downscale: int = 8
    sigmas: Float[Tensor, " timestep"] = field(
        default_factory=lambda: alphas_to_sigmas(make_alphas_cumprod())
    )

    architecture = "Stable Diffusion"
    folder = "unet"
    family: Family = "variance_preserving"

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Noise levels of the first and the last timestep."""
        return float(self.sigmas[0]), float(self.sigmas[-1])

    @property
    def is_sdxl(self) -> bool:
        """Whether the network is told sizes and a pooled vector."""
        return bool(self.network.config.addition_embed_type == "text_time")

    def picture_kind(self, network: Any) -> str:
        """ControlNets of Stable Diffusion encode pixels in 0..1 themselves."""
        return "unit pixels"

    def clean_latents(
        self,
        latents: Float[Tensor, "batch channel height width"],
        sigma: Float[Tensor, " batch"],
        conditioning: Conditioning,
        controls: Sequence[AppliedControl],
        placement: Placement,
    ) -> Float[Tensor, "batch channel height width"]:
        """Predicted clean latents, in the type of the latents."""
        down, middle = self._residuals(latents, sigma, conditioning, controls, placement)
        placement.prepare(self.network)
        predicted = self.network(
            **self._inputs(self.network, latents, sigma, conditioning),
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle[0] if middle else None,
            return_dict=False,
        )[0]
        return clean_from_prediction(latents, predicted.to(latents.dtype), sigma, self.prediction)

    def _inputs(
        self, network: Any, latents: Tensor, sigma: Tensor, conditioning: Conditioning
    ) -> dict[str, Any]:
        dtype = next(network.parameters()).dtype
        scale = signal_scale(expand_sigma(sigma, latents), self.family)
        return {
            "sample": (latents * scale).to(dtype),
            "timestep": nearest_timestep(sigma, self.sigmas).to(latents.device),
            "encoder_hidden_states": conditioning.tokens.to(latents.device, dtype),
            "added_cond_kwargs": self._sizes(latents, conditioning, dtype),
        }

    def _sizes(
        self, latents: Tensor, conditioning: Conditioning, dtype: torch.dtype
    ) -> dict[str, Tensor] | None:
        """SDXL's extra inputs: the size of the image, uncropped, and the pooled vector."""
        if not self.is_sdxl:
            return None
        if conditioning.pooled is None:
            raise ValueError("An SDXL model needs a pooled vector; encode the prompt with it.")
        height, width = (size * self.downscale for size in latents.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=dtype)
        return {
            "text_embeds": conditioning.pooled.to(latents.device, dtype),
            "time_ids": sizes.to(latents.device).expand(latents.shape[0], -1),
        }

    def _residuals(
        self,
        latents: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        controls: Sequence[AppliedControl],
        placement: Placement,
    ) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """Sums of the residuals of all controls for the down blocks and the middle block."""
        down: list[Tensor] | None = None
        middle: list[Tensor] | None = None
        for applied in controls:
            network = applied.network
            placement.prepare(network)
            inputs = self._inputs(network, latents, sigma, conditioning)
            first, second = network(
                **inputs,
                controlnet_cond=applied.picture.to(inputs["sample"]),
                conditioning_scale=applied.control.scale,
                return_dict=False,
            )
            down, middle = add_residuals(down, first), add_residuals(middle, [second])
        return down, middle


def scheduler_sigmas(config: Mapping[str, Any]) -> Float[Tensor, " timestep"]:
    """Noise levels of a diffusers scheduler's training schedule.

    With a terminal signal-to-noise ratio of zero the last level is infinite; it is left out.

    Raises:
        ValueError: a schedule of another kind.
    """
    steps = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.00085)), float(config.get("beta_end", 0.012))
    kind = config.get("beta_schedule", "scaled_linear")
    if kind == "scaled_linear":
        alphas = make_alphas_cumprod(steps, start, end)
    elif kind == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float64)
        alphas = torch.cumprod(1 - betas, dim=0)
    else:
        raise ValueError(
            f"The scheduler's beta_schedule is {kind!r}; only 'scaled_linear' and 'linear' are "
            "known here."
        )
    if config.get("rescale_betas_zero_snr"):
        roots = alphas.sqrt()
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
        alphas = roots[:-1] ** 2
    return alphas_to_sigmas(alphas)
