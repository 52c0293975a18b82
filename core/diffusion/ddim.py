"""Contains DDIM on the network's own latents, also for schedules that end in pure noise.

Symbols: z = a x0 + b noise with a^2 = abar and b^2 = 1 - abar. The sigma form of `schedules` has
no level for abar = 0 ("zero terminal SNR"), therefore this sampler works on z.

Reference: Song et al. 2021, "DDIM", Eq. 12 and 16; Lin et al. 2024, "Common diffusion noise
schedules and sample steps are flawed", Alg. 1 and Tab. 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .._checks import require_finite
from ..formats.json_fields import JsonObject
from ..progress import Progress, ProgressCallback, ignore_progress
from .sampling import PreviewFunction, make_noise
from .schedules import BetaSpacing, make_alphas_cumprod, make_trailing_timesteps

Prediction = Literal["v_prediction", "epsilon", "sample"]
StepSpacing = Literal["leading", "trailing", "linspace"]
Predict = Callable[[Tensor, int], Tensor]
"""What a network predicts for latents z at a training timestep."""


@dataclass(frozen=True)
class DdimSchedule:
    """What a `scheduler_config.json` of DDIM says; the defaults are those of Era3D.

    Attributes:
        num_train_steps: number of training timesteps.
        beta_start: smallest beta.
        beta_end: largest beta.
        spacing: how betas grow.
        prediction: what the network predicts.
        step_spacing: which timesteps a run visits.
        steps_offset: added to the timesteps of "leading".
        ends_clean: the last step goes to abar = 1 instead of that of timestep 0.
        zero_terminal_snr: shift the schedule so that its last timestep is pure noise.
        clip_range: bound of predicted clean latents, None for none.
    """

    num_train_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    spacing: BetaSpacing = "linear"
    prediction: Prediction = "v_prediction"
    step_spacing: StepSpacing = "leading"
    steps_offset: int = 1
    ends_clean: bool = False
    zero_terminal_snr: bool = False
    clip_range: float | None = None

    def __post_init__(self) -> None:
        choices = {
            "beta_schedule": (self.spacing, get_args(BetaSpacing)),
            "prediction_type": (self.prediction, get_args(Prediction)),
            "timestep_spacing": (self.step_spacing, get_args(StepSpacing)),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError(
                "A schedule that ends in pure noise cannot go with the prediction 'epsilon': the "
                "noise says nothing of the picture there. Expected 'v_prediction'."
            )

    def alphas_cumprod(self) -> Float[Tensor, " timestep"]:
        """The signal's share abar of each training timestep, in double precision."""
        table = make_alphas_cumprod(
            self.num_train_steps, self.beta_start, self.beta_end, self.spacing
        )
        return with_zero_terminal_snr(table) if self.zero_terminal_snr else table

    def timesteps(self, num_steps: int) -> Int64[Tensor, " step"]:
        """Falling training timesteps of a run.

        Raises:
            ValueError: no step, or more than the schedule has.
        """
        total = self.num_train_steps
        if not 1 <= num_steps <= total:
            raise ValueError(f"num_steps must lie within 1..{total}, got {num_steps}.")
        if self.step_spacing == "trailing":
            return make_trailing_timesteps(num_steps, total)
        if self.step_spacing == "linspace":
            return (
                torch.linspace(0, total - 1, num_steps, dtype=torch.float64).round().long().flip(0)
            )
        steps = torch.arange(num_steps).flip(0) * (total // num_steps) + self.steps_offset
        if int(steps[0]) >= total:
            raise ValueError(
                f"{num_steps} steps with an offset of {self.steps_offset} leave the {total} "
                "timesteps of the schedule; take fewer steps."
            )
        return steps


def with_zero_terminal_snr(
    alphas_cumprod: Float[Tensor, " timestep"],
) -> Float[Tensor, " timestep"]:
    """Schedule shifted and scaled in sqrt(abar): the last value becomes 0, the first one stays.

    Reference: Lin et al. 2024, Alg. 1.
    """
    roots = alphas_cumprod.sqrt()
    first, last = roots[0], roots[-1]
    return ((roots - last) * first / (first - last)) ** 2


def read_ddim_schedule(config: JsonObject) -> DdimSchedule:
    """Schedule of a ``scheduler_config.json``; what it omits has the default of diffusers.

    Raises:
        ValueError: a field of the wrong kind, or a feature that is not supported here.
    """
    if config.has("trained_betas") or config.flag("thresholding"):
        raise ValueError("Schedules with trained betas or dynamic thresholding are not supported.")
    clips = config.flag("clip_sample") if config.has("clip_sample") else True
    ends_clean = config.flag("set_alpha_to_one") if config.has("set_alpha_to_one") else True
    data = config.data
    return DdimSchedule(
        num_train_steps=config.integer("num_train_timesteps", 1000),
        beta_start=config.number("beta_start", 0.0001),
        beta_end=config.number("beta_end", 0.02),
        spacing=data.get("beta_schedule", "linear"),
        prediction=data.get("prediction_type", "epsilon"),
        step_spacing=data.get("timestep_spacing", "leading"),
        steps_offset=config.integer("steps_offset", 0),
        ends_clean=ends_clean,
        zero_terminal_snr=config.flag("rescale_betas_zero_snr"),
        clip_range=config.number("clip_sample_range", 1.0) if clips else None,
    )


def sample_ddim(
    predict: Predict,
    latents: Float[Tensor, " batch *latent"],
    schedule: DdimSchedule,
    num_steps: int,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    on_progress: ProgressCallback = ignore_progress,
    preview: PreviewFunction | None = None,
) -> Float[Tensor, " batch *latent"]:
    """Clean latents from noise.

    Args:
        predict: see `Predict`; guidance is its business.
        latents: standard normal noise.
        schedule: of the training noise.
        num_steps: evaluations.
        eta: share of fresh noise: 0 none, 1 as in DDPM.
        generator: of the fresh noise; needed with eta above 0.
        on_progress: called after each step; may raise to interrupt.
        preview: picture [height, width, 3] of predicted clean latents for the progress report.

    Raises:
        ValueError: NaN in the latents, eta without a generator or out of 0..1, a bad step count.
    """
    require_finite("latents", latents)
    if not 0 <= eta <= 1 or (eta > 0 and generator is None):
        raise ValueError(f"eta must lie within 0..1 and needs a generator above 0, got {eta}.")
    table, stride = schedule.alphas_cumprod(), schedule.num_train_steps // num_steps
    last = 1.0 if schedule.ends_clean else float(table[0])
    state = latents
    for step, timestep in enumerate(schedule.timesteps(num_steps).tolist()):
        before = timestep - stride
        here, following = float(table[timestep]), float(table[before]) if before >= 0 else last
        clean, noise = _split(state, predict(state, timestep), here, schedule.prediction)
        if schedule.clip_range is not None:
            clean = clean.clamp(-schedule.clip_range, schedule.clip_range)
        spread = eta * math.sqrt((1 - following) / (1 - here) * (1 - here / following))
        state = following**0.5 * clean + math.sqrt(max(1 - following - spread**2, 0.0)) * noise
        if eta > 0 and generator is not None:
            fresh = make_noise(state.shape, generator, device=state.device, dtype=state.dtype)
            state = state + spread * fresh
        picture = None if preview is None else preview(clean)
        on_progress(Progress(step + 1, num_steps, f"step {step + 1} of {num_steps}", picture))
    return state


def _split(
    latents: Tensor, predicted: Tensor, alpha_cumprod: float, prediction: Prediction
) -> tuple[Tensor, Tensor]:
    """Clean latents and noise that a prediction stands for."""
    a, b = alpha_cumprod**0.5, (1 - alpha_cumprod) ** 0.5
    if prediction == "v_prediction":
        return a * latents - b * predicted, a * predicted + b * latents
    if prediction == "epsilon":
        return (latents - b * predicted) / a, predicted
    return predicted, (latents - a * predicted) / b
