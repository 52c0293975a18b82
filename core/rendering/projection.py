"""Contains the projection of pictures onto the points and vertices of a mesh.

A point takes the colour of every view that shows it, weighted by how squarely the view looks at
it, how much the view counts and how far its pixel is trusted (see `visibility`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from .._checks import require_finite, require_shape
from ..camera import ViewRig
from ..geometry.normals import face_normals, vertex_normals
from ..mesh import Mesh
from .visibility import (
    ViewGeometry,
    dot_rows,
    hidden_points,
    project_visible_candidates,
    shown_vertices,
    shows_back_faces,
    view_geometry,
)

LOGGER = logging.getLogger(__name__)

KISS3DGEN_COLOR_WEIGHTS = (1.0, 0.5, 1.0, 0.5)
EXPLICIT_TARGET_WEIGHTS = (1.0, 0.9, 1.0, 0.9)


@dataclass(frozen=True)
class VertexProjectionParams:
    """How views are weighed. Pixel widths hold for tiles of 512 pixels and scale with the tile.

    Attributes:
        cos_power: exponent of the cosine between surface normal and viewing direction.
        view_weights: how much each view counts; None counts all alike.
        direction: ``ray`` takes the direction from each point to the camera, ``axis`` (the
            reference) one optical axis for the whole picture.
        cos_threshold: surfaces seen at a smaller cosine are ignored.
        confidence: summed weight from which on a point counts as fully seen.
        erosion_px: side of the window that shrinks the masks.
        blur_px: width of the fade inside the shrunken masks.
        rim_weight: relative weight of the rim that erosion took away, so that parts thinner than
            the erosion still get their own colour where no view sees them better; 0 ignores it.
        jump_margin_px: pixels this close to a depth jump are ignored; 0 ignores none.
        bias_px: how far behind the visible surface a point may lie, in pixel sizes.
        visibility: ``points`` tests each vertex against the visible surface, ``faces`` (the
            reference) takes the vertices of all faces that own a pixel.
        raster_px: rows of the visibility raster; None takes those of the views.
        two_sided: let faces count from behind; None does so if views show back faces.

    Reference: Kiss3DGen (Lin et al. 2025), released colour projection (defaults), see also
    `kiss3dgen_colors` and `explicit_target`.
    """

    cos_power: float = 2.0
    view_weights: tuple[float, ...] | None = None
    direction: Literal["ray", "axis"] = "ray"
    cos_threshold: float = 0.05
    confidence: float = 0.1
    erosion_px: float = 10.0
    blur_px: float = 5.0
    rim_weight: float = 0.02
    jump_margin_px: float = 2.0
    bias_px: float = 0.5
    visibility: Literal["points", "faces"] = "points"
    raster_px: int | None = None
    two_sided: bool | None = None

    def __post_init__(self) -> None:
        if self.view_weights is not None and (
            any(weight < 0 for weight in self.view_weights) or sum(self.view_weights) <= 0
        ):
            raise ValueError(
                f"view_weights must be at least 0 and not all 0, got {self.view_weights}."
            )
        for name in ("cos_power", "erosion_px", "blur_px", "rim_weight", "jump_margin_px"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if not self.confidence > 0:
            raise ValueError(f"confidence must be positive, got {self.confidence}.")
        if not 0 <= self.cos_threshold < 1:
            raise ValueError(f"cos_threshold must lie within 0..1, got {self.cos_threshold}.")
        if self.raster_px is not None and self.raster_px < 1:
            raise ValueError(f"raster_px must be at least 1, got {self.raster_px}.")

    @staticmethod
    def kiss3dgen_colors() -> VertexProjectionParams:
        """The colour projection of Kiss3DGen: front and rear favoured, one axis per camera."""
        return VertexProjectionParams(
            view_weights=KISS3DGEN_COLOR_WEIGHTS,
            direction="axis",
            rim_weight=0.0,
            jump_margin_px=0.0,
            visibility="faces",
            two_sided=False,
        )

    @staticmethod
    def explicit_target() -> VertexProjectionParams:
        """The projection of normals in ISOMER's ExplicitTarget: linear cosine, raster of 1024."""
        return VertexProjectionParams(
            cos_power=1.0, view_weights=EXPLICIT_TARGET_WEIGHTS, rim_weight=0.0, raster_px=1024
        )


@dataclass(frozen=True)
class Observation:
    """The points that one view sees.

    Attributes:
        index: which of the given points.
        weight: share of this view in a weighted mean.
        support: how well the point is seen, 0..1 times the view's weight.
        image_xy: place in the picture, -1..1 from left to right and from top to bottom.
    """

    index: Int64[Tensor, " seen"]
    weight: Float[Tensor, " seen"]
    support: Float[Tensor, " seen"]
    image_xy: Float[Tensor, "seen 2"]


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


