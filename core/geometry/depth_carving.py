"""Contains the carving of a visual hull by normal maps.

Silhouettes give the frame, normals the form: the hull of four side views is boxy and fills every
hollow. Here each view's normal map is integrated to a depth map between the hull's near and far
side, and the space in front of it is carved away. Where a view's depth runs through matter that
another view shows face on, the first view's constants of integration were wrong: it is solved again
with that matter as upper bound. Where carving has cost a silhouette, a thin wall is put back.

Every step errs on the side of too much volume, which refinement can shrink, never of too little.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._checks import require_shape
from ..camera import Camera, ViewRig
from ..mesh import Mesh
from .normal_integration import NormalIntegrationParams, integrate_normals
from .transforms import normalize, pixel_rays, project_points
from .visual_hull import (
    SdfGrid,
    VisualHullParams,
    sample_image,
    visual_hull_sdf,
    world_per_pixel,
)

INSIDE = 0.5
MIN_COSINE = 0.05
OUTLINE_MARGIN_PX = 1.0
SMOOTHED_CELLS = 4.0
RAYS_PER_CHUNK = 8192


@dataclass(frozen=True)
class CarvingParams:
    """How the hull is carved.

    Attributes:
        map_px: longest side of the depth maps.
        rounds: how often the depths are solved again with the other views' matter as bound.
        matter_cells: matter begins and ends this many cells behind a view's surface; the first
            number absorbs the noise of the depths, the second is the thinnest wall kept.
        matter_cosine: only surface seen at least this squarely counts as matter.
        hull: sampling of the hull.
        integration: weights of the first solution.
        later_iterations: reweighted solves in each later round.
        closing_cells: slits up to twice as wide are closed.
        smoothing_cells: standard deviation of the final blur of the field.
    """

    map_px: int = 160
    rounds: int = 1
    matter_cells: tuple[float, float] = (1.5, 3.5)
    matter_cosine: float = 0.25
    hull: VisualHullParams = field(default_factory=VisualHullParams)
    integration: NormalIntegrationParams = field(default_factory=NormalIntegrationParams)
    later_iterations: int = 4
    closing_cells: int = 2
    smoothing_cells: float = 0.7

    def __post_init__(self) -> None:
        if not 32 <= self.map_px <= 512:
            raise ValueError(f"map_px must lie within 32..512, got {self.map_px}.")
        if not 0 <= self.matter_cells[0] < self.matter_cells[1]:
            raise ValueError(f"matter_cells must grow from 0 or more, got {self.matter_cells}.")


@dataclass(frozen=True)
class _DepthView:
    """One view while it is solved; maps are [height, width].

    Attributes:
        camera: its camera.
        mask: pixels whose ray meets the hull.
        normals_camera: unit normals in camera axes.
        cosine: between normal and ray towards the viewer.
        nearest: depth of the hull's near side.
        farthest: depth of its far side.
        depth: current solution.
    """

    camera: Camera
    mask: Bool[Tensor, "height width"]
    normals_camera: Float[Tensor, "height width 3"]
    cosine: Float[Tensor, "height width"]
    nearest: Float[Tensor, "height width"]
    farthest: Float[Tensor, "height width"]
    depth: Float[Tensor, "height width"]


def carved_hull_mesh(
    masks: Float[Tensor, "view height width"],
    normals_world: Float[Tensor, "view height width 3"],
    rig: ViewRig,
    params: CarvingParams = CarvingParams(),
) -> Mesh:
    """Watertight mesh of the visual hull, rounded and hollowed by the normal maps of its views."""
    hull = visual_hull_sdf(masks, rig, params.hull)
    return carve_hull(hull, masks, normals_world, rig, params).mesh("carved hull")


def carve_hull(
    hull: SdfGrid,
    masks: Float[Tensor, "view height width"],
    normals_world: Float[Tensor, "view height width 3"],
    rig: ViewRig,
    params: CarvingParams = CarvingParams(),
) -> SdfGrid:
    """The hull's field, raised in front of the surface that the normals of each view describe.

    Args:
        hull: field of `visual_hull_sdf` for the same masks and cameras.
        masks: coverage 0..1 per view.
        normals_world: unit normals inside the masks.
        rig: one camera per view.
        params: resolution and trust.
    """
    views = _solved_views(hull, masks, normals_world, rig, params)
    again = replace(params.integration, iterations=params.later_iterations)
    for _ in range(params.rounds):
        bounds = _matter_bounds(hull, views, params)
        views = [
            _solve(replace(view, farthest=bound), again, view.depth)
            for view, bound in zip(views, bounds, strict=True)
        ]
    points = hull.points().reshape(-1, 3)
    in_front = [_distance_in_front(points, view)[0] for view in views]
    values = torch.stack([hull.values.reshape(-1), *in_front]).amax(dim=0)
    carved = replace(hull, values=values.reshape(hull.values.shape))
    carved = _restore_silhouettes(carved, hull, views, in_front, params)
    return _heal(carved, hull, params)


def integrate_views(
    hull: SdfGrid,
    masks: Float[Tensor, "view height width"],
    normals_world: Float[Tensor, "view height width 3"],
    rig: ViewRig,
    params: CarvingParams = CarvingParams(),
) -> Float[Tensor, "view map_height map_width"]:
    """Camera depth of every view from its normals, between the hull's near and far side.

    The arguments are those of `carve_hull`; the maps are at most ``params.map_px`` long and 0
    outside the masks.
    """
    views = _solved_views(hull, masks, normals_world, rig, params)
    return torch.stack([view.depth * view.mask for view in views])


def _solved_views(
    hull: SdfGrid, masks: Tensor, normals_world: Tensor, rig: ViewRig, params: CarvingParams
) -> list[_DepthView]:
    require_shape("normals_world", normals_world, *masks.shape, 3)
    small_masks, small_normals = _shrink(masks, normals_world, params.map_px)
    views = [
        _bounded_view(hull, mask, normals, camera)
        for mask, normals, camera in zip(small_masks, small_normals, rig, strict=True)
    ]
    return [_solve(view, params.integration, None) for view in views]


def _heal(carved: SdfGrid, hull: SdfGrid, params: CarvingParams) -> SdfGrid:
    """Close slits where the depth maps of two views do not quite meet, and smooth the steps."""
    from scipy import ndimage

    low = -SMOOTHED_CELLS * carved.cell
    values = carved.values.clamp(low, -low)
    solid = (values < 0).cpu().numpy()
    if params.closing_cells:
        ball = ndimage.iterate_structure(
            ndimage.generate_binary_structure(3, 1), params.closing_cells
        )
        margin = 2 * params.closing_cells
        closed = ndimage.binary_closing(np.pad(solid, margin), ball)
        closed = closed[margin:-margin, margin:-margin, margin:-margin]
        filled = torch.from_numpy(closed & ~solid).to(values.device)
        patch = hull.values.clamp(min=-carved.cell)
        values = torch.where(filled, torch.minimum(values, patch), values)
    blurred = ndimage.gaussian_filter(values.cpu().numpy(), params.smoothing_cells)
    smooth = torch.from_numpy(blurred).to(values)
    # Thin parts would fade away: what was inside stays inside.
    return replace(carved, values=torch.where((values < 0) & (smooth >= 0), values, smooth))


def _restore_silhouettes(
    carved: SdfGrid,
    hull: SdfGrid,
    views: list[_DepthView],
    in_front: list[Tensor],
    params: CarvingParams,
) -> SdfGrid:
    """Put a wall behind a view's surface where the other views carved its silhouette away."""
    points = hull.points().reshape(-1, 3)
    solid, values = hull.values.reshape(-1), carved.values.reshape(-1)
    wall = params.matter_cells[1] * hull.cell
    for view, distance in zip(views, in_front, strict=True):
        lost = _lost_pixels(carved, view)
        if not bool(lost.any()):
            continue
        height, width = int(lost.shape[0]), int(lost.shape[1])
        pixels, _ = project_points(points, view.camera, width=width, height=height)
        behind_lost = sample_image(lost, pixels, nearest=True) > INSIDE
        shell = torch.stack([solid, distance, -wall - distance]).amax(dim=0)
        values = torch.where(behind_lost, torch.minimum(values, shell), values)
    return replace(hull, values=values.reshape(hull.values.shape))


