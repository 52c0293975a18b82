"""Contains the comparison of a character in parts with the true one: shapes, classes, overlap.

Lengths are world units, parts are compared in place. Shells count as the volume of their fabric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..geometry.closest import closest_surface_points
from ..geometry.collision import points_inside
from ..mesh import Mesh
from .mesh_metrics import sample_surface, volume_iou


@dataclass(frozen=True)
class PartScores:
    """How near a part is to the true one.

    Attributes:
        iou: overlap of the solids, 0..1.
        distance: of the surfaces, mean of both directions; NaN for a part that is missing.
        f_score: at the threshold, 0..1.
    """

    iou: float
    distance: float
    f_score: float


def score_part(
    part: Mesh,
    truth: Mesh,
    *,
    tau: float,
    num_points: int = 10_000,
    voxels: int = 64,
    seed: int = 0,
) -> PartScores:
    """Compare a part with the true one; a part without a surface scores nothing.

    Args:
        part: closed mesh.
        truth: closed mesh that has a surface.
        tau: threshold of the F-score.
        num_points: drawn from each surface.
        voxels: of the overlap along each axis of the box round both.
        seed: of the points.

    Raises:
        ValueError: the true part has no surface.
    """
    if truth.is_empty:
        raise ValueError(f"The true part '{truth.name}' has no surface to compare with.")
    if part.is_empty:
        return PartScores(0.0, math.nan, 0.0)
    there = _distances(part, truth, num_points, seed)
    back = _distances(truth, part, num_points, seed + 1)
    precision, recall = (float((away <= tau).double().mean()) for away in (there, back))
    return PartScores(
        iou=volume_iou(part, truth, resolution=voxels),
        distance=float(there.mean() + back.mean()) / 2,
        f_score=2 * precision * recall / max(precision + recall, 1e-12),
    )


def _distances(mesh: Mesh, other: Mesh, num_points: int, seed: int) -> Float[Tensor, " point"]:
    """From points of one surface to the other surface."""
    points = sample_surface(mesh, num_points, seed=seed).points
    return closest_surface_points(points, other.vertices, other.faces).distance


@torch.no_grad()
def nearest_part(
    parts: Sequence[Mesh], points: Float[Tensor, "point 3"]
) -> Int64[Tensor, " point"]:
    """Number of the part whose surface is nearest to each point; empty parts are near to none.

    Raises:
        ValueError: all parts are empty.
    """
    if all(mesh.is_empty for mesh in parts):
        raise ValueError("No part has a surface; give at least one with triangles.")
    distances = [
        torch.full_like(points[:, 0], math.inf)
        if mesh.is_empty
        else closest_surface_points(points, mesh.vertices, mesh.faces).distance.to(points)
        for mesh in parts
    ]
    return torch.stack(distances).argmin(dim=0)


def share_inside(outer: Mesh, inner: Mesh) -> float:
    """Share of a layer's vertices that lie inside another layer; 0 where one has none."""
    inside = points_inside(outer.vertices, inner.vertices, inner.faces)
    return float(inside.double().mean()) if len(inside) else 0.0
