"""Contains reports on meshes: what one is like, and how far two differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..camera import ViewRig, make_kiss3dgen_rig
from ..evaluation.image_metrics import silhouette_iou
from ..evaluation.mesh_metrics import (
    chamfer_distance,
    f_score,
    normal_map_error_deg,
    sample_surface,
    to_unit_cube,
)
from ..geometry.edges import build_edges
from ..geometry.normals import face_normals
from ..geometry.repair import euler_characteristic, is_manifold, is_watertight, signed_volume
from ..mesh import Mesh
from ..rendering.facing_normals import render_facing

FINE_TAU, COARSE_TAU = 0.02, 0.05
"""Distances of the two F-scores, in units of the reference's longest side."""


@dataclass(frozen=True)
class MeshReport:
    """What a mesh is like.

    Watertightness and the like are those of the surface: vertices in one place count as one.
    """

    num_vertices: int
    num_faces: int
    size: tuple[float, float, float]
    surface_area: float
    volume: float
    watertight: bool
    manifold: bool
    euler_characteristic: int
    open_edges: int
    colors: str

    def text(self) -> str:
        """The report in lines for people."""
        extent = " x ".join(f"{side:.3g}" for side in self.size)
        closed = "closed (watertight)" if self.watertight else f"open: {self.open_edges} open edges"
        return "\n".join(
            [
                f"{self.num_vertices:,} vertices, {self.num_faces:,} faces",
                f"size {extent}, area {self.surface_area:.4g}, volume {self.volume:.4g}",
                f"{closed}, {'manifold' if self.manifold else 'not manifold'}, "
                f"Euler characteristic {self.euler_characteristic}",
                f"colour: {self.colors}",
            ]
        )


@dataclass(frozen=True)
class MeshComparison:
    """How far a mesh is from a reference; lengths in units of the reference's longest side.

    Attributes:
        chamfer: mean nearest distance, both directions summed.
        f_score_fine: share of surface within 0.02.
        f_score_coarse: share of surface within 0.05.
        normal_error_deg: mean angle of the normals on the surface seen from the views.
        silhouette_iou: overlap of the silhouettes from the same views.
    """

    chamfer: float
    f_score_fine: float
    f_score_coarse: float
    normal_error_deg: float
    silhouette_iou: float

    def text(self) -> str:
        """The comparison in lines for people."""
        return "\n".join(
            [
                f"Chamfer distance {self.chamfer:.4f} of the longest side",
                f"F-score {self.f_score_fine:.3f} at {FINE_TAU}, "
                f"{self.f_score_coarse:.3f} at {COARSE_TAU}",
                f"normals off by {self.normal_error_deg:.1f} degrees on average",
                f"silhouettes overlap by {self.silhouette_iou:.3f} (IoU)",
            ]
        )


def inspect_mesh(mesh: Mesh) -> MeshReport:
    """Report on one mesh; an empty one has size zero."""
    surface = _welded(mesh)
    low, high = mesh.bounds() if mesh.num_vertices else (torch.zeros(3), torch.zeros(3))
    width, height, depth = (high - low).tolist()
    doubled = face_normals(surface.vertices, surface.faces, unit=False).norm(dim=-1)
    faces = surface.faces
    return MeshReport(
        num_vertices=mesh.num_vertices,
        num_faces=mesh.num_faces,
        size=(width, height, depth),
        surface_area=float(doubled.sum()) / 2,
        volume=float(signed_volume(surface.vertices, faces)) if len(faces) else 0.0,
        watertight=is_watertight(faces),
        manifold=is_manifold(faces),
        euler_characteristic=euler_characteristic(faces) if len(faces) else 0,
        open_edges=int((build_edges(faces).face_count == 1).sum()) if len(faces) else 0,
        colors=_describe_colors(mesh),
    )


def compare_meshes(
    mesh: Mesh,
    reference: Mesh,
    *,
    rig: ViewRig | None = None,
    num_points: int = 20000,
    image_px: int = 256,
    seed: int = 0,
) -> MeshComparison:
    """Measure how far ``mesh`` is from ``reference``; both must be in the same place.

    Args:
        mesh: what to judge.
        reference: the truth.
        rig: views for normals and silhouettes; None takes the four of the bundle image round the
            reference scaled to 1.8.
        num_points: samples of each surface.
        image_px: size of the views.
        seed: of the samples.
    """
    meshes = [to_unit_cube(item, reference) for item in (mesh, reference)]
    found, wanted = (sample_surface(item, num_points, seed=seed).points for item in meshes)
    rig = rig or make_kiss3dgen_rig()
    with torch.no_grad():
        drawn = [
            render_facing(
                item.with_vertices(item.vertices * 1.8),
                rig,
                width=image_px,
                height=image_px,
                antialias=False,
            )
            for item in meshes
        ]
    both = torch.minimum(drawn[0].alpha, drawn[1].alpha)
    return MeshComparison(
        chamfer=chamfer_distance(found, wanted),
        f_score_fine=f_score(found, wanted, FINE_TAU),
        f_score_coarse=f_score(found, wanted, COARSE_TAU),
        normal_error_deg=normal_map_error_deg(drawn[0].normals_world, drawn[1].normals_world, both),
        silhouette_iou=float(silhouette_iou(drawn[0].alpha, drawn[1].alpha).mean()),
    )


def _welded(mesh: Mesh) -> Mesh:
    """The surface alone: vertices in exactly one place joined, faces that collapse dropped."""
    vertices, inverse = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    faces = inverse[mesh.faces]
    a, b, c = faces.unbind(dim=1)
    return Mesh(vertices, faces[(a != b) & (b != c) & (c != a)])


def _describe_colors(mesh: Mesh) -> str:
    if mesh.texture is not None:
        return f"texture of {mesh.texture.shape[1]} x {mesh.texture.shape[0]} pixels"
    if mesh.vertex_colors is not None:
        return "vertex colours"
    return "none" if mesh.material.base_color == (1.0, 1.0, 1.0) else "one colour"
