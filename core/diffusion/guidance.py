"""Contains guidance: classifier-free and Perp-Neg, and the weights of view-dependent prompts.

Guidance is linear in the prediction, so the same formulas hold for predictions of noise, velocity
or clean latents; here they act on clean latents (x0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_shape
from .model import Conditioning, Denoiser, join_conditionings

MIN_SQUARED_NORM = 1e-6

PerpNegLaw = Literal["ge3d", "threestudio"]


def guide(
    unconditional: Float[Tensor, " batch *latent"],
    conditional: Float[Tensor, " batch *latent"],
    scale: float,
) -> Float[Tensor, " batch *latent"]:
    """Classifier-free guidance: unconditional + scale * (conditional - unconditional).

    Reference: GE3D, Eq. 15.
    """
    return unconditional + scale * (conditional - unconditional)


def perpendicular_part(
    difference: Float[Tensor, " batch *latent"], direction: Float[Tensor, " batch *latent"]
) -> Float[Tensor, " batch *latent"]:
    """Part of each entry's ``difference`` that is orthogonal to its ``direction``.

    The inner product runs over the whole entry; a vanishing direction leaves the difference alone.
    """
    flat, along = difference.flatten(1), direction.flatten(1)
    squared = (along * along).sum(dim=1, keepdim=True).clamp(min=MIN_SQUARED_NORM)
    share = (flat * along).sum(dim=1, keepdim=True) / squared
    return (flat - share * along).reshape(difference.shape)


def guide_perp_neg(
    unconditional: Float[Tensor, " batch *latent"],
    positive: Float[Tensor, " batch *latent"],
    negatives: Float[Tensor, " negative batch *latent"],
    weights: Float[Tensor, "batch negative"],
    scale: float,
) -> Float[Tensor, " batch *latent"]:
    """Guidance towards one prompt and away from others, without weakening the first.

    Args:
        unconditional: prediction for the empty (or negative) prompt.
        positive: prediction for the prompt.
        negatives: predictions for the prompts to avoid.
        weights: of each negative in each entry, usually <= 0.
        scale: guidance scale of the whole.

    Reference: Armandpour et al. 2023; GE3D, Eq. 17.
    """
    towards = positive - unconditional
    total = towards
    for negative, weight in zip(negatives, weights.unbind(dim=1), strict=True):
        away = perpendicular_part(negative - unconditional, towards)
        total = total + weight.to(away).reshape(-1, *[1] * (away.ndim - 1)) * away
    return unconditional + scale * total


@dataclass(frozen=True)
class GuidedPrompt:
    """A prompt with what it is contrasted to.

    Attributes:
        positive: what is wanted, one entry or one per latent.
        unconditional: the empty or negative prompt; None switches guidance off.
        scale: classifier-free guidance scale.
        negatives: Perp-Neg prompts.
        negative_weights: weights of the negatives per latent, needed with ``negatives``.
        negligible_weight: negatives weaker than this are not evaluated.
    """

    positive: Conditioning
    unconditional: Conditioning | None = None
    scale: float = 1.0
    negatives: tuple[Conditioning, ...] = ()
    negative_weights: Float[Tensor, "batch negative"] | None = None
    negligible_weight: float = 1e-4

    def __post_init__(self) -> None:
        if self.negatives and self.unconditional is None:
            raise ValueError("Perp-Neg negatives need an unconditional prompt to differ from.")
        if bool(self.negatives) != (self.negative_weights is not None):
            raise ValueError("Give negatives and negative_weights together, or neither.")
        if self.negative_weights is not None:
            require_shape("negative_weights", self.negative_weights, None, len(self.negatives))


def guided_denoise(
    denoise: Denoiser,
    latents: Float[Tensor, " batch *latent"],
    sigma: Float[Tensor, " batch"],
    prompt: GuidedPrompt,
) -> Float[Tensor, " batch *latent"]:
    """Clean latents under guidance; all text branches share one call of the model.

    Per entry this costs 1 evaluation without guidance, 2 with it, and 1 more for each negative
    whose weight in that entry is not negligible.
    """
    batch = latents.shape[0]
    branches = [prompt.positive.expanded(batch)]
    rows = [torch.arange(batch)]
    if prompt.unconditional is not None:
        branches.append(prompt.unconditional.expanded(batch))
        rows.append(torch.arange(batch))
    kept = _kept_negatives(prompt)
    for negative, asked in zip(prompt.negatives, kept, strict=True):
        if len(asked):
            branches.append(negative.expanded(batch).select(asked))
            rows.append(asked)
    entries = torch.cat(rows).to(latents.device)
    predictions = denoise(latents[entries], sigma[entries], join_conditionings(branches))
    parts = list(predictions.split([len(part) for part in rows]))
    if prompt.unconditional is None:
        return parts[0]
    if prompt.negative_weights is None or len(parts) == 2:
        return guide(parts[1], parts[0], prompt.scale)
    # An entry that was not asked has weight 0; what stands in its place does not matter.
    negatives = torch.zeros(len(kept), *latents.shape).to(latents)
    weights = torch.zeros_like(prompt.negative_weights)
    answers = iter(parts[2:])
    for index, asked in enumerate(kept):
        if len(asked):
            negatives[index, asked.to(latents.device)] = next(answers)
            weights[asked, index] = prompt.negative_weights[asked, index]
    return guide_perp_neg(parts[1], parts[0], negatives, weights, prompt.scale)


def _kept_negatives(prompt: GuidedPrompt) -> list[Tensor]:
    """Entries of the batch for which each negative has to be asked."""
    if prompt.negative_weights is None:
        return []
    kept = prompt.negative_weights.abs() >= prompt.negligible_weight
    return [column.nonzero()[:, 0].cpu() for column in kept.unbind(dim=1)]


def _view_share(azimuths_deg: Tensor) -> tuple[Tensor, Tensor]:
    # Whether the camera is in the front half, and r: 1 at its pole (front or side), 0 at 90
    # (front half) or 180 degrees (back half).
    turned = (azimuths_deg + 180) % 360 - 180
    away = turned.abs() / 90
    front = away < 1
    return front, torch.where(front, 1 - away, 2 - away)


def view_prompt_mix(azimuths_deg: Float[Tensor, " view"]) -> Float[Tensor, "view prompt=3"]:
    """Shares of the front, side and back prompts in the positive embedding.

    Linear in the azimuth: front at 0, side at +-90, back at 180 degrees.

    Reference: GE3D's released code.
    """
    front, r = _view_share(azimuths_deg)
    zero = torch.zeros_like(r)
    ahead = torch.stack([r, 1 - r, zero], dim=1)
    behind = torch.stack([zero, r, 1 - r], dim=1)
    return torch.where(front[:, None], ahead, behind)


def view_negative_weights(
    azimuths_deg: Float[Tensor, " view"], law: PerpNegLaw = "ge3d"
) -> Float[Tensor, "view prompt=3"]:
    """Perp-Neg weights (<= 0) of the front, side and back prompts as negatives.

    Both laws keep the front away from side and back views, which prevents a second face.

    Args:
        azimuths_deg: camera azimuths; 0 sees the front.
        law: "ge3d" (the same as LucidDreamer: w -2, decays 2 and 10) or "threestudio".
    """
    front, r = _view_share(azimuths_deg)
    zero = torch.zeros_like(r)
    if law == "ge3d":
        ahead_front = torch.where(r > 0.8, zero, -2 * torch.exp(-2 * r))
        ahead_side = torch.where(r < 0.2, zero, -2 * torch.exp(-10 * (1 - r)))
        behind_side = torch.where(r > 0.8, zero, -torch.exp(-10 * r))
        behind_front = torch.full_like(r, -2.0)
    elif law == "threestudio":
        ahead_front = -(4 * torch.exp(-0.5 * r) - 2.426)
        ahead_side = -(4 * torch.exp(-0.5 * (1 - r)) - 2.426)
        behind_side = -(torch.exp(-0.5 * r) - 0.606)
        behind_front = -(torch.exp(-0.5 * r) + 0.967)
    else:
        raise ValueError(f"Unknown Perp-Neg law {law!r}; choose 'ge3d' or 'threestudio'.")
    return torch.where(
        front[:, None],
        torch.stack([ahead_front, ahead_side, zero], dim=1),
        torch.stack([behind_front, behind_side, zero], dim=1),
    )
