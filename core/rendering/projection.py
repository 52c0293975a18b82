"""Contains the projection of pictures onto the points and vertices of a mesh.

A point takes the colour of every view that shows it, weighted by how squarely the view looks at
it, how much the view counts and how far its pixel is trusted (see `visibility`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..camera import ViewRig
from ..geometry.normals import face_normals, vertex_normals
from ..mesh import Mesh
from .observation import cosines_to_camera, observe_points, sample_pure
from .projection_params import VertexProjectionParams
from .visibility import ViewGeometry, shown_vertices, shows_back_faces, view_geometry

LOGGER = logging.getLogger(__name__)


def project_views_to_vertices(
    mesh: Mesh,
    views: Float[Tensor, "view height width channel"],
    rig: ViewRig,
    *,
    masks: Float[Tensor, "view height width"] | None = None,
    params: VertexProjectionParams | None = None,
) -> tuple[Float[Tensor, "vertex channel"], Float[Tensor, " vertex"]]:
    """Weighted mean, per vertex, of what the views show there. Any values may be projected.

    Differentiable with respect to ``views``.

    Args:
        mesh: the mesh; stored vertex normals are used when it has them.
        views: pictures of any number of channels.
        rig: one camera per picture.
        masks: where each picture shows the object; the mesh's own silhouette when None. A view
            whose mask is empty is skipped with a warning.
        params: weights and thresholds.

    Returns:
        The values, 0 where nothing is seen, and how well each vertex is seen: the sum over the
        views of weight, trust and cosine to the power of ``cos_power``, but at most squared.
    """
    params = params or VertexProjectionParams()
    kept = check_views(mesh, views, rig, masks)
    weights = resolve_view_weights(params.view_weights, len(rig))
    geometry = trace_views(mesh, views, rig, masks, params, kept)
    two_sided = resolve_two_sided(params.two_sided, geometry)
    total = views.new_zeros(mesh.num_vertices, views.shape[-1])
    weight, support = views.new_zeros(mesh.num_vertices), views.new_zeros(mesh.num_vertices)
    for view, seen_from in zip(kept, geometry, strict=True):
        seen = observe_points(
            mesh.vertices,
            _vertex_normals_towards(mesh, seen_from, two_sided),
            seen_from,
            params,
            view_weight=weights[view],
            candidates=_reference_candidates(mesh, seen_from, params, two_sided),
            test_hidden=params.visibility == "points",
        )
        colors = sample_pure(views[view], seen_from.pure, seen.image_xy)
        total = total.index_add(0, seen.index, seen.weight[:, None] * colors)
        weight.index_add_(0, seen.index, seen.weight)
        support.index_add_(0, seen.index, seen.support)
    return total / weight.clamp(min=1e-12)[:, None], support


def check_views(mesh: Mesh, views: Tensor, rig: ViewRig, masks: Tensor | None) -> list[int]:
    """Indices of the usable views.

    Raises:
        ValueError: pictures, cameras, masks and mesh do not fit together or hold NaN.
    """
    if mesh.is_empty:
        raise ValueError(
            f"The mesh has {mesh.num_vertices} vertices but no faces; nothing can be projected "
            "onto it. Give a mesh with triangles."
        )
    require_shape("views", views, None, None, None, None)
    if views.shape[0] != len(rig):
        raise ValueError(
            f"Got {views.shape[0]} views for a rig of {len(rig)} cameras; give one picture per "
            "camera, in the order of the rig."
        )
    if 0 in views.shape:
        raise ValueError(f"views must not be empty, got shape {list(views.shape)}.")
    require_finite("views", views)
    if masks is None:
        return list(range(len(rig)))
    require_shape("masks", masks, len(rig), views.shape[1], views.shape[2])
    require_finite("masks", masks)
    kept = [view for view in range(len(rig)) if bool((masks[view] > 0.5).any())]
    if not kept:
        raise ValueError("The masks of all views are empty; at least one must show the object.")
    for view in sorted(set(range(len(rig))) - set(kept)):
        LOGGER.warning("View %d (%s) is skipped: its mask is empty.", view, rig.names[view])
    return kept


def resolve_view_weights(weights: Sequence[float] | None, num_views: int) -> list[float]:
    """One weight per view; ones when None.

    Raises:
        ValueError: their number differs from the number of views.
    """
    if weights is None:
        return [1.0] * num_views
    if len(weights) != num_views:
        raise ValueError(
            f"Got {len(weights)} view weights for {num_views} views; give one per view, or none."
        )
    return [float(weight) for weight in weights]


def resolve_two_sided(two_sided: bool | None, geometry: list[ViewGeometry]) -> bool:
    """Whether faces count from behind: as asked, else if the views show faces from behind."""
    if two_sided is not None:
        return two_sided
    found = shows_back_faces(geometry)
    if found:
        LOGGER.info("The views show faces from behind: both sides of the mesh are coloured.")
    return found


def trace_views(
    mesh: Mesh,
    views: Tensor,
    rig: ViewRig,
    masks: Tensor | None,
    params: VertexProjectionParams,
    kept: Sequence[int],
) -> list[ViewGeometry]:
    """`view_geometry` of the kept views at the raster size that ``params`` ask for."""
    height = params.raster_px or views.shape[1]
    width = max(1, round(views.shape[2] * height / views.shape[1]))
    return view_geometry(
        mesh,
        rig.select(kept),
        width=width,
        height=height,
        masks=None if masks is None else masks[list(kept)],
        erosion_px=params.erosion_px,
        blur_px=params.blur_px,
        jump_margin_px=params.jump_margin_px,
    )


def _vertex_normals_towards(mesh: Mesh, view: ViewGeometry, two_sided: bool) -> Tensor:
    """Vertex normals; if two-sided, of faces that were turned to the camera first."""
    if not two_sided:
        if mesh.vertex_normals is not None:
            return mesh.vertex_normals
        return vertex_normals(mesh.vertices, mesh.faces)
    corners = mesh.vertices[mesh.faces]
    away = (
        cosines_to_camera(corners.mean(dim=1), face_normals(mesh.vertices, mesh.faces), view, "ray")
        < 0
    )
    faces = torch.where(away[:, None], mesh.faces.flip(1), mesh.faces)
    return vertex_normals(mesh.vertices, faces)


def _reference_candidates(
    mesh: Mesh, view: ViewGeometry, params: VertexProjectionParams, two_sided: bool
) -> Tensor | None:
    if params.visibility == "points":
        return None
    centers = mesh.vertices[mesh.faces].mean(dim=1)
    normals = face_normals(mesh.vertices, mesh.faces)
    cosines = cosines_to_camera(centers, normals, view, params.direction)
    cosines = cosines.abs() if two_sided else cosines
    return shown_vertices(mesh, view, cosines > params.cos_threshold).nonzero()[:, 0]
