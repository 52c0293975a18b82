"""Contains the closest points on a mesh, to carry attributes from one mesh to another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CHUNK = 50_000  # points per batch, which bounds the memory


@dataclass(frozen=True)
class SurfacePoints:
    """Points on a mesh.

    Attributes:
        face_index: face that the point lies on.
        barycentric: weights of the three corners of that face, 0..1, of sum 1.
        distance: from the query to the point.
    """

    face_index: Int64[Tensor, " point"]
    barycentric: Float[Tensor, "point 3"]
    distance: Float[Tensor, " point"]

    def interpolate(
        self, values: Float[Tensor, "vertex channel"], faces: Int64[Tensor, "face 3"]
    ) -> Float[Tensor, "point channel"]:
        """Values of the vertices at the points."""
        corners = values[faces[self.face_index]]  # [P, 3, C]
        return (corners * self.barycentric.to(values)[..., None]).sum(dim=1)


def closest_surface_points(
    points: Float[Tensor, "point 3"],
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    *,
    num_candidates: int = 16,
) -> SurfacePoints:
    """For each point the closest one on the faces whose centres are nearest to it.

    Exact unless large and small faces mix so that more than ``num_candidates`` centres lie nearer
    than that of the face wanted. Not differentiable; a k-d tree on the CPU does the search.
    """
    from scipy.spatial import cKDTree

    if not len(faces):
        raise ValueError("A mesh without faces has no closest points; give a mesh with a surface.")
    vertices, points = vertices.detach(), points.detach()
    centers = vertices[faces].mean(dim=1)
    tree = cKDTree(centers.cpu().numpy(), balanced_tree=False)
    count = min(num_candidates, len(faces))
    results = []
    for chunk in points.split(CHUNK):
        _, nearest = tree.query(chunk.cpu().numpy(), k=count, workers=-1)
        candidates = torch.as_tensor(nearest, device=faces.device).reshape(len(chunk), count)
        barycentric, distance = closest_on_triangles(chunk[:, None], vertices[faces[candidates]])
        best = distance.argmin(dim=1, keepdim=True)
        results.append(
            (
                candidates.gather(1, best)[:, 0],
                barycentric.gather(1, best[..., None].expand(-1, 1, 3))[:, 0],
                distance.gather(1, best)[:, 0],
            )
        )
    index, barycentric, distance = (torch.cat(parts) for parts in zip(*results, strict=True))
    return SurfacePoints(index, barycentric, distance)


def closest_on_triangles(
    points: Float[Tensor, "*#batch 3"], corners: Float[Tensor, "*#batch 3 3"]
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
    """Barycentric weights of the closest point of a triangle, and the distance to it.

    The foot of the perpendicular where it lies inside, else the best point of the three sides.
    """
    a, b, c = corners.unbind(dim=-2)
    edges = torch.stack([b - a, c - b, a - c], dim=-2)
    from_corners = points[..., None, :] - corners
    squared = edges.square().sum(dim=-1).clamp(min=1e-30)
    along = ((from_corners * edges).sum(dim=-1) / squared).clamp(0, 1)  # [..., side]
    to_sides = (from_corners - along[..., None] * edges).norm(dim=-1)
    side = to_sides.argmin(dim=-1, keepdim=True)
    fraction = along.gather(-1, side)
    weights = torch.zeros_like(along).scatter(-1, side, 1 - fraction)
    weights = weights.scatter_add(-1, (side + 1) % 3, fraction)
    distance = to_sides.gather(-1, side)[..., 0]

    normal = torch.linalg.cross(b - a, c - a)
    area = normal.square().sum(dim=-1).clamp(min=1e-30)
    # The weight of a corner is the share of the triangle that the point spans with the other side.
    spanned = torch.linalg.cross(edges, from_corners)
    opposite = (spanned * normal[..., None, :]).sum(dim=-1) / area[..., None]  # of sides ab, bc, ca
    inner = opposite.roll(-1, dims=-1)  # side bc belongs to corner a
    is_inside = (inner >= 0).all(dim=-1) & (normal.square().sum(dim=-1) > 1e-30)
    height = (from_corners[..., 0, :] * normal).sum(dim=-1).abs() / area.sqrt()
    weights = torch.where(is_inside[..., None], inner, weights)
    return weights, torch.where(is_inside, height, distance)
