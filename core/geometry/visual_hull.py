"""Contains the visual hull: the largest solid whose silhouettes agree with the masks of all views.

Each mask becomes a signed distance to its outline in the image; scaled by depth it bounds the
solid's signed distance from below, and the maximum over views is the field that is meshed. The SDF
is negative inside.

Reference: Laurentini 1994, "The visual hull concept for silhouette-based image understanding".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..camera import Camera, ViewRig
from ..mesh import Mesh, NoSurfaceError
from .isosurface import extract_isosurface
from .transforms import project_points

OUTLINE = 0.5
PADDING_PX = 8
SOFT_RANGE = (0.02, 0.98)
FAINT_COVERAGE = 0.25
COARSE_CELLS = 48


@dataclass(frozen=True)
class VisualHullParams:
    """How finely the hull is sampled.

    Attributes:
        resolution: cells along the longest side of the hull.
        bound: the object lies within the cube [-bound, bound]^3 in world units.
        thin_radius_cells: parts thinner than the grid can hold are thickened to this radius, in
            cells, so that wires and legs do not fall apart; 0 leaves them out.
        tolerated_views: so many views may disagree about a point; for views that do not quite
            fit together, such as those of a video model.
    """

    resolution: int = 112
    bound: float = 1.25
    thin_radius_cells: float = 0.75
    tolerated_views: int = 0

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= 512:
            raise ValueError(f"resolution must lie within 16..512 cells, got {self.resolution}.")
        if not self.bound > 0 or min(self.thin_radius_cells, self.tolerated_views) < 0:
            raise ValueError(
                "bound must be positive, thin_radius_cells and tolerated_views not negative, got "
                f"{self.bound}, {self.thin_radius_cells} and {self.tolerated_views}."
            )


@dataclass(frozen=True)
class SdfGrid:
    """A signed distance sampled on a regular grid of cubic cells; negative inside.

    Attributes:
        values: samples in world units.
        lower: position of sample [0, 0, 0].
        cell: edge length of a cell in world units.
    """

    values: Float[Tensor, "x y z"]
    lower: Float[Tensor, 3]
    cell: float

    @property
    def upper(self) -> Float[Tensor, 3]:
        """Position of the last sample."""
        steps = self.lower.new_tensor([size - 1 for size in self.values.shape])
        return self.lower + self.cell * steps

    def points(self) -> Float[Tensor, "x y z 3"]:
        """Positions of all samples."""
        axes = [
            self.lower[i] + self.cell * torch.arange(size, device=self.lower.device)
            for i, size in enumerate(self.values.shape)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)

    def sample(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Trilinear interpolation; points outside the grid take the value at its border."""
        scaled = 2 * (points - self.lower) / (self.upper - self.lower) - 1
        grid = scaled.flip(-1).reshape(1, 1, 1, -1, 3)  # grid_sample wants z (fastest) first
        sampled = torch.nn.functional.grid_sample(
            self.values[None, None], grid, align_corners=True, padding_mode="border"
        )
        return sampled.reshape(points.shape[:-1])

    def mesh(self, name: str = "mesh") -> Mesh:
        """Watertight surface of the zero level."""
        vertices, faces = extract_isosurface(self.values, self.lower, self.upper)
        return Mesh(vertices, faces, name=name)


def visual_hull_mesh(
    masks: Float[Tensor, "view height width"],
    rig: ViewRig,
    params: VisualHullParams = VisualHullParams(),
) -> Mesh:
    """Watertight mesh of the visual hull.

    Args:
        masks: coverage 0..1 per view, 1 inside; soft edges place the outline between pixels.
        rig: one camera per mask, perspective or orthographic.
        params: sampling.
    """
    return visual_hull_sdf(masks, rig, params).mesh("visual hull")


def visual_hull_sdf(
    masks: Float[Tensor, "view height width"],
    rig: ViewRig,
    params: VisualHullParams = VisualHullParams(),
) -> SdfGrid:
    """Signed distance (a lower bound outside) of the visual hull on a grid that fits it closely.

    Raises:
        ValueError: a mask is empty, or the silhouettes have no common solid (wrong cameras).
    """
    check_masks(masks, rig)
    outlines = [outline_distance(mask) for mask in masks]
    cube = torch.full((3,), params.bound, dtype=masks.dtype, device=masks.device)
    tolerated = min(params.tolerated_views, len(rig) - 1)
    coarse = _sample_hull(outlines, rig, masks, -cube, cube, COARSE_CELLS, tolerated)
    near = coarse.values < coarse.cell
    if not bool(near.any()):
        raise NoSurfaceError(
            "The silhouettes of the views have no solid in common inside the cube of half side "
            f"{params.bound:g}: check the order of the views, the cameras and their radius."
        )
    points = coarse.points()[near]
    lower = (points.amin(dim=0) - 2 * coarse.cell).clamp(min=-params.bound)
    upper = (points.amax(dim=0) + 2 * coarse.cell).clamp(max=params.bound)
    cell = float((upper - lower).max()) / params.resolution
    if params.thin_radius_cells:
        outlines = [
            _thicken(
                outline, mask, params.thin_radius_cells * cell * _pixels_per_unit(camera, mask)
            )
            for outline, mask, camera in zip(outlines, masks, rig, strict=True)
        ]
    return _sample_hull(outlines, rig, masks, lower, upper, params.resolution, tolerated)


