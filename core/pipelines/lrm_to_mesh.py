"""Contains the reconstruction of a mesh from a few views by a large reconstruction model.

Everything at points and cells is evaluated in chunks, and the weights of FlexiCubes only for cells
that the surface crosses. The published program gathers 11.5 GB for these at StdGEN's grid; here the
whole extraction stays below 0.5 GB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .._checks import require_finite, require_shape
from ..geometry.flexicubes import FlexiCubesWeights, flexicubes, weights_from_logits
from ..geometry.isosurface_tables import CORNER_OFFSETS
from ..mesh import Mesh
from ..networks.lrm import LargeReconstructionModel
from ..networks.lrm_cameras import turn_to_front
from ..progress import Progress, ProgressCallback, ignore_progress, share_progress
from ..semantic_field import SemanticField
from ..triplane import Triplane

IMAGE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LrmToMeshParams:
    """How a surface is extracted.

    Attributes:
        chunk_points: points that are evaluated at a time.
        chunk_cells: surface cells whose weights are evaluated at a time.
        weight_scale: half width of the range of the FlexiCubes weights.
    """

    chunk_points: int = 1 << 16
    chunk_cells: int = 1 << 13
    weight_scale: float = 0.5

    def __post_init__(self) -> None:
        if self.chunk_points < 1 or self.chunk_cells < 1:
            raise ValueError(
                "chunk_points and chunk_cells must be at least 1, got "
                f"{self.chunk_points} and {self.chunk_cells}."
            )


@dataclass(frozen=True)
class LrmGrid:
    """What a model says at the corners of its grid, in the frame of the model.

    Attributes:
        triplane: of the one object.
        sdf: negative inside.
        vertices: positions of the corners, displaced by the deformation head.
        logits: class scores, or None for a model without classes.
    """

    triplane: Triplane
    sdf: Float[Tensor, "x y z"]
    vertices: Float[Tensor, "x y z 3"]
    logits: Float[Tensor, "x y z label"] | None = None


@torch.no_grad()
def lrm_to_mesh(
    model: LargeReconstructionModel,
    views: Float[Tensor, "view height width 3"],
    cameras: Float[Tensor, "view 16"],
    *,
    front_azimuth_deg: float = 0.0,
    params: LrmToMeshParams | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Mesh:
    """Reconstruct an object, with vertex colours, in the world frame.

    Args:
        model: of the "mesh" stage.
        views: square pictures of the object on white, sRGB.
        cameras: see `networks.lrm_cameras.make_camera_vectors`.
        front_azimuth_deg: azimuth in the model's frame at which ``cameras`` say that the front
            lies (`networks.lrm_cameras.FRONT_AZIMUTH_DEG`); the mesh is turned to face +Z.
        params: None for the defaults.
        on_progress: called after each layer and each chunk.

    Raises:
        ValueError: the views do not fit, or the model sees no surface in them.
    """
    params = params or LrmToMeshParams()
    triplane = views_to_triplane(
        model, views, cameras, on_progress=share_progress(on_progress, 0, 50)
    )
    grid = triplane_to_grid(
        model, triplane, params=params, on_progress=share_progress(on_progress, 50, 85)
    )
    mesh = grid_to_mesh(
        model, grid, params=params, on_progress=share_progress(on_progress, 85, 100)
    )
    if mesh.is_empty:
        raise ValueError(
            "The model found no surface in these views. Check that the object stands on white, "
            "that views and cameras have the documented order, and that the weights are trained."
        )
    vertices = turn_to_front(mesh.vertices, front_azimuth_deg)
    return mesh.with_vertices(vertices).to(views.device)


@torch.no_grad()
def views_to_triplane(
    model: LargeReconstructionModel,
    views: Float[Tensor, "view height width 3"],
    cameras: Float[Tensor, "view 16"],
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> Triplane:
    """Planes of the object in the views, which are resized to what the model expects."""
    require_shape("views", views, None, None, None, 3)
    require_shape("cameras", cameras, len(views), model.params.encoder.camera_dim)
    require_finite("views", views)
    require_finite("cameras", cameras)
    if not len(views) or views.shape[1] != views.shape[2]:
        raise ValueError(f"views must be at least one square picture, got {list(views.shape)}.")
    low, high = float(views.min()), float(views.max())
    if low < -IMAGE_TOLERANCE or high > 1 + IMAGE_TOLERANCE:
        raise ValueError(f"views must lie within 0..1, got values from {low:.3g} to {high:.3g}.")
    images = views.to(model.device).permute(0, 3, 1, 2).float()
    side = model.params.image_px
    if images.shape[-1] != side:
        images = torch.nn.functional.interpolate(
            images, (side, side), mode="bicubic", align_corners=False, antialias=True
        )
    images = images.clamp(0, 1)
    planes = model(images[None], cameras[None].to(model.device), on_progress=on_progress)
    return Triplane(planes.float())


@torch.no_grad()
def triplane_to_grid(
    model: LargeReconstructionModel,
    triplane: Triplane,
    *,
    params: LrmToMeshParams | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> LrmGrid:
    """Distance, displacement and classes at every corner of the model's grid, in chunks.

    None of them depends on the part that is extracted: one grid serves all parts.
    """
    params = params or LrmToMeshParams()
    if len(triplane.planes) != 1:
        raise ValueError(f"Give the triplane of one object, got {len(triplane.planes)}.")
    decoder, grid_params = model.decoder, model.params.grid
    corners = grid_params.points(triplane.planes.device)
    vertices = corners.reshape(-1, 3).clone()
    sdf = vertices.new_empty(len(vertices))
    num_labels = model.params.decoder.num_labels
    logits = vertices.new_empty((len(vertices), num_labels)) if num_labels else None
    for start in range(0, len(vertices), params.chunk_points):
        chunk = slice(start, start + params.chunk_points)
        features = model.features(triplane, vertices[chunk])
        sdf[chunk] = decoder.sdf(features).float()
        vertices[chunk] += grid_params.displacement(decoder.deformation(features).float())
        if logits is not None:
            logits[chunk] = decoder.semantic_logits(features).float()
        done = min(start + params.chunk_points, len(vertices))
        on_progress(Progress(done, len(vertices), "Reading distances off the planes"))
    shape = corners.shape[:3]
    if logits is not None:
        logits = logits.reshape(*shape, num_labels)
    return LrmGrid(triplane, sdf.reshape(shape), vertices.reshape(*shape, 3), logits)


@torch.no_grad()
def grid_to_mesh(
    model: LargeReconstructionModel,
    grid: LrmGrid,
    *,
    sdf: Float[Tensor, "x y z"] | None = None,
    name: str = "mesh",
    params: LrmToMeshParams | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Mesh:
    """Surface of the grid, or of a part of it, in the world frame; empty where there is none.

    Args:
        model: that made the grid.
        grid: see `triplane_to_grid`.
        sdf: distance of a part (`geometry.semantic_parts`); None for the whole object.
        name: of the mesh.
        params: None for the defaults.
        on_progress: called after each chunk.
    """
    params = params or LrmToMeshParams()
    sdf = grid.sdf if sdf is None else sdf
    weights = _surface_weights(model, grid, sdf < 0, params, share_progress(on_progress, 0, 60))
    surface = flexicubes(sdf, grid.vertices, weights)
    colors = _vertex_colors(
        model, grid.triplane, surface.vertices, params, share_progress(on_progress, 60, 100)
    )
    return Mesh(
        vertices=model.to_world(surface.vertices),
        faces=surface.faces,
        vertex_colors=colors,
        name=name,
    )


def grid_to_semantic_field(model: LargeReconstructionModel, grid: LrmGrid) -> SemanticField:
    """Distance and classes on the undisplaced grid, axes and corners in the world frame."""
    if grid.logits is None:
        raise ValueError("This model has no semantic classes; load one that has (S-LRM).")
    # The axis of the model that becomes each axis of the world.
    axes = [int(axis) for axis in model.to_world(torch.arange(3.0))]
    x, y, z = (model.params.grid.scale[axis] / 2 for axis in axes)
    return SemanticField(
        sdf=grid.sdf.permute(*axes),
        logits=grid.logits.permute(*axes, 3),
        label_names=model.params.label_names,
        lower=(-x, -y, -z),
        upper=(x, y, z),
    )


def surface_cells(
    inside: Bool[Tensor, "x y z"],
) -> tuple[Int64[Tensor, "cell 8"], Int64[Tensor, " cell"]]:
    """Flat corners and numbers of the cells that the surface crosses, and of no others."""
    nx, ny, nz = inside.shape
    views = [inside[i : nx - 1 + i, j : ny - 1 + j, k : nz - 1 + k] for i, j, k in CORNER_OFFSETS]
    some, every = views[0].clone(), views[0].clone()
    for view in views[1:]:
        some |= view
        every &= view
    x, y, z = (some & ~every).nonzero().unbind(1)
    steps = [(i * ny + j) * nz + k for i, j, k in CORNER_OFFSETS]
    corners = ((x * ny + y) * nz + z)[:, None] + torch.tensor(steps, device=inside.device)
    return corners, (x * (ny - 1) + y) * (nz - 1) + z


def _surface_weights(
    model: LargeReconstructionModel,
    grid: LrmGrid,
    inside: Bool[Tensor, "x y z"],
    params: LrmToMeshParams,
    on_progress: ProgressCallback,
) -> FlexiCubesWeights:
    """Weights of the cells that the surface crosses; those of other cells are never read."""
    corners, numbers = surface_cells(inside)
    points = model.params.grid.points(inside.device).reshape(
        -1, 3
    )  # the weights see no deformation
    num_cells = math.prod(size - 1 for size in inside.shape)
    weights = FlexiCubesWeights(
        beta=points.new_ones(num_cells, 12),
        alpha=points.new_ones(num_cells, 8),
        gamma=points.new_ones(num_cells),
    )
    for start in range(0, len(corners), params.chunk_cells):
        chunk = corners[start : start + params.chunk_cells]
        unique, place = chunk.unique(return_inverse=True)
        features = model.features(grid.triplane, points[unique])
        logits = model.decoder.weight_logits(features[place]).float()
        cell = numbers[start : start + params.chunk_cells]
        made = weights_from_logits(logits, params.weight_scale)
        weights.beta[cell], weights.alpha[cell] = made.beta, made.alpha
        weights.gamma[cell] = made.gamma
        done = min(start + params.chunk_cells, len(corners))
        on_progress(Progress(done, len(corners), "Weighing the cells of the surface"))
    return weights


def _vertex_colors(
    model: LargeReconstructionModel,
    triplane: Triplane,
    vertices: Float[Tensor, "vertex 3"],
    params: LrmToMeshParams,
    on_progress: ProgressCallback,
) -> Float[Tensor, "vertex 3"]:
    colors = torch.empty_like(vertices)
    for start in range(0, len(vertices), params.chunk_points):
        chunk = slice(start, start + params.chunk_points)
        features = model.features(triplane, vertices[chunk])
        colors[chunk] = model.decoder.rgb(features).float().clamp(0, 1)
        done = min(start + params.chunk_points, len(vertices))
        on_progress(Progress(done, len(vertices), "Colouring the surface"))
    return colors
