"""Contains Euler's method with fresh noise in every step, for variance-preserving models.

Symbols: x latents in sigma form (see `schedules`), d = (x - x0_predicted) / sigma. A step from
sigma to the following level goes down to ``down`` along d and comes back up by noise ``up``, where
down^2 + up^2 = following^2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite
from ..progress import Progress, ProgressCallback, ignore_progress
from .model import Denoiser
from .sampling import PreviewFunction, make_noise, require_falling
from .schedules import sigma_batch


def split_step(sigma: float, following: float) -> tuple[float, float]:
    """Noise level to step down to, and the noise to add then.

    Reference: Song et al. 2021 (DDIM), Eq. 16 with eta 1, in terms of sigma.
    """
    up = math.sqrt(following**2 * (sigma**2 - following**2) / sigma**2)
    return math.sqrt(following**2 - up**2), up


def sample_ancestral(
    denoise: Denoiser,
    latents: Float[Tensor, " batch *latent"],
    sigmas: Float[Tensor, " sigma"],
    conditioning: Any,
    generator: torch.Generator,
    *,
    on_progress: ProgressCallback = ignore_progress,
    preview: PreviewFunction | None = None,
) -> Float[Tensor, " batch *latent"]:
    """Run the noise out of latents, adding fresh noise in every step but the last.

    Args:
        denoise: predicts clean latents; evaluated once per step.
        latents: at noise level ``sigmas[0]``, in sigma form.
        sigmas: strictly falling noise levels; usually the last is 0.
        conditioning: given to ``denoise``.
        generator: of the fresh noise; on the CPU the result does not depend on the device.
        on_progress: called after each evaluation; may raise to interrupt.
        preview: picture [height, width, 3] of predicted clean latents for the progress report.

    Raises:
        ValueError: bad sigmas, or NaN in the latents.
    """
    levels = require_falling(sigmas)
    require_finite("latents", latents)
    state, total = latents, len(levels) - 1
    for step, (sigma, following) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        denoised = denoise(state, sigma_batch(sigma, state), conditioning)
        down, up = split_step(sigma, following)
        state = state + (down - sigma) * (state - denoised) / sigma
        if up > 0:
            fresh = make_noise(state.shape, generator, device=state.device, dtype=state.dtype)
            state = state + up * fresh
        picture = None if preview is None else preview(denoised)
        message = f"step {step + 1} of {total}, noise level {sigma:.3f}"
        on_progress(Progress(step + 1, total, message, picture))
    return state