def check_masks(masks: Float[Tensor, "view height width"], rig: ViewRig) -> None:
    """Raise ValueError unless there is one finite, non-empty mask per camera."""
    require_shape("masks", masks, len(rig), None, None)
    require_finite("masks", masks)
    empty = [name for mask, name in zip(masks, rig.names, strict=True) if mask.max() <= OUTLINE]
    if empty:
        raise ValueError(
            f"The mask of view {', '.join(empty)} is empty: no pixel is foreground. "
            "Leave that view out or give a mask for it."
        )


def outline_distance(
    mask: Float[Tensor, "height width"],
) -> Float[Tensor, "padded_height padded_width"]:
    """Signed distance in pixels to the outline of a mask, negative inside, `PADDING_PX` wider.

    Partly covered pixels place the outline: coverage is linear in the distance to a straight edge.
    """
    from scipy import ndimage

    padded = np.pad(mask.detach().cpu().double().numpy(), PADDING_PX)
    inside = padded > OUTLINE
    outer = ndimage.distance_transform_edt(~inside) - 0.5
    inner = ndimage.distance_transform_edt(inside) - 0.5
    distance = np.where(inside, -inner, outer)
    soft = (padded > SOFT_RANGE[0]) & (padded < SOFT_RANGE[1])
    near = np.abs(distance) < 1.0  # a translucent inside is no outline
    distance = np.where(soft & near, OUTLINE - padded, distance)
    return torch.from_numpy(distance).to(mask)


def _thicken(outline: Tensor, mask: Tensor, radius_px: float) -> Tensor:
    """Union of the mask with discs of ``radius_px`` along the middle of its thinner parts."""
    from scipy import ndimage

    covered = np.pad(mask.detach().cpu().numpy(), PADDING_PX) > FAINT_COVERAGE
    depth = ndimage.distance_transform_edt(covered)
    ridge = covered & (depth >= ndimage.maximum_filter(depth, size=3)) & (depth < radius_px)
    if not ridge.any():
        return outline
    tube = ndimage.distance_transform_edt(~ridge) - radius_px
    return torch.minimum(outline, torch.from_numpy(tube).to(outline))


def _pixels_per_unit(camera: Camera, mask: Tensor) -> float:
    """Pixels per world unit at the world origin."""
    focal = camera.focal_px(mask.shape[0])
    return focal / float(camera.position.norm()) if camera.is_perspective else focal


def _sample_hull(
    outlines: list[Tensor],
    rig: ViewRig,
    masks: Tensor,
    lower: Tensor,
    upper: Tensor,
    resolution: int,
    tolerated: int,
) -> SdfGrid:
    extent = upper - lower
    cell = float(extent.max()) / resolution
    sizes = [int(torch.ceil(side / cell - 1e-4)) + 1 for side in extent]
    empty = SdfGrid(masks.new_empty(sizes), lower, cell)
    points = empty.points().reshape(-1, 3)
    # The largest bounds so far, the largest first: views that disagree push up all but the last.
    largest = masks.new_full((tolerated + 1, len(points)), -torch.inf)
    height, width = int(masks.shape[1]), int(masks.shape[2])
    for outline, camera in zip(outlines, rig, strict=True):
        pixels, depth = project_points(points, camera, width=width, height=height)
        in_pixels = sample_image(outline, pixels + PADDING_PX)
        distance = in_pixels * world_per_pixel(camera, depth, height)
        bound = torch.where(depth > camera.near, distance, torch.inf)
        for index in range(len(largest)):
            above = torch.maximum(largest[index], bound)
            bound = torch.minimum(largest[index], bound)
            largest[index] = above
    return SdfGrid(largest[-1].clamp(max=10.0).reshape(sizes), lower, cell)


def world_per_pixel(
    camera: Camera, depth: Float[Tensor, " point"], height: int
) -> Float[Tensor, " point"]:
    """Size of a pixel in world units at a camera depth."""
    focal = camera.focal_px(height)
    return depth / focal if camera.is_perspective else torch.full_like(depth, 1.0 / focal)


def sample_image(
    image: Float[Tensor, "height width"], pixels: Float[Tensor, "point 2"], *, nearest: bool = False
) -> Float[Tensor, " point"]:
    """Value of an image at pixel coordinates; outside, the value at its border."""
    size = pixels.new_tensor([image.shape[1], image.shape[0]])
    sampled = torch.nn.functional.grid_sample(
        image[None, None],
        (2 * pixels / size - 1)[None, None],
        mode="nearest" if nearest else "bilinear",
        align_corners=False,
        padding_mode="border",
    )
    return sampled[0, 0, 0]