@torch.no_grad()
def observe_points(
    points: Float[Tensor, "point 3"],
    normals: Float[Tensor, "point 3"],
    view: ViewGeometry,
    params: VertexProjectionParams,
    *,
    view_weight: float = 1.0,
    two_sided: bool = False,
    candidates: Int64[Tensor, " candidate"] | None = None,
    test_hidden: bool = True,
) -> Observation:
    """Find the points that a view sees and weigh them.

    Args:
        points: world positions on the surface.
        normals: unit normals there.
        view: the mesh seen by the camera.
        params: weights and thresholds.
        view_weight: factor on all weights.
        two_sided: ignore on which side of the surface the camera is.
        candidates: the only points to look at; all when None.
        test_hidden: leave out points behind what the view shows.
    """
    index = torch.arange(len(points), device=points.device) if candidates is None else candidates
    cosines = _cosines(points[index], normals[index], view, params.direction)
    cosines = cosines.abs() if two_sided else cosines
    facing = cosines > params.cos_threshold
    index, cosines = index[facing], cosines[facing]
    pixels, depth, inside = project_visible_candidates(points[index], view)
    index, cosines, pixels, depth = index[inside], cosines[inside], pixels[inside], depth[inside]
    height, width = view.face_index.shape
    image_xy = pixels / pixels.new_tensor([width, height]) * 2 - 1
    trust = sample_view(torch.stack([view.confidence, view.pure], dim=-1), image_xy)
    trusted = trust[:, 0] + params.rim_weight * trust[:, 1] > 0
    if test_hidden:
        hidden = torch.zeros_like(trusted)
        hidden[trusted] = hidden_points(
            points[index[trusted]], pixels[trusted], depth[trusted], view, bias_px=params.bias_px
        )
        trusted = trusted & ~hidden
    cosines, trust = cosines[trusted], trust[trusted]
    strength = view_weight * cosines**params.cos_power
    # Sharper weights choose between views; they do not make a surface less well seen.
    seen_strength = view_weight * cosines ** min(params.cos_power, 2.0)
    support = torch.maximum(trust[:, 0], trust[:, 1]) if params.rim_weight > 0 else trust[:, 0]
    weight = strength * (trust[:, 0] + params.rim_weight * trust[:, 1])
    return Observation(index[trusted], weight, seen_strength * support, image_xy[trusted])


@torch.no_grad()
def facing_faces(mesh: Mesh, view: ViewGeometry) -> Bool[Tensor, " face"]:
    """True for faces whose outer side is turned to the camera."""
    normals = face_normals(mesh.vertices, mesh.faces)
    return _cosines(mesh.vertices[mesh.faces[:, 0]], normals, view, "ray") > 0


def sample_view(
    image: Float[Tensor, "height width channel"], image_xy: Float[Tensor, "point 2"]
) -> Float[Tensor, "point channel"]:
    """Bilinear samples at -1..1 coordinates; the border pixels reach half a pixel outwards."""
    if not len(image_xy):
        return image.new_zeros(0, image.shape[-1])
    sampled = functional.grid_sample(
        image.permute(2, 0, 1)[None],
        image_xy[None, None].to(image.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return sampled[0, :, 0].T


def sample_pure(
    image: Float[Tensor, "height width channel"],
    pure: Float[Tensor, "raster_height raster_width"],
    image_xy: Float[Tensor, "point 2"],
) -> Float[Tensor, "point channel"]:
    """Bilinear samples that leave out pixels in which surface and background are mixed."""
    if pure.shape != image.shape[:2]:
        resized = functional.interpolate(
            pure[None, None], size=image.shape[:2], mode="bilinear", antialias=True
        )
        pure = (resized[0, 0] > 0.99).to(pure.dtype)
    pure = pure[..., None].to(image.dtype)
    sampled = sample_view(torch.cat([image * pure, pure], dim=-1), image_xy)
    plain = sample_view(image, image_xy)
    share = sampled[:, -1:]
    return torch.where(share > 1e-3, sampled[:, :-1] / share.clamp(min=1e-3), plain)


def _vertex_normals_towards(mesh: Mesh, view: ViewGeometry, two_sided: bool) -> Tensor:
    """Vertex normals; if two-sided, of faces that were turned to the camera first."""
    if not two_sided:
        if mesh.vertex_normals is not None:
            return mesh.vertex_normals
        return vertex_normals(mesh.vertices, mesh.faces)
    corners = mesh.vertices[mesh.faces]
    away = _cosines(corners.mean(dim=1), face_normals(mesh.vertices, mesh.faces), view, "ray") < 0
    faces = torch.where(away[:, None], mesh.faces.flip(1), mesh.faces)
    return vertex_normals(mesh.vertices, faces)


def _cosines(points: Tensor, normals: Tensor, view: ViewGeometry, direction: str) -> Tensor:
    pose = view.camera.camera_to_world.to(points)
    if direction == "ray" and view.camera.is_perspective:
        towards = pose[:3, 3] - points
        return dot_rows(normals, towards) / dot_rows(towards, towards).clamp(min=1e-24).sqrt()
    return normals @ pose[:3, 2]


def _reference_candidates(
    mesh: Mesh, view: ViewGeometry, params: VertexProjectionParams, two_sided: bool
) -> Tensor | None:
    if params.visibility == "points":
        return None
    centers = mesh.vertices[mesh.faces].mean(dim=1)
    normals = face_normals(mesh.vertices, mesh.faces)
    cosines = _cosines(centers, normals, view, params.direction)
    cosines = cosines.abs() if two_sided else cosines
    return shown_vertices(mesh, view, cosines > params.cos_threshold).nonzero()[:, 0]
