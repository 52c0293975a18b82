"""Contains the comparison of a reconstructed shape with the true one, by a stated convention.

GSV3D and its rivals print Chamfer distance (CD), volume overlap (IoU) and F-score and leave open
how shapes are scaled and aligned, whether distances are squared, and the threshold. Here each of
these is a setting, and `ShapeConvention.text` states it beside the numbers.

Reference: Tao et al. 2025, "GSV3D", Sec. 4: 4,096 points of the true surface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..geometry.point_alignment import box_placement, icp_placement, place
from ..mesh import Mesh
from .mesh_metrics import (
    Reduction,
    chamfer_distance,
    f_score,
    sample_surface,
    to_unit_cube,
    volume_iou,
)

Normalization = Literal["unit_cube", "unit_sphere", "none"]
Alignment = Literal["none", "box", "icp", "icp_rigid"]
ALIGNMENT_POINTS = 4096


@dataclass(frozen=True)
class ShapeConvention:
    """What the papers leave open.

    Attributes:
        normalize: the true shape is brought into the cube with sides 1 or the ball with radius 1,
            and the other one moves along; or nothing is scaled.
        align: how the other shape is placed first: not at all, by its box (middle and longest
            side), or by closest points after that, with or without scale.
        squared: mean squared distances in CD.
        reduction: CD is the sum of both directions, or their mean.
        taus: thresholds of the F-score, in normalised units.
        num_points: drawn from each surface.
        voxels: of the IoU, along each axis of the box round both.
        seed: of the points.
    """

    normalize: Normalization = "unit_cube"
    align: Alignment = "none"
    squared: bool = False
    reduction: Reduction = "sum"
    taus: tuple[float, ...] = (0.01, 0.02, 0.05)
    num_points: int = 4096
    voxels: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("normalize", Normalization), ("align", Alignment),
                              ("reduction", Reduction)):  # fmt: skip
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))}, got "
                    f"{getattr(self, name)!r}."
                )
        if self.num_points < 1 or self.voxels < 1 or not all(tau > 0 for tau in self.taus):
            raise ValueError(f"The numbers of a convention must be positive, got {self}.")

    def text(self) -> str:
        """The convention in words, for the head of a table."""
        scaled = {"unit_cube": "true shape in the unit cube", "none": "no scaling",
                  "unit_sphere": "true shape in the unit ball"}[self.normalize]  # fmt: skip
        placed = {"none": "no alignment", "box": "aligned by boxes", "icp": "aligned by ICP with "
                  "scale", "icp_rigid": "aligned by rigid ICP"}[self.align]  # fmt: skip
        distance = "squared distances" if self.squared else "distances"
        return (
            f"{scaled}, {placed}; CD: {self.reduction} of both mean {distance}, "
            f"{self.num_points} points; F at {', '.join(f'{tau:g}' for tau in self.taus)}; IoU of "
            f"solids on {self.voxels}^3 voxels"
        )


@dataclass(frozen=True)
class ShapeScores:
    """How near a shape is to the true one.

    Attributes:
        chamfer: distance, 0 is best; NaN where there is no shape.
        iou: overlap of the solids, 0..1.
        f_scores: by threshold, 0..1.
    """

    chamfer: float
    iou: float
    f_scores: dict[float, float]

    def columns(self) -> dict[str, float]:
        """Numbers by name, for a table."""
        named = {f"F {tau:g}": value for tau, value in self.f_scores.items()}
        return {"CD": self.chamfer, "IoU": self.iou, **named}

    @classmethod
    def of_nothing(cls, convention: ShapeConvention) -> ShapeScores:
        """Scores of a reconstruction without a surface: a miss."""
        return cls(math.nan, 0.0, dict.fromkeys(convention.taus, 0.0))


def score_shape(mesh: Mesh, truth: Mesh, convention: ShapeConvention | None = None) -> ShapeScores:
    """Compare a mesh with the true one.

    Raises:
        ValueError: one of them has no surface.
    """
    rules = convention or ShapeConvention()
    mesh = normalized_by(mesh, truth, rules.normalize)
    truth = normalized_by(truth, truth, rules.normalize)
    mesh = aligned_to(mesh, truth, rules.align, seed=rules.seed)
    points = sample_surface(mesh, rules.num_points, seed=rules.seed).points
    true_points = sample_surface(truth, rules.num_points, seed=rules.seed + 1).points
    return ShapeScores(
        chamfer=chamfer_distance(
            points, true_points, squared=rules.squared, reduction=rules.reduction
        ),
        iou=volume_iou(mesh, truth, resolution=rules.voxels),
        f_scores={tau: f_score(points, true_points, tau) for tau in rules.taus},
    )


def normalized_by(mesh: Mesh, reference: Mesh, how: Normalization) -> Mesh:
    """The mesh, moved and scaled as it takes to normalise ``reference``."""
    if how == "none":
        return mesh
    if how == "unit_cube":
        return to_unit_cube(mesh, reference)
    low, high = reference.bounds()
    middle = (low + high) / 2
    radius = (reference.vertices - middle).norm(dim=1).max()
    if not float(radius) > 0:
        raise ValueError("The reference mesh has no extent.")
    return mesh.with_vertices((mesh.vertices - middle) / radius)


@torch.no_grad()
def aligned_to(mesh: Mesh, reference: Mesh, how: Alignment, *, seed: int = 0) -> Mesh:
    """The mesh, placed onto the reference."""
    if how == "none":
        return mesh
    if how == "box":
        return mesh.with_vertices(
            place(mesh.vertices, box_placement(mesh.vertices, reference.vertices))
        )
    if how == "icp":
        mesh = aligned_to(mesh, reference, "box")
    points = sample_surface(mesh, ALIGNMENT_POINTS, seed=seed).points
    goal = sample_surface(reference, ALIGNMENT_POINTS, seed=seed + 1).points
    placement = icp_placement(points, goal, with_scale=how == "icp")
    return mesh.with_vertices(place(mesh.vertices, placement))
