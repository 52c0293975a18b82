"""Contains noise schedules: sigma grids of both families and the changes between them.

Symbols: a = sqrt(abar), b = sqrt(1 - abar), s = b / a. Latents are always in *sigma form*:

- variance preserving: x = x0 + sigma * noise with sigma = s (the network's latent divided by a),
- rectified flow:      x = (1 - sigma) * x0 + sigma * noise.

In both, dx/dsigma = (x - x0_predicted) / sigma, so that samplers need not know the family.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Family = Literal["variance_preserving", "rectified_flow"]
BetaSpacing = Literal["scaled_linear", "linear", "squaredcos_cap_v2"]

NUM_TRAIN_STEPS = 1000
FLUX_SHIFT = 3.0


def shift_sigma(
    sigma: Float[Tensor, "*batch"], shift: float = FLUX_SHIFT
) -> Float[Tensor, "*batch"]:
    """Move flow noise levels towards 1: shift * u / (1 + (shift - 1) u)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def make_flow_sigmas(
    num_steps: int, *, shift: float = FLUX_SHIFT, num_train_steps: int = NUM_TRAIN_STEPS
) -> Float[Tensor, " sigma"]:
    """Descending noise levels of a rectified flow: ``num_steps`` values and a final 0.

    The grid is even between 1 and the smallest *shifted* training level, and is then shifted, so
    that the shift acts twice on the tail.

    Reference: Kiss3DGen's sampler (flow-match Heun, static shift 3; 20 steps by default).

    Raises:
        ValueError: no step, or a shift that is not positive.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    if not shift > 0:
        raise ValueError(f"shift must be positive, got {shift}.")
    smallest = shift_sigma(torch.tensor(1.0 / num_train_steps, dtype=torch.float64), shift)
    even = torch.linspace(1.0, float(smallest), num_steps, dtype=torch.float64)
    return torch.cat([shift_sigma(even, shift), even.new_zeros(1)])


def make_karras_sigmas(
    num_steps: int, *, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> Float[Tensor, " sigma"]:
    """Descending noise levels, even in sigma^(1/rho), and a final 0.

    Reference: Karras et al. 2022, Eq. 5.
    """
    if num_steps < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(
            "Need num_steps >= 1 and 0 < sigma_min < sigma_max, got "
            f"{num_steps}, {sigma_min}, {sigma_max}."
        )
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, ramp.new_zeros(1)])


def start_index(num_steps: int, strength: float) -> int:
    """Index of the first noise level when only a share of the steps is run on a given image.

    ``int(num_steps - min(num_steps * strength, num_steps))``: with few steps a strength just
    below 1 still starts at 0, where the noise covers the image completely.

    Raises:
        ValueError: a strength outside 0..1, or so low that no step is left.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must lie within 0..1, got {strength}.")
    index = int(num_steps - min(num_steps * strength, num_steps))
    if index >= num_steps:
        raise ValueError(
            f"strength {strength} leaves none of the {num_steps} steps; raise one of them."
        )
    return index


def num_evaluations(
    num_steps: int, method: Literal["heun", "euler"], *, ends_at_zero: bool = True
) -> int:
    """Model evaluations of a run: Heun needs two per step, and one for a step to noise level 0."""
    return 2 * num_steps - ends_at_zero if method == "heun" else num_steps


def add_noise(
    latents: Float[Tensor, " batch *latent"],
    noise: Float[Tensor, " batch *latent"],
    sigma: float | Float[Tensor, " ..."],
    family: Family,
) -> Float[Tensor, " batch *latent"]:
    """Clean latents at noise level sigma, in sigma form.

    With a rectified flow at sigma 1 nothing of ``latents`` is left.
    """
    level = expand_sigma(sigma, latents)
    if family == "rectified_flow":
        return (1 - level) * latents + level * noise
    return latents + level * noise


def expand_sigma(
    sigma: float | Float[Tensor, " ..."], latents: Float[Tensor, " batch *latent"]
) -> Tensor:
    """Noise level(s) shaped for arithmetic with the latents, in their type and place."""
    level = torch.as_tensor(sigma, dtype=latents.dtype, device=latents.device)
    return level.reshape(-1, *[1] * (latents.ndim - 1))


def sigma_batch(
    sigma: float | Float[Tensor, " ..."], latents: Float[Tensor, " batch *latent"]
) -> Float[Tensor, " batch"]:
    """One noise level per entry of the batch, in single precision at least."""
    dtype = torch.promote_types(latents.dtype, torch.float32)
    level = torch.as_tensor(sigma, dtype=dtype, device=latents.device)
    return level.expand(latents.shape[0])


