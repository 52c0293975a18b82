"""Contains the reconstruction of a coloured mesh from a 3D bundle image or from any set of views.

Masks and normals give an initial mesh, ISOMER refines it, the surface is cleaned and takes its
vertex colours from the RGB views.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.3.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_floating, require_shape
from ..bundle_image import BundleImage
from ..camera import ViewRig, make_kiss3dgen_rig
from ..geometry.components import drop_small_components
from ..geometry.repair import is_manifold, repair_mesh
from ..geometry.smoothing import laplacian_smooth, taubin_smooth
from ..geometry.subdivision import loop_subdivide
from ..mesh import Mesh
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.projection import VertexProjectionParams
from .bundle_views import ShapeViews, read_bundle_views
from .enlarge_views import enlarge_views, pixel_size
from .initial_mesh import InitialMeshParams, make_initial_mesh, make_manifold
from .isomer_params import IsomerParams, Preset, load_isomer_params
from .normal_refinement import NormalTargets, refine_by_normals
from .texture_projection import project_vertex_colors

LOGGER = logging.getLogger(__name__)

MIN_FOREGROUND_PX = 16
MIN_VIEWS = 2
INSIDE = 0.5
COARSE_SMOOTHING_STEPS = 3
LARGEST_DIAGONAL = 3.2
"""Of a box with sides of 1.8, the size of objects in bundles, and a margin."""


@dataclass(frozen=True)
class CleanUpParams:
    """What happens to the refined surface.

    Attributes:
        min_part_area: parts with less of the total area are dropped.
        smoothing_steps: steps towards the mean of the neighbours.
        smoothing_share: how far a vertex moves in a step.
        inflation: how far it moves back afterwards (Taubin smoothing). 0 is the released code's
            plain Laplacian step, which takes rods of a few pixels a third of their thickness.
        subdivisions: Loop rounds; 2 in the released code. Old vertices stay where they are.
        subdivision_edge: only edges longer than this part of the diagonal are divided.
        max_faces: a round that could make more faces than this is left out.
    """

    min_part_area: float = 0.003
    smoothing_steps: int = 1
    smoothing_share: float = 0.5
    inflation: float = 0.53
    subdivisions: int = 1
    subdivision_edge: float = 0.0025
    max_faces: int = 200_000


@dataclass(frozen=True)
class ReconstructionParams:
    """Settings of the whole reconstruction.

    Attributes:
        initial: the mesh to start from, unless one is given.
        isomer: both stages; None takes the preset that fits the initial mesh.
        clean_up: after the refinement.
        colors: of the projection to vertex colours; None leaves the mesh uncoloured.
        working_px: smaller views are enlarged to this first; 0 leaves them as they are.
        pixels_per_edge: no edge is made shorter than this many pixels of the given views.
    """

    initial: InitialMeshParams = field(default_factory=InitialMeshParams)
    isomer: IsomerParams | None = None
    clean_up: CleanUpParams = field(default_factory=CleanUpParams)
    colors: VertexProjectionParams | None = field(default_factory=VertexProjectionParams)
    working_px: int = 192
    pixels_per_edge: float = 1.0


@dataclass(frozen=True)
class ReconstructionResult:
    """What a reconstruction gives.

    Attributes:
        mesh: watertight if the initial mesh was, with vertex colours.
        coverage: how well each vertex was seen, 0..1.
        initial_mesh: what refinement started from.
        used_views: indices of the views that were used.
        warnings: lines for people, such as views left out.
    """

    mesh: Mesh
    coverage: Float[Tensor, " vertex"]
    initial_mesh: Mesh
    used_views: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def reconstruct_from_bundle(
    bundle: BundleImage,
    *,
    rig: ViewRig | None = None,
    masks: Float[Tensor, "view height width"] | None = None,
    initial_mesh: Mesh | None = None,
    params: ReconstructionParams | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ReconstructionResult:
    """Turn a bundle image into a coloured mesh.

    Args:
        bundle: RGB over normals, both on white.
        rig: one camera per column; None takes the four of Kiss3DGen.
        masks: coverage from a matting; None finds it by the distance from white.
        initial_mesh: to be refined instead of a visual hull.
        params: settings.
        on_progress: called after every step; what it raises stops the run and passes on.

    Raises:
        ValueError: the bundle is white, fewer than two views show anything, sizes do not fit.
    """
    rig = make_kiss3dgen_rig() if rig is None else rig
    device = bundle.normal_views.device
    shape = read_bundle_views(bundle, rig.to(device), masks)
    return reconstruct_from_views(
        bundle.rgb_views,
        shape.normals_world,
        shape.masks,
        shape.rig,
        initial_mesh=initial_mesh,
        params=params,
        on_progress=on_progress,
    )


def reconstruct_from_views(
    rgb_views: Float[Tensor, "view height width 3"],
    normals_world: Float[Tensor, "view height width 3"],
    masks: Float[Tensor, "view height width"],
    rig: ViewRig,
    *,
    initial_mesh: Mesh | None = None,
    params: ReconstructionParams | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ReconstructionResult:
    """Turn any number of views with known cameras into a coloured mesh.

    Args:
        rgb_views: sRGB 0..1; what lies outside the masks is ignored.
        normals_world: unit world normals inside the masks.
        masks: coverage 0..1.
        rig: one camera per view, perspective or orthographic.
        initial_mesh: to be refined instead of a visual hull.
        params: settings.
        on_progress: called after every step.
    """
    params = ReconstructionParams() if params is None else params
    _check_views(rgb_views, normals_world, masks, rig)
    used, warnings = usable_views(masks, rig.names)
    chosen = torch.tensor(used, device=masks.device)
    views = ShapeViews(normals_world[chosen], masks[chosen], rig.select(used))
    isomer, tidy = _fitted_to_pixels(params, pixel_size(views), initial_mesh)
    views, rgb_views = enlarge_views(views, rgb_views[chosen], params.working_px)
    isomer = isomer.for_pictures(max(views.masks.shape[1:]))
    steps = isomer.coarse.steps + isomer.fine.steps
    total = steps + 3  # and the initial mesh, the clean-up, the colours
    if initial_mesh is None:
        start = make_initial_mesh(views.masks, views.normals_world, views.rig, params.initial)
    else:
        start = make_manifold(initial_mesh.to(masks.device))
    on_progress(Progress(1, total, f"initial mesh with {start.num_faces} faces"))

    def shifted(progress: Progress) -> None:
        on_progress(replace(progress, step=progress.step + 1, total=total))

    targets = NormalTargets(views.normals_world, views.masks, views.rig)
    refined = refine_by_normals(start, targets, isomer, on_progress=shifted)
    mesh = clean_up(refined, tidy)
    on_progress(Progress(total - 1, total, f"cleaned up, {mesh.num_faces} faces"))
    coverage = torch.zeros(mesh.num_vertices, device=masks.device)
    if params.colors is not None:
        colors = _fitting_weights(params.colors, len(views.rig))
        mesh, coverage = project_vertex_colors(
            mesh, rgb_views, views.rig, masks=views.masks, params=colors
        )
    on_progress(Progress(total, total, f"done: {mesh.num_faces} faces"))
    return ReconstructionResult(mesh, coverage, start, tuple(used), tuple(warnings))


def usable_views(
    masks: Float[Tensor, "view height width"], names: Sequence[str]
) -> tuple[list[int], list[str]]:
    """Indices of the views that show something, and a warning for each of the others.

    Raises:
        ValueError: fewer than two views are left.
    """
    counts = (masks > INSIDE).sum(dim=(1, 2)).tolist()
    used = [index for index, count in enumerate(counts) if count >= MIN_FOREGROUND_PX]
    empty = [names[index] for index in range(len(counts)) if index not in used]
    if not used:
        raise ValueError(
            "Every view is empty: no pixel differs from the white background. Give a bundle that "
            "shows an object, or masks that say where it is."
        )
    if len(used) < MIN_VIEWS:
        raise ValueError(
            f"Only view {names[used[0]]} shows something ({', '.join(empty)} are empty); "
            f"at least {MIN_VIEWS} views are needed for a solid."
        )
    warnings = [f"View {name} is empty and was left out." for name in empty]
    for line in warnings:
        LOGGER.warning(line)
    return used, warnings


def clean_up(mesh: Mesh, params: CleanUpParams = CleanUpParams()) -> Mesh:
    """Drop crumbs, smooth a little, repair and subdivide, without shrinking.

    Reference: kiss3dgen released code: one smoothing step, repair, Loop subdivision where edges are
    longer than 0.25 % of the bounding box's diagonal. There, both the step and the subdivision
    shrink; here neither does.
    """
    mesh = drop_small_components(mesh, min_area_fraction=params.min_part_area)
    mesh = mesh.with_vertices(_smoothed(mesh, params))
    if not is_manifold(mesh.faces):
        mesh = repair_mesh(mesh)
    for _ in range(params.subdivisions):
        if 4 * mesh.num_faces > params.max_faces:
            break
        mesh = loop_subdivide(mesh, 1, params.subdivision_edge, interpolate=True)
    return mesh


def _smoothed(mesh: Mesh, params: CleanUpParams) -> Float[Tensor, "vertex 3"]:
    rounds, share = params.smoothing_steps, params.smoothing_share
    if params.inflation:
        return taubin_smooth(
            mesh.vertices, mesh.faces, iterations=rounds, shrink=share, inflate=params.inflation
        )
    return laplacian_smooth(mesh.vertices, mesh.faces, iterations=rounds, step=share)


def _fitted_to_pixels(
    params: ReconstructionParams, pixel: float, initial_mesh: Mesh | None
) -> tuple[IsomerParams, CleanUpParams]:
    """Settings of refinement and clean-up without triangles finer than the given views.

    Where they are coarse, the views may disagree by more than an edge, which frays rims; some more
    smoothing mends that.
    """
    isomer = params.isomer or load_isomer_params(_fitting_preset(params, initial_mesh))
    edge = params.pixels_per_edge * pixel
    finest = max(params.clean_up.subdivision_edge, 2 * edge / LARGEST_DIAGONAL)
    is_coarse = edge > isomer.fine.edge_length_limits[0]
    rounds = params.clean_up.smoothing_steps + COARSE_SMOOTHING_STEPS * is_coarse
    tidy = replace(params.clean_up, subdivision_edge=finest, smoothing_steps=rounds)
    return isomer.limited_to(edge), tidy


def _fitting_preset(params: ReconstructionParams, initial_mesh: Mesh | None) -> Preset:
    if initial_mesh is None and params.initial.shape == "sphere":
        return "from_sphere"
    return "from_hull"


def _fitting_weights(params: VertexProjectionParams, num_views: int) -> VertexProjectionParams:
    """View weights hold for a full set only: with views left out all count alike."""
    weights = params.view_weights
    if weights is None or len(weights) == num_views:
        return params
    return replace(params, view_weights=None)


def _check_views(rgb: Tensor, normals: Tensor, masks: Tensor, rig: ViewRig) -> None:
    require_shape("masks", masks, len(rig), None, None)
    require_shape("rgb_views", rgb, *masks.shape, 3)
    require_shape("normals_world", normals, *masks.shape, 3)
    for name, value in (("masks", masks), ("rgb_views", rgb), ("normals_world", normals)):
        require_floating(name, value)
        require_finite(name, value)
