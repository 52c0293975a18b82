"""Contains the fit of the camera radius of views that come without one.

Cameras that look at the origin with a known field of view see the same pictures of an object twice
as large from twice as far: silhouettes alone cannot tell the radius, they only give the shape up to
scale. What is known of the object's size settles it:

* its longest side (1.8 by the convention of bundle images): the solid that the views describe at
  any radius is scaled, and the radius with it;
* or a mesh of it, such as the result of a large reconstruction model: the radius is searched at
  which the mesh fills the masks best (golden section).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..evaluation.image_metrics import silhouette_iou
from ..geometry.depth_carving import CarvingParams, carve_hull
from ..geometry.visual_hull import SdfGrid, VisualHullParams, check_masks, visual_hull_sdf
from ..mesh import Mesh
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.mesh import render_mesh
from .mesh_to_bundle import BUNDLE_LONGEST_SIDE

GOLDEN_SHARE = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class RadiusFitParams:
    """How the radius is searched.

    Attributes:
        bounds: smallest and largest radius tried with a mesh, world units.
        coarse_steps: radii tried evenly over the bounds before the golden section.
        tolerance: width of the last bracket.
        image_px: longest side of the pictures that are compared.
        resolution: cells of the solid's grid along its longest side.
    """

    bounds: tuple[float, float] = (3.0, 6.0)
    coarse_steps: int = 7
    tolerance: float = 0.01
    image_px: int = 192
    resolution: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds must be (low, high) with 0 < low < high, got {self.bounds}.")
        if self.coarse_steps < 3 or not self.tolerance > 0:
            raise ValueError(
                "coarse_steps must be at least 3 and tolerance positive, got "
                f"{self.coarse_steps} and {self.tolerance}."
            )


@dataclass(frozen=True)
class RadiusFit:
    """The radius found.

    Attributes:
        radius: distance of the cameras from the origin, world units.
        score: mean intersection over union of the masks with the silhouettes of the solid or mesh
            at that radius; well below 0.95 the views or cameras do not fit together.
        tried: every radius with its score.
    """

    radius: float
    score: float
    tried: tuple[tuple[float, float], ...]


def fit_camera_radius(
    masks: Float[Tensor, "view height width"],
    rig: ViewRig,
    *,
    normals_world: Float[Tensor, "view height width 3"] | None = None,
    longest_side: float = BUNDLE_LONGEST_SIDE,
    params: RadiusFitParams = RadiusFitParams(),
) -> RadiusFit:
    """Radius at which the object in the views has a given longest side.

    Args:
        masks: coverage 0..1 per view.
        rig: directions and field of view, all at one radius, looking at the origin.
        normals_world: unit normals; with them the hull is carved first. Without them the radius
            comes out too small by the share that the plain hull is too large.
        longest_side: of the object's bounding box, world units.
        params: resolution; the bounds are not used.
    """
    check_masks(masks, rig)
    start = _common_radius(rig)
    if not longest_side > 0:
        raise ValueError(f"longest_side must be positive, got {longest_side}.")
    sampling = VisualHullParams(params.resolution, bound=0.4 * start, thin_radius_cells=0.0)
    solid = visual_hull_sdf(masks, rig, sampling)
    if normals_world is not None:
        carving = CarvingParams(map_px=min(params.image_px, 96), hull=sampling)
        solid = carve_hull(solid, masks, normals_world, rig, carving)
    mesh = solid.mesh()
    score = _mesh_agreement(mesh, _shrink(masks, params.image_px), rig)
    radius = start * longest_side / _longest_side(solid)
    return RadiusFit(radius, score, ((radius, score),))


def fit_camera_radius_to_mesh(
    mesh: Mesh,
    masks: Float[Tensor, "view height width"],
    rig: ViewRig,
    params: RadiusFitParams = RadiusFitParams(),
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> RadiusFit:
    """Radius at which a mesh of the object fills the masks best.

    Args:
        mesh: in the world frame of the cameras, at its own size.
        masks: coverage 0..1 per view.
        rig: directions and field of view; its radius is ignored.
        params: range and precision of the search.
        on_progress: called after each radius.
    """
    check_masks(masks, rig)
    _common_radius(rig)
    masks = _shrink(masks, params.image_px)
    low, high = params.bounds
    step = (high - low) / (params.coarse_steps - 1)
    scores: dict[float, float] = {}
    total = params.coarse_steps + _golden_steps(2 * step, params.tolerance)

    def score(radius: float) -> float:
        if radius not in scores:
            scores[radius] = _mesh_agreement(mesh, masks, rig.with_radius(radius))
            on_progress(Progress(min(len(scores), total), total, f"radius {radius:.3f}"))
        return scores[radius]

    best = max((low + step * index for index in range(params.coarse_steps)), key=score)
    _golden_section(score, max(low, best - step), min(high, best + step), params.tolerance)
    radius = max(scores, key=lambda tried: scores[tried])
    return RadiusFit(radius, scores[radius], tuple(sorted(scores.items())))


def _common_radius(rig: ViewRig) -> float:
    radii = [float(camera.position.norm()) for camera in rig]
    if not all(camera.is_perspective for camera in rig):
        raise ValueError(
            "Orthographic views look the same from every radius; give their ortho_height instead."
        )
    if max(radii) > 1.001 * min(radii):
        raise ValueError(
            "The cameras must share one radius to have it fitted, got "
            f"{min(radii):.3g}..{max(radii):.3g}."
        )
    return sum(radii) / len(radii)


def _longest_side(solid: SdfGrid) -> float:
    vertices = solid.mesh().vertices
    if not len(vertices):
        raise ValueError("The views describe no solid: check their order and the cameras.")
    return float((vertices.amax(dim=0) - vertices.amin(dim=0)).max())


def _mesh_agreement(mesh: Mesh, masks: Tensor, rig: ViewRig) -> float:
    height, width = int(masks.shape[1]), int(masks.shape[2])
    drawn = render_mesh(mesh, rig, width=width, height=height)
    return float(silhouette_iou(drawn.alpha.clamp(0, 1), masks).mean())


def _golden_steps(width: float, tolerance: float) -> int:
    steps = 2
    while width > tolerance:
        width, steps = width * GOLDEN_SHARE, steps + 1
    return steps


def _golden_section(
    score: Callable[[float], float], low: float, high: float, tolerance: float
) -> None:
    """Shrink the bracket round the maximum of ``score``, which remembers what it was asked."""
    first, second = high - GOLDEN_SHARE * (high - low), low + GOLDEN_SHARE * (high - low)
    while high - low > tolerance:
        if score(first) >= score(second):
            high, second = second, first
            first = high - GOLDEN_SHARE * (high - low)
        else:
            low, first = first, second
            second = low + GOLDEN_SHARE * (high - low)


def _shrink(masks: Tensor, longest_px: int) -> Tensor:
    height, width = masks.shape[1:]
    scale = min(1.0, longest_px / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return torch.nn.functional.interpolate(masks[:, None], size=size, mode="area")[:, 0]
