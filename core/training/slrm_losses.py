"""Contains the losses of S-LRM: at points in space, on pictures of a density and of a mesh.

Reference: He et al. 2025, "StdGEN", Eq. 4, 5, 9 and 11. LPIPS, which Eq. 5 weighs with 2, needs
weights of a network that this pack does not bring; its place is taken by the difference of image
gradients at several sizes, which also asks for sharp edges in the right places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .character_dataset import NO_LABEL, LevelTruth, TrainingCharacter

Losses = Mapping[str, Tensor]
GRADIENT_SCALES = 3
LEAST_PROBABILITY = 1e-5


@dataclass(frozen=True)
class SlrmLossParams:
    """Weights; those of pictures are published (Eq. 5 and 11).

    Attributes:
        perceptual: of what stands for LPIPS.
        mask: of the squared error of coverage.
        semantic: of the cross entropy of classes.
        normal: of 1 - cosine of the normals.
        depth: of the absolute error of the depth.
        deviation: of FlexiCubes' regulariser.
        sdf: of the error of distances at points, in units of ``truncation``.
        color: of the squared error of colours at points near the surface.
        rest: of squared deformations and cell weights at points, which keeps them near zero.
        truncation: distances beyond this count as this, world units.
    """

    perceptual: float = 2.0
    mask: float = 1.0
    semantic: float = 1.0
    normal: float = 0.2
    depth: float = 0.5
    deviation: float = 0.5
    sdf: float = 1.0
    color: float = 2.0
    rest: float = 1e-3
    truncation: float = 0.1

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0 or not self.truncation > 0:
            raise ValueError(
                f"Weights must not be negative and truncation positive, got {vars(self)}."
            )


def point_losses(
    sdf: Float[Tensor, " point"],
    logits: Float[Tensor, "point label"],
    rgb: Float[Tensor, "point 3"],
    truth: TrainingCharacter,
    params: SlrmLossParams,
) -> Losses:
    """Errors at points whose distance, class and colour are known; not in the paper.

    Classes count inside and near the surface, colours near the surface.
    """
    wanted = truth.sdf.to(sdf).clamp(-params.truncation, params.truncation)
    near = (truth.sdf.abs() < 0.3 * params.truncation).to(sdf)
    labelled = (truth.sdf < 0.3 * params.truncation).to(sdf)
    off = (sdf - wanted).abs().mean() / params.truncation
    entropy = torch.nn.functional.cross_entropy(
        logits, truth.labels.to(logits.device), reduction="none"
    )
    color_off = (rgb - truth.colors.to(rgb)).square().mean(dim=-1)
    semantic, color = _mean_over(entropy, labelled), _mean_over(color_off, near)
    total = params.sdf * off + params.semantic * semantic + params.color * color
    return {"total": total, "sdf": off, "semantic": semantic, "color": color}


def picture_losses(
    rgb: Float[Tensor, "view height width 3"],
    alpha: Float[Tensor, "view height width"],
    semantics: Float[Tensor, "view height width label"],
    truth: LevelTruth,
    params: SlrmLossParams,
) -> Losses:
    """Eq. 5: errors of colour, edges, coverage and classes of rendered pictures on white.

    Args:
        rgb: rendered over white.
        alpha: rendered coverage.
        semantics: class probabilities of what is seen, of sum at most alpha (Eq. 4).
        truth: the level's pictures.
        params: weights.
    """
    goal = truth.rgb.to(rgb)
    color = (rgb - goal).square().mean()
    perceptual = edge_difference(rgb, goal)
    mask = (alpha - truth.alpha.to(alpha)).square().mean()
    semantic = semantic_entropy(semantics, truth)
    total = color + params.perceptual * perceptual + params.mask * mask + params.semantic * semantic
    return {"total": total, "color": color, "perceptual": perceptual, "mask": mask,
            "semantic": semantic}  # fmt: skip


def surface_losses(
    normals_world: Float[Tensor, "view height width 3"],
    depth: Float[Tensor, "view height width"],
    deviation: Float[Tensor, " crossing"],
    truth: LevelTruth,
    params: SlrmLossParams,
) -> Losses:
    """What Eq. 11 adds for a mesh: normals and depth inside the true mask, and L_dev."""
    inside = (truth.labels != NO_LABEL).to(depth)
    cosine = (normals_world * truth.normals_world.to(normals_world)).sum(dim=-1)
    normal = _mean_over(1 - cosine, inside)
    depth_off = _mean_over((depth - truth.depth.to(depth)).abs(), inside)
    regular = deviation.mean() if len(deviation) else depth.sum() * 0
    total = params.normal * normal + params.depth * depth_off + params.deviation * regular
    return {"total": total, "normal": normal, "depth": depth_off, "deviation": regular}


def semantic_entropy(
    semantics: Float[Tensor, "view height width label"], truth: LevelTruth
) -> Float[Tensor, ""]:
    """Cross entropy of rendered classes on the pixels that have one (Eq. 4)."""
    labels = truth.labels.to(semantics.device)
    inside = labels != NO_LABEL
    chosen = semantics.gather(-1, torch.where(inside, labels, 0)[..., None])[..., 0]
    return _mean_over(-chosen.clamp(min=LEAST_PROBABILITY).log(), inside.to(semantics))


def edge_difference(
    pictures: Float[Tensor, "view height width 3"], goal: Float[Tensor, "view height width 3"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of horizontal and vertical changes at several sizes."""
    first, second = (item.permute(0, 3, 1, 2) for item in (pictures, goal))
    total, count = pictures.new_zeros(()), 0
    for _ in range(GRADIENT_SCALES):
        if min(first.shape[-2:]) < 2:
            break
        off = first - second
        total = total + off.diff(dim=-1).abs().mean() + off.diff(dim=-2).abs().mean()
        count += 1
        first, second = (torch.nn.functional.avg_pool2d(item, 2) for item in (first, second))
    return total / max(count, 1)


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
