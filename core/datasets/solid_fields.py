"""Contains signed distances of simple solids and their blending; negative inside.

Values are exact on the surface and at most the true distance away from it (for ellipsoids about),
so that they can be cut, blended and thickened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Point = Sequence[float]


def round_cone(
    points: Float[Tensor, "point 3"],
    start: Point,
    end: Point,
    start_radius: float,
    end_radius: float,
) -> Float[Tensor, " point"]:
    """Distance of a capsule whose radius runs evenly from one end to the other."""
    first = points.new_tensor(list(start))
    axis = points.new_tensor(list(end)) - first
    offset = points - first
    along = ((offset @ axis) / axis.square().sum().clamp(min=1e-12)).clamp(0, 1)
    radius = start_radius + along * (end_radius - start_radius)
    return (offset - along[:, None] * axis).norm(dim=1) - radius


def ellipsoid(
    points: Float[Tensor, "point 3"], centre: Point, half_axes: Point
) -> Float[Tensor, " point"]:
    """About the distance of an ellipsoid: exact on it, too small in magnitude far away."""
    axes = points.new_tensor(list(half_axes))
    offset = points - points.new_tensor(list(centre))
    reach = (offset / axes).norm(dim=1)
    slope = (offset / axes.square()).norm(dim=1)
    away = reach * (reach - 1) / slope.clamp(min=1e-9)
    return torch.where(slope < 1e-6, -axes.min(), away)


def flattened(
    points: Float[Tensor, "point 3"], z_scale: float, z_centre: float = 0.0
) -> Float[Tensor, "point 3"]:
    """Points at which a round solid looks flattened along Z; scale its distance by ``z_scale``."""
    scale = points.new_tensor([1.0, 1.0, 1 / z_scale])
    centre = points.new_tensor([0.0, 0.0, z_centre])
    return (points - centre) * scale + centre


def union(distances: Sequence[Float[Tensor, " point"]], blend: float = 0.0) -> Tensor:
    """Distance of several solids together, their seams rounded over a width of ``blend``."""
    joined = distances[0]
    for distance in distances[1:]:
        if blend > 0:
            overlap = (blend - (joined - distance).abs()).clamp(min=0) / blend
            joined = torch.minimum(joined, distance) - overlap.square() * blend / 4
        else:
            joined = torch.minimum(joined, distance)
    return joined


def cut(
    distance: Float[Tensor, " point"], *removed: Float[Tensor, " point"]
) -> Float[Tensor, " point"]:
    """Distance of a solid without what lies inside the others."""
    for other in removed:
        distance = torch.maximum(distance, -other)
    return distance


def above(points: Float[Tensor, "point 3"], height: float) -> Float[Tensor, " point"]:
    """Distance of the half-space above a height."""
    return height - points[:, 1]


def below(points: Float[Tensor, "point 3"], height: float) -> Float[Tensor, " point"]:
    """Distance of the half-space below a height."""
    return points[:, 1] - height


def hollow_cone(
    points: Float[Tensor, "point 3"],
    top: float,
    hem: float,
    top_radius: float,
    hem_radius: float,
    thickness: float,
) -> Float[Tensor, " point"]:
    """Distance of a shell round the Y axis between two heights, open above and below."""
    share = ((top - points[:, 1]) / (top - hem)).clamp(0, 1)
    radius = top_radius + share * (hem_radius - top_radius)
    slope = (hem_radius - top_radius) / (top - hem)
    off = (points[:, [0, 2]].norm(dim=1) - radius) / math.sqrt(1 + slope**2)
    shell = (off + thickness / 2).abs() - thickness / 2
    return torch.maximum(torch.maximum(shell, below(points, top)), above(points, hem))


def left_half(points: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
    """Points mirrored to the subject's left (+X): what is said of them holds for both sides."""
    return torch.cat([points[:, :1].abs(), points[:, 1:]], dim=1)
