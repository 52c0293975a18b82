"""Contains mesh metrics: Chamfer distance, F-score, normal error and volume overlap.

The papers leave thresholds, normalisation and squaring open, so every convention is a named
argument. Our own tables use the reference's unit cube (longest side 1), the sum of both mean
distances, unsquared, no alignment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..camera import ViewRig
from ..geometry.normals import face_normals
from ..geometry.voxelize import voxelize_solid
from ..mesh import Mesh

Reduction = Literal["sum", "mean"]
VISIBLE_ALPHA = 0.5


@dataclass(frozen=True)
class SurfaceSamples:
    """Points drawn uniformly by area from a surface.

    Attributes:
        points: positions in the mesh's space.
        normals: unit normals of the faces they lie on.
        face_index: those faces.
    """

    points: Float[Tensor, "point 3"]
    normals: Float[Tensor, "point 3"]
    face_index: Int64[Tensor, " point"]


def sample_surface(mesh: Mesh, num_points: int, *, seed: int = 0) -> SurfaceSamples:
    """Draw points uniformly by area; the same seed gives the same points.

    The areas are sampled in strata, which spreads the points more evenly than independent draws.
    """
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}.")
    doubled_areas = face_normals(mesh.vertices, mesh.faces, unit=False).norm(dim=-1).double()
    if mesh.is_empty or float(doubled_areas.sum()) <= 0:
        raise ValueError("The mesh has no surface to sample: no face has any area.")
    generator = torch.Generator().manual_seed(seed)
    jitter = torch.rand(num_points, generator=generator, dtype=torch.float64)
    u, v = torch.rand(2, num_points, generator=generator, dtype=torch.float64).to(mesh.vertices)
    cumulative = doubled_areas.cumsum(0)
    position = (torch.arange(num_points) + jitter).to(cumulative) / num_points * cumulative[-1]
    face_index = torch.searchsorted(cumulative, position, right=True).clamp(max=mesh.num_faces - 1)
    a, b, c = mesh.vertices[mesh.faces[face_index]].unbind(dim=1)
    root = u.sqrt()[:, None]
    points = (1 - root) * a + root * (1 - v[:, None]) * b + root * v[:, None] * c
    normals = face_normals(mesh.vertices, mesh.faces[face_index])
    return SurfaceSamples(points, normals, face_index)


def to_unit_cube(mesh: Mesh, reference: Mesh) -> Mesh:
    """Copy moved and scaled as it takes to bring ``reference`` into the cube [-0.5, 0.5]^3.

    The longest side of the reference becomes 1; the mesh keeps its pose relative to it.
    """
    low, high = reference.bounds()
    side = float((high - low).max())
    if side <= 0:
        raise ValueError("The reference mesh has no extent.")
    return mesh.with_vertices((mesh.vertices - (low + high) / 2) / side)


def chamfer_distance(
    points: Float[Tensor, "point 3"],
    reference: Float[Tensor, "reference_point 3"],
    *,
    squared: bool = False,
    reduction: Reduction = "sum",
) -> float:
    """Mean nearest-neighbour distance from each set to the other, summed or averaged.

    Args:
        points: samples of the surface to judge.
        reference: samples of the true surface.
        squared: average squared distances instead.
        reduction: ``sum`` of both directions, or their ``mean``.
    """
    there, back = _nearest_distances(points, reference), _nearest_distances(reference, points)
    if squared:
        there, back = there**2, back**2
    total = float(there.mean() + back.mean())
    return {"sum": total, "mean": total / 2}[reduction]


def f_score(
    points: Float[Tensor, "point 3"], reference: Float[Tensor, "reference_point 3"], tau: float
) -> float:
    """Harmonic mean of precision and recall: shares of points within ``tau`` of the other set.

    Reference: Knapitsch et al. 2017 (Tanks and Temples), Sec. 4.
    """
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}.")
    precision = float((_nearest_distances(points, reference) <= tau).double().mean())
    recall = float((_nearest_distances(reference, points) <= tau).double().mean())
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def normal_map_error_deg(
    normals: Float[Tensor, "view height width 3"],
    reference: Float[Tensor, "view height width 3"],
    mask: Float[Tensor, "view height width"],
) -> float:
    """Mean angle in degrees between two maps of unit normals where ``mask`` exceeds one half."""
    inside = mask > VISIBLE_ALPHA
    if not bool(inside.any()):
        raise ValueError("No pixel is covered in both images: the normals cannot be compared.")
    cosine = (normals[inside].double() * reference[inside].double()).sum(dim=-1).clamp(-1, 1)
    return float(torch.rad2deg(torch.acos(cosine)).mean())


def normal_error_deg(mesh: Mesh, reference: Mesh, rig: ViewRig, *, image_px: int = 512) -> float:
    """Mean angle between the normals of two meshes on the surface that the rig's views see.

    Pixels count where both meshes cover them; silhouettes are judged by `silhouette_iou`. Every
    normal is turned to the viewer: the winding of faces does not count.
    """
    from ..rendering.facing_normals import render_facing

    drawn = [
        render_facing(item, rig, width=image_px, height=image_px, antialias=False)
        for item in (mesh, reference)
    ]
    both = torch.minimum(drawn[0].alpha, drawn[1].alpha)
    return normal_map_error_deg(drawn[0].normals_world, drawn[1].normals_world, both)


def volume_iou(mesh: Mesh, reference: Mesh, *, resolution: int = 64) -> float:
    """Intersection over union of the solids, on voxels over the box that holds both.

    Both surfaces should be closed (`geometry.voxelize`).
    """
    lows, highs = zip(mesh.bounds(), reference.bounds(), strict=True)
    low, high = torch.minimum(*lows), torch.maximum(*highs)
    margin = 0.01 * (high - low).max()
    solids = [
        voxelize_solid(item, low - margin, high + margin, resolution) for item in (mesh, reference)
    ]
    union = int((solids[0] | solids[1]).sum())
    return int((solids[0] & solids[1]).sum()) / union if union else 1.0


def _nearest_distances(points: Tensor, reference: Tensor) -> Tensor:
    """Distance of each point to the closest reference point."""
    from scipy.spatial import cKDTree

    if not len(points) or not len(reference):
        raise ValueError(
            f"Both point sets must have points, got {len(points)} and {len(reference)}."
        )
    tree = cKDTree(reference.detach().cpu().double().numpy(), balanced_tree=False)
    distances, _ = tree.query(points.detach().cpu().double().numpy(), workers=-1)
    return torch.from_numpy(distances)
