"""Contains the distillation objectives: gradients for latents of a rendered image.

Each returns the gradient with respect to the clean latents z, computed without autograd; inject it
with `surrogate_loss`. Symbols: s noise levels, e and E predicted noise without and with guidance.
(x - x0_predicted) / sigma is the predicted noise of a variance-preserving model and the velocity of
a flow; the formulas below hold for both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .guidance import GuidedPrompt, guided_denoise
from .model import Conditioning, Denoiser
from .schedules import (
    NUM_TRAIN_STEPS,
    Family,
    add_noise,
    expand_sigma,
    sigma_batch,
    signal_scale,
    timestep_sigmas,
)
from .trajectories import (
    NodeParams,
    alignment_gradient,
    balancing_coefficients,
    denoising_trajectory,
    noising_trajectory,
    sample_timesteps,
)

ScoreWeighting = Literal["sds", "uniform", "fantasia3d", "sigma"]
Noising = Literal["inversion", "random"]


@dataclass(frozen=True)
class AlignmentParams:
    """GE3D's objective.

    Attributes:
        nodes: where the trajectories stop.
        strength: factor on the gradient (lambda).
        width: of the balancing bells in iterations; None takes a third of the training.
        clean_target: compare y_0 with z itself instead of the slightly noised x_0.
        jacobian: see `alignment_gradient`.
        renormalize: see `alignment_gradient`.
        offset_noise: share of noise that is constant over an image's channels.
        noising: the way up. "inversion" asks the model, as GE3D does, and keeps whatever a picture
            holds; "random" adds one noise to all nodes, as SDS does: no evaluations, and a pull
            towards what the model takes for a picture besides.
    """

    nodes: NodeParams = field(default_factory=NodeParams)
    strength: float = 0.1
    width: float | None = None
    clean_target: bool = False
    jacobian: Literal["identity", "linear"] = "identity"
    renormalize: bool = True
    offset_noise: float = 0.0
    noising: Noising = "inversion"

    def __post_init__(self) -> None:
        if self.noising not in get_args(Noising):
            raise ValueError(f"noising must be inversion or random, got '{self.noising}'.")


REFERENCE_ALIGNMENT = AlignmentParams(
    width=1000.0, clean_target=True, renormalize=False, offset_noise=0.1
)
"""What the released code of GE3D does; its inversion text is the negative prompt."""


@dataclass(frozen=True)
class IntervalParams:
    """Interval score matching.

    Attributes:
        timestep_range: bounds of t, in shares of the training steps.
        warmup_largest: upper bound at the first iteration; it falls to the range's bound.
        interval: bounds of t - s in timesteps, the upper one exclusive.
        inversion_jump: longest jump on the way up to s.
        max_inversion_jumps: most jumps on the way up to s.

    Defaults: LucidDreamer (Liang et al. 2023).
    """

    timestep_range: tuple[float, float] = (0.02, 0.5)
    warmup_largest: float = 0.98
    interval: tuple[int, int] = (50, 80)
    inversion_jump: int = 200
    max_inversion_jumps: int = 5


def surrogate_loss(
    latents: Float[Tensor, " batch *latent"], gradient: Float[Tensor, " batch *latent"]
) -> Float[Tensor, ""]:
    """A scalar whose derivative with respect to ``latents`` is exactly ``gradient``."""
    return (latents * gradient.detach().to(latents)).sum()


def make_training_noise(
    latents: Float[Tensor, " batch *latent"],
    generator: torch.Generator,
    *,
    offset_noise: float = 0.0,
) -> Float[Tensor, " batch *latent"]:
    """Standard normal noise like ``latents``; the offset is one number per channel of the batch."""
    noise = torch.randn(latents.shape, generator=generator, device=generator.device)
    if offset_noise:
        shape = (1, latents.shape[1], *[1] * (latents.ndim - 2))
        shift = torch.randn(shape, generator=generator, device=generator.device)
        noise = noise + offset_noise * shift
    return noise.to(_working_copy(latents))


def _working_copy(latents: Tensor) -> Tensor:
    # Trajectories add many small steps: half precision would lose them.
    return latents.detach().to(torch.promote_types(latents.dtype, torch.float32))


@torch.no_grad()
def trajectory_alignment_gradient(
    denoise: Denoiser,
    latents: Float[Tensor, " batch *latent"],
    prompt: GuidedPrompt,
    inversion: Conditioning,
    *,
    family: Family,
    iteration: int,
    total_iterations: int,
    generator: torch.Generator,
    params: AlignmentParams | None = None,
    timesteps: Int64[Tensor, " node"] | None = None,
    noise: Float[Tensor, " batch *latent"] | None = None,
) -> Float[Tensor, " batch *latent"]:
    """GE3D: pull the noising trajectory of an image onto its guided denoising trajectory.

    With m nodes after the first and B latents the model sees m B + 2 m B entries in 2 m calls
    (m B + 4 m B with two Perp-Neg negatives); with random noising m B and m calls fewer.

    Args:
        denoise: the model.
        latents: z, of the rendered images.
        prompt: text branches for the way down.
        inversion: text for the way up, usually the empty prompt.
        family: of the model.
        iteration: k, 0..total_iterations.
        total_iterations: K.
        generator: for nodes and noise, on the CPU.
        params: the objective's numbers.
        timesteps: nodes to use instead of drawn ones, rising.
        noise: for x_0, instead of drawn noise.

    Reference: GE3D, Algorithm and Eq. 8-11.
    """
    params = AlignmentParams() if params is None else params
    if timesteps is None:
        timesteps = sample_timesteps(params.nodes, iteration / total_iterations, generator)
    sigmas = timestep_sigmas(timesteps, family)
    clean = _working_copy(latents)
    if noise is None:
        noise = make_training_noise(clean, generator, offset_noise=params.offset_noise)
    noise = noise.to(clean)
    if params.noising == "random":
        noising = [add_noise(clean, noise, float(sigma), family) for sigma in sigmas]
    else:
        start = add_noise(clean, noise, float(sigmas[0]), family)
        upward = inversion.expanded(len(clean))
        noising = noising_trajectory(lambda x, s: denoise(x, s, upward), start, sigmas)
    predict = partial(guided_denoise, denoise, prompt=prompt)
    denoising = denoising_trajectory(predict, noising[-1], sigmas)
    if params.clean_target:
        noising = [clean / float(signal_scale(sigmas[0], family)), *noising[1:]]
    omega = balancing_coefficients(
        iteration,
        total_iterations,
        max(params.nodes.num_jumps, len(sigmas) - 1),
        width=params.width,
    )
    return params.strength * alignment_gradient(
        noising,
        denoising,
        sigmas,
        omega,
        family,
        jacobian=params.jacobian,
        renormalize=params.renormalize,
    ).to(latents.dtype)


@torch.no_grad()
def trajectory_target(
    denoise: Denoiser,
    latents: Float[Tensor, " batch *latent"],
    prompt: GuidedPrompt,
    inversion: Conditioning,
    timesteps: Int64[Tensor, " node"],
    noise: Float[Tensor, " batch *latent"],
    *,
    family: Family,
) -> Float[Tensor, " batch *latent"]:
    """y_0: latents carried up the noising and down the guided denoising trajectory.

    Args:
        denoise: the model.
        latents: clean, of pictures.
        prompt: text branches for the way down.
        inversion: text for the way up.
        timesteps: rising nodes.
        noise: takes the latents to the first node.
        family: of the model.

    Reference: the pseudo ground truth of GE3D's reconstructive generation.
    """
    sigmas = timestep_sigmas(timesteps, family)
    clean = _working_copy(latents)
    upward = inversion.expanded(len(clean))
    start = add_noise(clean, noise.to(clean), float(sigmas[0]), family)
    far = noising_trajectory(lambda x, s: denoise(x, s, upward), start, sigmas)[-1]
    predict = partial(guided_denoise, denoise, prompt=prompt)
    return denoising_trajectory(predict, far, sigmas)[0].to(latents.dtype)


@torch.no_grad()
def score_distillation_gradient(
    denoise: Denoiser,
    latents: Float[Tensor, " batch *latent"],
    prompt: GuidedPrompt,
    sigma: float | Float[Tensor, ""],
    noise: Float[Tensor, " batch *latent"],
    *,
    family: Family,
    weighting: ScoreWeighting = "sds",
) -> Float[Tensor, " batch *latent"]:
    """Score distillation sampling: w(t) (E - noise), for flows w(t) (V - v).

    Args:
        denoise: the model.
        latents: z, of the rendered images.
        prompt: text branches; the paper's guidance scale is 100.
        sigma: noise level.
        noise: standard normal.
        family: of the model.
        weighting: see `score_weight`.

    Reference: Poole et al. 2022, Eq. 3; GE3D, Eq. 16; weightings of threestudio.
    """
    clean = _working_copy(latents)
    noisy = add_noise(clean, noise.to(clean), sigma, family)
    denoised = guided_denoise(denoise, noisy, sigma_batch(sigma, clean), prompt)
    level = float(sigma)
    weight = score_weight(level, weighting, family)
    # Predicted minus true noise (velocity) is (z - x0_predicted) / sigma in both families.
    gradient = (weight / level) * (clean - denoised)
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0).to(latents.dtype)


def score_weight(sigma: float, weighting: ScoreWeighting, family: Family) -> float:
    """w(t) at a noise level: how much the difference of the noises counts.

    "sds" 1 - abar (sigma^2 for flows), "uniform" 1, "fantasia3d" a (1 - abar), "sigma" s.

    Reference: weightings of threestudio.
    """
    scale = float(signal_scale(torch.tensor(sigma, dtype=torch.float64), family))
    variance = sigma**2 if family == "rectified_flow" else 1 - scale**2
    weights = {"sds": variance, "uniform": 1.0, "fantasia3d": scale * variance, "sigma": sigma}
    return weights[weighting]


@torch.no_grad()
def interval_score_gradient(
    denoise: Denoiser,
    latents: Float[Tensor, " batch *latent"],
    prompt: GuidedPrompt,
    inversion: Conditioning,
    sigmas: Float[Tensor, " node"],
    noise: Float[Tensor, " batch *latent"],
    *,
    family: Family,
) -> Float[Tensor, " batch *latent"]:
    """Interval score matching: s_t (E_t - e_s) between the last two of the noise levels.

    Args:
        denoise: the model.
        latents: z, of the rendered images.
        prompt: text branches at t.
        inversion: text for the way up.
        sigmas: rising noise levels: the start of the inversion, its stops, s, and t.
        noise: takes the latents to the first level.
        family: of the model.

    Reference: Liang et al. 2023 (LucidDreamer), Eq. 17; GE3D, Eq. 6-7.
    """
    clean = _working_copy(latents)
    upward = inversion.expanded(len(clean))
    state = add_noise(clean, noise.to(clean), float(sigmas[0]), family)
    states = noising_trajectory(lambda x, s: denoise(x, s, upward), state, sigmas)
    # The last step of the trajectory used e_s; read it back instead of asking the model again.
    near, far = (expand_sigma(float(value), clean) for value in sigmas[-2:])
    slope = (states[-1] - states[-2]) / (far - near)
    denoised = guided_denoise(denoise, states[-1], sigma_batch(sigmas[-1], clean), prompt)
    gradient = far * ((states[-1] - denoised) / far - slope)
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0).to(latents.dtype)


def sample_interval(
    params: IntervalParams, training_progress: float, generator: torch.Generator
) -> Int64[Tensor, " node"]:
    """Draw timesteps for `interval_score_gradient`: the stops of the inversion, s, and t.

    Args:
        params: ranges.
        training_progress: 0 at the first iteration, 1 at the last.
        generator: on the CPU.
    """
    low, high = params.timestep_range
    high = max(high, params.warmup_largest + (high - params.warmup_largest) * training_progress)

    def draw(first: int, last: int) -> int:
        return int(torch.randint(first, max(last, first + 1), (), generator=generator))

    far = draw(int(low * NUM_TRAIN_STEPS), int(high * NUM_TRAIN_STEPS))
    near = max(far - draw(*params.interval), 1)
    far = max(far, near + 1)
    stops = [near]
    while len(stops) < params.max_inversion_jumps and stops[-1] > params.inversion_jump:
        stops.append(stops[-1] - params.inversion_jump)
    first = max(stops[-1] - params.inversion_jump, 0)
    return torch.tensor([first, *stops[::-1], far])
