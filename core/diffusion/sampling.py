"""Contains the samplers: Heun and Euler on the probability-flow ODE of either family.

Symbols: x latents in sigma form, d = (x - x0_predicted) / sigma = dx/dsigma.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..progress import Progress, ProgressCallback, ignore_progress
from .model import Conditioning, Denoiser
from .schedules import Family, add_noise, num_evaluations, sigma_batch

Method = Literal["heun", "euler"]
StateCallback = Callable[[int, Tensor], None]
PreviewFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class KeptRegion:
    """A part of the latents that is to stay as it is.

    Attributes:
        latents: clean latents that stay where ``mask`` is 0.
        mask: 1 where the sampler may change the latents, 0 where not; soft values blend.
        noise: the run's noise.
        family: of the model.
    """

    latents: Float[Tensor, " batch *latent"]
    mask: Float[Tensor, " batch *mask"]
    noise: Float[Tensor, " batch *latent"]
    family: Family

    def applied(self, latents: Float[Tensor, " batch *latent"], sigma: float) -> Tensor:
        """Latents with the kept part replaced by the original at this noise level."""
        original = add_noise(self.latents, self.noise, sigma, self.family)
        return self.mask * latents + (1 - self.mask) * original


def make_noise(
    shape: Sequence[int],
    seed: int | torch.Generator,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, " batch *latent"]:
    """Standard normal noise made on the CPU, so that it is the same on every device.

    With an integer, entry i of the batch has the seed ``seed + i``: it does not depend on the
    size of the batch. Seed 0 is a seed like any other.

    Raises:
        ValueError: a negative seed.
    """
    if isinstance(seed, torch.Generator):
        return torch.randn(*shape, generator=seed, device=seed.device).to(device, dtype)
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    entries = [
        torch.randn(*shape[1:], generator=torch.Generator().manual_seed(seed + i))
        for i in range(shape[0])
    ]
    return torch.stack(entries).to(device, dtype) if entries else torch.empty(*shape)


def sample_latents(
    denoise: Denoiser,
    latents: Float[Tensor, " batch *latent"],
    sigmas: Float[Tensor, " sigma"],
    conditioning: Any,
    *,
    method: Method = "heun",
    kept: KeptRegion | None = None,
    on_progress: ProgressCallback = ignore_progress,
    preview: PreviewFunction | None = None,
    on_state: StateCallback | None = None,
) -> Float[Tensor, " batch *latent"]:
    """Run the noise out of latents, from the first noise level to the last.

    Heun's method evaluates the model twice per step; the step to 0 is Euler's in both methods.
    Controls of a `Conditioning` are switched by the index of the evaluation.

    Args:
        denoise: predicts clean latents.
        latents: at noise level ``sigmas[0]``, in sigma form.
        sigmas: strictly falling noise levels; usually the last is 0.
        conditioning: given to ``denoise``.
        method: "heun" (second order) or "euler".
        kept: part of the latents that must not change.
        on_progress: called after each evaluation; may raise to interrupt.
        preview: picture [height, width, 3] of predicted clean latents for the progress report.
        on_state: called with the step's index and latents, the start included.

    Returns:
        Latents at the last noise level.

    Reference: Karras et al. 2022, Algorithm 2 without churn; for flows the same ODE solver.

    Raises:
        ValueError: bad sigmas, or NaN in the latents.
    """
    levels = require_falling(sigmas)
    require_finite("latents", latents)
    total = num_evaluations(len(levels) - 1, method, ends_at_zero=levels[-1] == 0)
    run = _Run(denoise, conditioning, total, on_progress, preview)
    state = latents
    if on_state is not None:
        on_state(0, state)
    for step, (sigma, following) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        slope = run.slope(state, sigma)
        ahead = state + (following - sigma) * slope
        if method == "heun" and following > 0:
            ahead = state + (following - sigma) * (slope + run.slope(ahead, following)) / 2
        state = ahead if kept is None else kept.applied(ahead, following)
        if on_state is not None:
            on_state(step + 1, state)
    return state


class _Run:
    """Counts the evaluations of one run and reports them."""

    def __init__(
        self,
        denoise: Denoiser,
        conditioning: Any,
        total: int,
        on_progress: ProgressCallback,
        preview: PreviewFunction | None,
    ) -> None:
        self.denoise = denoise
        self.conditioning = conditioning
        self.total = total
        self.done = 0
        self.on_progress = on_progress
        self.preview = preview

    def slope(self, latents: Tensor, sigma: float) -> Tensor:
        conditioning = self.conditioning
        if isinstance(conditioning, Conditioning):
            conditioning = conditioning.active_at(self.done, self.total)
        denoised = self.denoise(latents, sigma_batch(sigma, latents), conditioning)
        self.done += 1
        picture = None if self.preview is None else self.preview(denoised)
        message = f"evaluation {self.done} of {self.total}, noise level {sigma:.3f}"
        self.on_progress(Progress(self.done, self.total, message, picture))
        return (latents - denoised) / sigma


def require_falling(sigmas: Float[Tensor, " sigma"]) -> list[float]:
    """The noise levels as numbers; ValueError unless they fall strictly and none is negative."""
    require_shape("sigmas", sigmas, None)
    require_finite("sigmas", sigmas)
    levels = [float(value) for value in sigmas]
    falling = all(high > low for high, low in zip(levels, levels[1:], strict=False))
    if len(levels) < 2 or not falling or levels[-1] < 0:
        raise ValueError(
            "sigmas must hold at least two strictly falling noise levels, none negative, got "
            f"{[round(value, 4) for value in levels]}."
        )
    return levels
