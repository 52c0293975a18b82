"""Contains the distillation recipe: which objective, with which numbers, applied to any model.

`Distiller` binds a recipe to a model and a prompt and gives, for the latents of rendered views, the
gradient that pulls them towards the prompt. The model itself is never differentiated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .distillation import (
    AlignmentParams,
    IntervalParams,
    ScoreWeighting,
    interval_score_gradient,
    make_training_noise,
    sample_interval,
    score_distillation_gradient,
    score_weight,
    trajectory_alignment_gradient,
)
from .guidance import GuidedPrompt, PerpNegLaw
from .model import Conditioning, Denoiser, DiffusionModel
from .schedules import NUM_TRAIN_STEPS, Family, signal_scale, timestep_sigmas
from .trajectories import balancing_coefficients, sample_timesteps
from .view_prompts import VIEW_TEMPLATE, ViewPrompts, embed_view_prompts

ObjectiveKind = Literal["ge3d", "sds", "ism"]
SpecialText = Literal["empty", "negative"]
NEGATIVE_PROMPT = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, low-resolution."
)


class NonFiniteError(ArithmeticError):
    """The model gave NaN or infinity; the evaluation was given up."""


@dataclass(frozen=True)
class ScoreParams:
    """Score distillation sampling.

    Attributes:
        timestep_range: bounds of t, in shares of the training steps.
        largest_end: upper bound at the last iteration; the same as the range's keeps it.
        weighting: w(t), see `score_distillation_gradient`.
    """

    timestep_range: tuple[float, float] = (0.02, 0.98)
    largest_end: float = 0.98
    weighting: ScoreWeighting = "sds"

    def __post_init__(self) -> None:
        low, high = self.timestep_range
        if not 0 <= low < min(high, self.largest_end) or max(high, self.largest_end) > 1:
            raise ValueError(
                "Timesteps of score distillation need 0 <= low < high <= 1, got "
                f"{self.timestep_range}, ending at {self.largest_end}."
            )


@dataclass(frozen=True)
class ObjectiveParams:
    """A distillation recipe: everything but the model and the prompt.

    Attributes:
        kind: GE3D, score distillation or interval score matching.
        guidance_scale: of the way down, positive.
        strength: factor on the gradient (lambda).
        inversion_text: of the way up; nothing to GE3D with random noising, nor to SDS.
        unconditional_text: what guidance contrasts the prompt to.
        negative_prompt: the text behind "negative".
        view_template: how a view is named in the prompt.
        perp_neg: law of the Perp-Neg weights; None switches Perp-Neg off.
        alignment: GE3D's numbers; its own strength is replaced by ``strength``.
        score: numbers of score distillation.
        interval: numbers of interval score matching.
    """

    kind: ObjectiveKind = "ge3d"
    guidance_scale: float = 7.5
    strength: float = 0.1
    inversion_text: SpecialText = "empty"
    unconditional_text: SpecialText = "empty"
    negative_prompt: str = NEGATIVE_PROMPT
    view_template: str = VIEW_TEMPLATE
    perp_neg: PerpNegLaw | None = "ge3d"
    alignment: AlignmentParams = field(default_factory=AlignmentParams)
    score: ScoreParams = field(default_factory=ScoreParams)
    interval: IntervalParams = field(default_factory=IntervalParams)

    def __post_init__(self) -> None:
        if self.kind not in ("ge3d", "sds", "ism"):
            raise ValueError(f"The objective must be ge3d, sds or ism, got '{self.kind}'.")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale > 0):
            raise ValueError(
                f"guidance_scale must be positive, got {self.guidance_scale}: at 0 the prompt has "
                "no effect."
            )
        if not (math.isfinite(self.strength) and self.strength > 0):
            raise ValueError(f"strength must be positive, got {self.strength}.")


@dataclass(frozen=True)
class LatentGradient:
    """What a recipe says about latents.

    Attributes:
        gradient: with respect to the clean latents.
        disagreement: root mean square difference between the noise predicted with and without
            guidance (or the true noise), averaged over the trajectory; comparable between
            iterations.
    """

    gradient: Float[Tensor, "batch channel latent_height latent_width"]
    disagreement: float


class WatchedDenoiser:
    """A denoiser that counts and times its evaluations and refuses NaN.

    Attributes:
        calls: of the model.
        entries: evaluated latents, all calls together.
        seconds: spent in the model.
    """

    def __init__(self, denoise: Denoiser) -> None:
        self._denoise = denoise
        self.calls, self.entries, self.seconds = 0, 0, 0.0

    def __call__(self, latents: Tensor, sigma: Tensor, conditioning: Any) -> Tensor:
        """The model's answer.

        Raises:
            NonFiniteError: it holds NaN or infinity.
        """
        began = time.perf_counter()
        self.calls += 1
        self.entries += len(latents)
        answer = self._denoise(latents, sigma, conditioning)
        finite = math.isfinite(float(answer.detach().float().sum()))
        self.seconds += time.perf_counter() - began
        if not finite:
            raise NonFiniteError(
                f"The diffusion model gave NaN or infinity at noise level {float(sigma[0]):.3f}."
            )
        return answer


class Distiller:
    """A recipe bound to a model and a prompt.

    Attributes:
        denoise: the model, watched.
    """

    def __init__(self, model: DiffusionModel, prompt: str, params: ObjectiveParams) -> None:
        """Embed the texts.

        Raises:
            ValueError: an empty prompt.
        """
        self.params = params
        self.family: Family = model.family
        self.denoise = WatchedDenoiser(model.denoise)
        texts = {"empty": "", "negative": params.negative_prompt}
        with torch.no_grad():
            self.prompts: ViewPrompts = embed_view_prompts(
                model.encode_text,
                prompt,
                unconditional_text=texts[params.unconditional_text],
                inversion_text=texts[params.inversion_text],
                template=params.view_template,
                scale=params.guidance_scale,
                law=params.perp_neg,
                guidance_kind=model.defaults.guidance_kind,
            )

    def gradient(
        self,
        latents: Float[Tensor, "batch channel latent_height latent_width"],
        azimuths_deg: Float[Tensor, " batch"],
        elevations_deg: Float[Tensor, " batch"],
        *,
        iteration: int,
        total_iterations: int,
        generator: torch.Generator,
    ) -> LatentGradient:
        """Gradient for the latents of views from these directions.

        Args:
            latents: of the pictures, clean.
            azimuths_deg: 0 sees the front.
            elevations_deg: 0 is level.
            iteration: 0..total_iterations.
            total_iterations: length of the run.
            generator: of nodes and noise, on the CPU.

        Raises:
            NonFiniteError: from the model.
        """
        prompt = self.prompts.guided(azimuths_deg, elevations_deg)
        step = _Step(self, latents, prompt, self.prompts.inversion, generator)
        return _KINDS[self.params.kind](step, iteration, total_iterations)


@dataclass(frozen=True)
class _Step:
    """One evaluation of a recipe."""

    distiller: Distiller
    latents: Tensor
    prompt: GuidedPrompt
    inversion: Conditioning
    generator: torch.Generator

    @property
    def params(self) -> ObjectiveParams:
        return self.distiller.params

    @property
    def family(self) -> Family:
        return self.distiller.family

    def noise(self, share: float = 0.0) -> Tensor:
        return make_training_noise(self.latents, self.generator, offset_noise=share)

    def scaled(self, gradient: Tensor, weight: float) -> LatentGradient:
        """Gradient times the strength; ``weight`` is how much a unit of noise counts in it."""
        disagreement = float(gradient.float().square().mean().sqrt()) / max(weight, 1e-12)
        return LatentGradient(self.params.strength * gradient, disagreement)


def _ge3d(step: _Step, iteration: int, total: int) -> LatentGradient:
    params = replace(step.params.alignment, strength=1.0)
    timesteps = sample_timesteps(params.nodes, iteration / total, step.generator)
    noise = step.noise(params.offset_noise)
    gradient = trajectory_alignment_gradient(
        step.distiller.denoise,
        step.latents,
        step.prompt,
        step.inversion,
        family=step.family,
        iteration=iteration,
        total_iterations=total,
        generator=step.generator,
        params=params,
        timesteps=timesteps,
        noise=noise,
    )
    weight = float(interval_weights(timesteps, iteration, total, params, step.family).sum())
    return step.scaled(gradient, weight)


def interval_weights(
    timesteps: Int64[Tensor, " node"],
    iteration: int,
    total: int,
    params: AlignmentParams,
    family: Family,
) -> Float[Tensor, " jump"]:
    """How much the residual of each interval counts in GE3D's gradient.

    (sigma_{i+1} - sigma_i) * sum_{j <= i} omega_j a_j: the gradient is the sum of the residuals
    E_{i+1} - e_i (guided minus unguided noise; minus the true noise if noising is random) with
    these weights.

    Reference: closed form of GE3D's Eq. 8-11.
    """
    sigmas = timestep_sigmas(timesteps, family).double()
    jumps = len(sigmas) - 1
    omega = balancing_coefficients(
        iteration, total, max(params.nodes.num_jumps, jumps), width=params.width
    )[:jumps]
    if params.renormalize:
        omega = omega / omega.sum()
    level = sigmas[:-1]
    shares = omega * signal_scale(level, family)
    if params.jacobian == "linear":
        shares = shares * (1 - level if family == "rectified_flow" else signal_scale(level, family))
    return sigmas.diff() * shares.cumsum(0)


def _sds(step: _Step, iteration: int, total: int) -> LatentGradient:
    params = step.params.score
    low, high = params.timestep_range
    high = high + (params.largest_end - high) * iteration / total
    first, last = int(low * NUM_TRAIN_STEPS), max(int(high * NUM_TRAIN_STEPS), 1)
    timestep = torch.randint(first, max(last, first + 1), (1,), generator=step.generator)
    sigma = float(timestep_sigmas(timestep, step.family)[0])
    gradient = score_distillation_gradient(
        step.distiller.denoise,
        step.latents,
        step.prompt,
        sigma,
        step.noise(),
        family=step.family,
        weighting=params.weighting,
    )
    unit = score_weight(sigma, params.weighting, step.family)
    return step.scaled(gradient, unit)


def _ism(step: _Step, iteration: int, total: int) -> LatentGradient:
    timesteps = sample_interval(step.params.interval, iteration / total, step.generator)
    sigmas = timestep_sigmas(timesteps, step.family)
    gradient = interval_score_gradient(
        step.distiller.denoise,
        step.latents,
        step.prompt,
        step.inversion,
        sigmas,
        step.noise(),
        family=step.family,
    )
    return step.scaled(gradient, float(sigmas[-1]))


_KINDS: dict[str, Callable[[_Step, int, int], LatentGradient]] = {
    "ge3d": _ge3d,
    "sds": _sds,
    "ism": _ism,
}
