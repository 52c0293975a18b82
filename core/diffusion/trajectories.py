"""Contains GE3D's trajectories: noising up through time nodes, denoising down, and their alignment.

Symbols: nodes j = 0 (finest) .. m (farthest) with noise levels sigma_j; x_j the noising trajectory,
y_j the denoising one, y_m = x_m; a_j = `signal_scale` brings sigma form to the paper's space.

Reference: GE3D (text to Gaussians by trajectory alignment), Eq. 2 and 8-11; both model families.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .schedules import Family, expand_sigma, sigma_batch, signal_scale

Predictor = Callable[[Tensor, Tensor], Tensor]
"""Clean latents from (latents, sigma per entry): a denoiser with its conditioning bound."""


@dataclass(frozen=True)
class NodeParams:
    """Where the time nodes lie; each range moves linearly over the training.

    Attributes:
        num_jumps: most nodes after the first.
        jump_begin: smallest and largest (exclusive) jump in timesteps at the first iteration.
        jump_end: the same at the last iteration.
        farthest_begin: no node reaches this timestep, at the first iteration.
        farthest_end: the same at the last iteration.
    """

    num_jumps: int = 6
    jump_begin: tuple[int, int] = (60, 80)
    jump_end: tuple[int, int] = (30, 50)
    farthest_begin: int = 480
    farthest_end: int = 300

    def __post_init__(self) -> None:
        if self.num_jumps < 1:
            raise ValueError(f"num_jumps must be at least 1, got {self.num_jumps}.")
        for jump, cap in (
            (self.jump_begin, self.farthest_begin),
            (self.jump_end, self.farthest_end),
        ):
            if not 1 <= jump[0] < jump[1] <= cap <= 1000:
                raise ValueError(
                    "Need 1 <= smallest jump < largest jump <= farthest node <= 1000, got jumps "
                    f"{jump} and farthest node {cap}."
                )


def sample_timesteps(
    params: NodeParams, training_progress: float, generator: torch.Generator
) -> Int64[Tensor, " node"]:
    """Draw the timesteps of the nodes: 0, then random jumps while they stay below the cap.

    Args:
        params: ranges of the jumps and of the farthest node.
        training_progress: 0 at the first iteration, 1 at the last.
        generator: on the CPU.

    Returns:
        Between two and ``num_jumps + 1`` rising timesteps.
    """

    def now(begin: int, end: int) -> int:
        return round(begin + (end - begin) * min(max(training_progress, 0.0), 1.0))

    low, high = (now(*pair) for pair in zip(params.jump_begin, params.jump_end, strict=True))
    cap = now(params.farthest_begin, params.farthest_end)
    nodes = [0]
    jumps = torch.randint(low, max(high, low + 1), (params.num_jumps,), generator=generator)
    for jump in jumps.tolist():
        if nodes[-1] + jump >= cap:
            break
        nodes.append(nodes[-1] + jump)
    if len(nodes) == 1:  # the first jump already reached the cap
        nodes.append(cap - 1)
    return torch.tensor(nodes)


def ode_step(
    latents: Float[Tensor, " batch *latent"],
    denoised: Float[Tensor, " batch *latent"],
    sigma: float | Float[Tensor, ""],
    target: float | Float[Tensor, ""],
) -> Float[Tensor, " batch *latent"]:
    """Deterministic DDIM step from noise level ``sigma`` > 0 to ``target``, up or down.

    Reference: GE3D, Eq. 2 (Song et al. 2021, eta 0) in sigma form.
    """
    here, there = expand_sigma(sigma, latents), expand_sigma(target, latents)
    return latents + (there - here) / here * (latents - denoised)


def noising_trajectory(
    predict: Predictor,
    start: Float[Tensor, " batch *latent"],
    sigmas: Float[Tensor, " node"],
) -> list[Tensor]:
    """Invert the ODE from the finest node upward: x_0 .. x_m, one prediction per jump.

    Args:
        predict: clean latents under the inversion text (empty or negative).
        start: x_0, latents at noise level ``sigmas[0]``.
        sigmas: rising noise levels of the nodes, the first > 0.
    """
    _require_rising(sigmas)
    states = [start]
    for sigma, target in zip(sigmas[:-1], sigmas[1:], strict=True):
        denoised = predict(states[-1], sigma_batch(sigma, start))
        states.append(ode_step(states[-1], denoised, sigma, target))
    return states


def denoising_trajectory(
    predict: Predictor,
    end: Float[Tensor, " batch *latent"],
    sigmas: Float[Tensor, " node"],
) -> list[Tensor]:
    """Solve the ODE from the farthest node downward: y_0 .. y_m in the order of the nodes.

    Args:
        predict: clean latents under guidance by the prompt.
        end: y_m, latents at noise level ``sigmas[-1]``.
        sigmas: rising noise levels of the nodes, the first > 0.
    """
    _require_rising(sigmas)
    states = [end]
    for target, sigma in zip(sigmas[:-1].flip(0), sigmas[1:].flip(0), strict=True):
        denoised = predict(states[-1], sigma_batch(sigma, end))
        states.append(ode_step(states[-1], denoised, sigma, target))
    return states[::-1]


def _require_rising(sigmas: Tensor) -> None:
    if len(sigmas) < 2 or not bool((sigmas[1:] > sigmas[:-1]).all()) or not float(sigmas[0]) > 0:
        raise ValueError(
            "sigmas must hold at least two rising noise levels, the first positive, got "
            f"{[round(float(value), 4) for value in sigmas]}."
        )


def balancing_coefficients(
    iteration: float, total: int, num_jumps: int, *, width: float | None = None
) -> Float[Tensor, " jump"]:
    """Weights of nodes 0..n-1 at one iteration: coarse nodes early, fine nodes late; sum 1.

    Args:
        iteration: k, 0..total.
        total: K, number of iterations.
        num_jumps: n.
        width: standard deviation of the bells in iterations; K / 3 by default, which is the
            paper's 1000 at its 3000 iterations.

    Reference: GE3D, Eq. 9 and 10 (dynamic balancing coefficients).
    """
    if num_jumps < 1 or total < 1:
        raise ValueError(f"Need num_jumps and total of at least 1, got {num_jumps} and {total}.")
    if num_jumps == 1:
        return torch.ones(1, dtype=torch.float64)
    node = torch.arange(num_jumps, dtype=torch.float64)
    peak = total * (num_jumps - 1 - node) / (num_jumps - 1)
    spread = total / 3 if width is None else width
    return torch.softmax(-((iteration - peak) ** 2) / (2 * spread**2), dim=0)


def alignment_gradient(
    noising: Sequence[Tensor],
    denoising: Sequence[Tensor],
    sigmas: Float[Tensor, " node"],
    coefficients: Float[Tensor, " jump"],
    family: Family,
    *,
    jacobian: Literal["identity", "linear"] = "identity",
    renormalize: bool = True,
) -> Float[Tensor, " batch *latent"]:
    """Gradient of the aligned trajectories with respect to the clean latents.

    sum_j omega_j a_j (x_j - y_j), times a_j once more with ``jacobian="linear"``; NaN counts as 0.

    Args:
        noising: x_0 .. x_m in sigma form.
        denoising: y_0 .. y_m in sigma form.
        sigmas: noise levels of the nodes.
        coefficients: omega for at least m nodes; the first m are used.
        family: of the model.
        jacobian: of x_j with respect to the clean latents: dropped as in the released code, or its
            linear part a_j (1 - sigma_j for flows).
        renormalize: make the used coefficients sum to 1 when there are fewer nodes.

    Reference: GE3D, Eq. 8 and 11; factor 2 of the square is dropped as in the released code.
    """
    count = len(sigmas) - 1
    if not len(noising) == len(denoising) == count + 1 or len(coefficients) < count:
        raise ValueError(
            f"Need {count + 1} states on both trajectories and at least {count} coefficients, got "
            f"{len(noising)}, {len(denoising)} and {len(coefficients)}."
        )
    omega = coefficients[:count]
    if renormalize:
        omega = omega / omega.sum()
    weight = omega * signal_scale(sigmas[:count].to(omega), family)
    if jacobian == "linear":
        level = sigmas[:count].to(omega)
        weight = weight * (1 - level if family == "rectified_flow" else signal_scale(level, family))
    gradient = torch.zeros_like(noising[0])
    for share, x, y in zip(weight.tolist(), noising[:count], denoising[:count], strict=True):
        gradient += share * (x - y)
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
