"""Contains how deep an outer layer of a character lies in an inner one, and a loss against it.

Symbols: v_i an outer vertex, v_j the inner vertex nearest to it, n_j the unit normal there. The
depth of v_i is max((v_j - v_i) . n_j, 0): zero on and above the inner surface.

Reference: He et al. 2025, "StdGEN", Eq. 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .closest import closest_surface_points
from .normals import vertex_normals

CollisionForm = Literal["paper", "reference"]
"""Mean over all outer vertices (Eq. 13), or over those near the inner one (released program)."""

REFERENCE_REACH = 0.05
"""Distance in world units within which the released program counts an outer vertex."""


@dataclass(frozen=True)
class InnerSurface:
    """A fixed mesh that can be asked for its nearest vertex.

    Attributes:
        vertices: positions in world units.
        normals: unit, area-weighted, outward.
        tree: k-d tree of the vertices, on the CPU.
    """

    vertices: Float[Tensor, "vertex 3"]
    normals: Float[Tensor, "vertex 3"]
    tree: Any

    def nearest(self, points: Float[Tensor, "point 3"]) -> Int64[Tensor, " point"]:
        """Number of the vertex nearest to each point."""
        index = self.tree.query(points.detach().cpu().numpy())[1]
        return torch.as_tensor(index, dtype=torch.int64, device=self.vertices.device)


def make_inner_surface(
    vertices: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"]
) -> InnerSurface:
    """Prepare a mesh; vertices without a face do not count.

    Raises:
        ValueError: the mesh has no face.
    """
    from scipy.spatial import cKDTree

    if not len(faces):
        raise ValueError("An inner layer needs faces to keep others out; got an empty mesh.")
    used = torch.unique(faces)
    places = vertices.detach()[used]
    normals = vertex_normals(vertices.detach(), faces)[used]
    return InnerSurface(places, normals, cKDTree(places.cpu().numpy(), balanced_tree=False))


def penetration_depths(
    points: Float[Tensor, "point 3"], inner: InnerSurface
) -> Float[Tensor, " point"]:
    """Depth of points below the tangent plane of the nearest inner vertex; differentiable."""
    index = inner.nearest(points)
    return ((inner.vertices[index] - points) * inner.normals[index]).sum(dim=-1).clamp(min=0)


def collision_loss(
    points: Float[Tensor, "point 3"],
    inner: InnerSurface,
    form: CollisionForm = "paper",
    *,
    reach: float = REFERENCE_REACH,
) -> Float[Tensor, ""]:
    """Mean cube of the depths (Eq. 13); zero where there is nothing to count, never NaN.

    Args:
        points: vertices of the outer layer.
        inner: the layer that they shall stay out of.
        form: which vertices the mean is taken over.
        reach: of the form "reference", in world units.
    """
    if form not in ("paper", "reference"):
        raise ValueError(f"form must be 'paper' or 'reference', got {form!r}.")
    if not len(points):
        return points.sum()
    index = inner.nearest(points)
    offset = inner.vertices[index] - points
    cubes = (offset * inner.normals[index]).sum(dim=-1).clamp(min=0) ** 3
    if form == "paper":
        return cubes.mean()
    near = (offset.detach().norm(dim=-1) < reach).to(cubes)
    return (cubes * near).sum() / near.sum().clamp(min=1)


def points_inside(
    points: Float[Tensor, "point 3"],
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    *,
    tolerance: float = 0.0,
) -> Bool[Tensor, " point"]:
    """Which points lie inside a closed mesh by more than ``tolerance``.

    Decided at the closest point of the surface by the normal interpolated there.
    """
    if not len(faces) or not len(points):
        return torch.zeros(len(points), dtype=torch.bool, device=points.device)
    closest = closest_surface_points(points, vertices, faces)
    offset = points - closest.interpolate(vertices, faces)
    normals = closest.interpolate(vertex_normals(vertices, faces), faces)
    return ((offset * normals).sum(dim=-1) < 0) & (closest.distance > tolerance)