def _lost_pixels(carved: SdfGrid, view: _DepthView) -> Float[Tensor, "height width"]:
    """1 where a ray met the hull but misses the carved solid, grown by a pixel."""
    height, width = int(view.mask.shape[0]), int(view.mask.shape[1])
    origins, directions = pixel_rays(view.camera, width=width, height=height)
    lost = torch.zeros_like(view.depth)
    chosen = view.mask
    near, _ = _hull_crossings(carved, origins[chosen].to(lost), directions[chosen].to(lost))
    lost[chosen] = torch.isinf(near).to(lost)
    return torch.nn.functional.max_pool2d(lost[None], 3, stride=1, padding=1)[0]


def _shrink(masks: Tensor, normals: Tensor, longest_px: int) -> tuple[Tensor, Tensor]:
    """Masks and normals at a lower resolution; normals are averaged over the covered part."""
    height, width = masks.shape[1:]
    scale = min(1.0, longest_px / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    layers = torch.cat([normals * masks[..., None], masks[..., None]], dim=-1).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(layers, size=size, mode="area").permute(0, 2, 3, 1)
    return small[..., 3], normalize(small[..., :3])


def _bounded_view(hull: SdfGrid, mask: Tensor, normals: Tensor, camera: Camera) -> _DepthView:
    height, width = int(mask.shape[0]), int(mask.shape[1])
    origins, directions = pixel_rays(camera, width=width, height=height)
    nearest, farthest = torch.zeros_like(mask), torch.zeros_like(mask)
    chosen = (mask > INSIDE) & (normals.norm(dim=-1) > INSIDE)
    near, far = _hull_crossings(hull, origins[chosen].to(mask), directions[chosen].to(mask))
    # distance along the ray to depth along the viewing direction
    along = (directions[chosen].to(mask) * -camera.camera_to_world[:3, 2].to(mask)).sum(dim=-1)
    nearest[chosen], farthest[chosen] = near * along, far * along
    usable = chosen & torch.isfinite(nearest)
    rotation = camera.camera_to_world[:3, :3].to(normals)
    cosine = -(normals * directions.to(normals)).sum(dim=-1)
    nearest = torch.where(usable, nearest, torch.ones_like(nearest))
    farthest = torch.where(usable, farthest, torch.ones_like(farthest))
    return _DepthView(camera, usable, normals @ rotation, cosine, nearest, farthest, nearest)


def _hull_crossings(hull: SdfGrid, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Distances along rays where they first enter and last leave the solid; infinite if never."""
    centre = (hull.lower + hull.upper) / 2
    reach = float((hull.upper - hull.lower).norm()) / 2
    steps = int(2 * reach / hull.cell) + 1
    near, far = [], []
    for start, direction in zip(
        origins.split(RAYS_PER_CHUNK), directions.split(RAYS_PER_CHUNK), strict=True
    ):
        middle = ((centre - start) * direction).sum(dim=-1, keepdim=True)
        t = (middle + torch.linspace(-reach, reach, steps).to(start)).clamp(min=0)
        points = start[:, None] + t[..., None] * direction[:, None]
        within = ((points >= hull.lower) & (points <= hull.upper)).all(dim=-1)
        values = torch.where(within, hull.sample(points), hull.cell)
        near.append(_first_crossing(values, t))
        far.append(_first_crossing(values.flip(1), t.flip(1)))
    return torch.cat(near or [origins[:, 0]]), torch.cat(far or [origins[:, 0]])


def _first_crossing(values: Tensor, t: Tensor) -> Tensor:
    """Where along each row the values first turn negative, interpolated; infinite if never."""
    inside = values < 0
    after = inside.int().argmax(dim=1, keepdim=True)
    before = (after - 1).clamp(min=0)
    high, low = values.gather(1, before), values.gather(1, after)
    share = (high / (high - low).clamp(min=1e-9)).clamp(0, 1)
    crossing = t.gather(1, before) + share * (t.gather(1, after) - t.gather(1, before))
    return torch.where(inside.any(dim=1), crossing[:, 0], torch.inf)


def _solve(view: _DepthView, params: NormalIntegrationParams, initial: Tensor | None) -> _DepthView:
    depth = integrate_normals(
        view.normals_camera,
        view.mask,
        view.camera,
        view.nearest,
        view.farthest,
        initial=initial,
        params=params,
    )
    return replace(view, depth=depth)


def _distance_in_front(points: Tensor, view: _DepthView) -> tuple[Tensor, Tensor, Tensor]:
    """How far points lie in front of a view's surface, the cosine there, and their depth.

    The distance is measured to the tangent plane. Outside the mask the nearest pixel answers: there
    the hull decides anyway.
    """
    height, width = int(view.mask.shape[0]), int(view.mask.shape[1])
    pixels, depth = project_points(points, view.camera, width=width, height=height)
    cosine = sample_image(_fill_outside(view.cosine, view.mask), pixels, nearest=True)
    filled = _fill_outside(view.depth, view.mask)
    surface = sample_image(filled, pixels, nearest=True)
    smooth = sample_image(filled, pixels)
    # Between pixels of one surface interpolate; across a jump of depth keep to one side.
    same = (smooth - surface).abs() * cosine < world_per_pixel(view.camera, surface, height)
    surface = torch.where(same, smooth, surface)
    return (surface - depth) * cosine.clamp(MIN_COSINE, 1), cosine, depth


def _fill_outside(image: Tensor, mask: Tensor) -> Tensor:
    from scipy import ndimage

    if not bool(mask.any()):
        return image
    rows, columns = ndimage.distance_transform_edt(
        ~mask.cpu().numpy(), return_distances=False, return_indices=True
    )
    return image[torch.from_numpy(rows).long(), torch.from_numpy(columns).long()]


def _matter_bounds(
    hull: SdfGrid, views: list[_DepthView], params: CarvingParams
) -> list[Float[Tensor, "height width"]]:
    """Per view: the depth at which its rays meet matter that another view has shown face on."""
    inside = (hull.values < 0).reshape(-1)
    points = hull.points().reshape(-1, 3)[inside]
    begin, end = (cells * hull.cell for cells in params.matter_cells)
    matter, depths = [], []
    for view in views:
        distance, cosine, depth = _distance_in_front(points, view)
        behind = (distance < -begin) & (distance > -end)
        matter.append(behind & (cosine > params.matter_cosine) & _is_interior(points, view))
        depths.append(depth)
    bounds = []
    for index, view in enumerate(views):
        others = torch.zeros_like(matter[0])
        for other, flags in enumerate(matter):
            if other != index:
                others |= flags
        first = _nearest_depth_image(points[others], depths[index][others], view, hull.cell)
        bounds.append(torch.minimum(view.farthest, first).maximum(view.nearest))
    return bounds


def _is_interior(points: Tensor, view: _DepthView) -> Tensor:
    """Whether points project well inside a view's mask: normals at outlines are unreliable."""
    from scipy import ndimage

    height, width = int(view.mask.shape[0]), int(view.mask.shape[1])
    depth_px = ndimage.distance_transform_edt(view.mask.cpu().numpy())
    interior = torch.from_numpy(depth_px > OUTLINE_MARGIN_PX).to(view.depth)
    pixels, _ = project_points(points, view.camera, width=width, height=height)
    return sample_image(interior, pixels, nearest=True) > INSIDE


def _nearest_depth_image(
    points: Tensor, depth: Tensor, view: _DepthView, cell: float
) -> Float[Tensor, "height width"]:
    """Smallest depth of the points that fall into each pixel, splatted to about one cell."""
    height, width = int(view.mask.shape[0]), int(view.mask.shape[1])
    distance = float(depth.mean()) if len(depth) else 1.0
    focal = view.camera.focal_px(height)
    cell_px = cell * (focal / distance if view.camera.is_perspective else focal)
    block = max(1, round(cell_px))  # blocks of pixels as large as a cell leave no holes
    rows, columns = -(-height // block), -(-width // block)
    pixels, _ = project_points(points, view.camera, width=width, height=height)
    spot = (pixels / block).floor().long()
    seen = (spot >= 0).all(dim=1) & (spot[:, 0] < columns) & (spot[:, 1] < rows)
    image = torch.full((rows * columns,), torch.inf, dtype=depth.dtype, device=depth.device)
    image = image.scatter_reduce(0, spot[seen, 1] * columns + spot[seen, 0], depth[seen], "amin")
    blocks = image.reshape(rows, columns).repeat_interleave(block, 0).repeat_interleave(block, 1)
    return blocks[:height, :width]