def make_alphas_cumprod(
    num_train_steps: int = NUM_TRAIN_STEPS,
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    spacing: BetaSpacing = "scaled_linear",
) -> Float[Tensor, " timestep"]:
    """The schedule of Stable Diffusion: betas even in their square roots ("scaled_linear").

    With "linear" they are even themselves, as in Zero123++; "squaredcos_cap_v2" is the cosine
    schedule of unCLIP, whose betas follow from the number of steps alone.

    Raises:
        ValueError: betas that do not rise within 0..1, or an unknown spacing.
    """
    if not 0 < beta_start <= beta_end < 1 or num_train_steps < 1:
        raise ValueError(
            "Need num_train_steps >= 1 and 0 < beta_start <= beta_end < 1, got "
            f"{num_train_steps}, {beta_start}, {beta_end}."
        )
    if spacing not in get_args(BetaSpacing):
        raise ValueError(f"spacing must be one of {get_args(BetaSpacing)}, got {spacing!r}.")
    if spacing == "squaredcos_cap_v2":
        return _cosine_alphas_cumprod(num_train_steps)
    power = 2 if spacing == "scaled_linear" else 1
    even = torch.linspace(
        beta_start ** (1 / power), beta_end ** (1 / power), num_train_steps, dtype=torch.float64
    )
    return torch.cumprod(1 - even**power, dim=0)


def _cosine_alphas_cumprod(num_train_steps: int) -> Float[Tensor, " timestep"]:
    """The cosine schedule; no beta is larger than 0.999 (Nichol and Dhariwal 2021, Eq. 17)."""
    edges = torch.arange(num_train_steps + 1, dtype=torch.float64) / num_train_steps
    curve = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
    return torch.cumprod((curve[1:] / curve[:-1]).clamp(min=0.001), dim=0)


def make_trailing_timesteps(
    num_steps: int, num_train_steps: int = NUM_TRAIN_STEPS
) -> Int64[Tensor, " step"]:
    """Falling timesteps, evenly spaced so that the first is the noisiest that was trained.

    Reference: Lin et al. 2024, "Common diffusion noise schedules ... are flawed", Tab. 2.
    """
    if not 1 <= num_steps <= num_train_steps:
        raise ValueError(f"num_steps must lie within 1..{num_train_steps}, got {num_steps}.")
    ratio = num_train_steps / num_steps
    left = num_train_steps - ratio * torch.arange(num_steps, dtype=torch.float64)
    return left.round().long() - 1


def alphas_to_sigmas(alphas_cumprod: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Variance-preserving noise level s = sqrt((1 - abar) / abar)."""
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


def signal_scale(sigma: Float[Tensor, "*batch"], family: Family) -> Float[Tensor, "*batch"]:
    """Factor from sigma form to the network's latents: a = 1 / sqrt(1 + s^2), or 1 for flows."""
    if family == "rectified_flow":
        return torch.ones_like(sigma)
    return 1 / (1 + sigma**2).sqrt()


def vp_to_flow_sigma(sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The flow level with the same signal-to-noise ratio: s / (1 + s)."""
    return sigma / (1 + sigma)


def flow_to_vp_sigma(sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Inverse of `vp_to_flow_sigma`; infinite at 1."""
    return sigma / (1 - sigma)


def timestep_sigmas(
    timesteps: Tensor, family: Family, *, alphas_cumprod: Tensor | None = None
) -> Float[Tensor, " node"]:
    """Noise levels of Stable Diffusion's timesteps, matched by signal-to-noise for flows.

    Args:
        timesteps: integer indices 0..999, 0 the least noisy.
        family: of the model that will be asked.
        alphas_cumprod: the schedule; Stable Diffusion's by default.
    """
    table = make_alphas_cumprod() if alphas_cumprod is None else alphas_cumprod
    sigmas = alphas_to_sigmas(table[timesteps])
    return vp_to_flow_sigma(sigmas) if family == "rectified_flow" else sigmas


def interpolate_log(start: float, end: float, step: float, total: float) -> float:
    """Value on the straight line between two positive numbers in log space (learning rates)."""
    t = min(max(step / total, 0.0), 1.0)
    return math.exp((1 - t) * math.log(start) + t * math.log(end))
