"""Contains what each view can be trusted with: which surface it shows where, and how safely.

A view is trusted inside its object mask, away from the mask's border and away from depth jumps
(there the picture mixes two surfaces). Hidden points are found with the *plane of the face* that a
pixel shows instead of one depth per pixel: the plane carries its slope, so that a surface seen at
a grazing angle does not hide itself and the depth bias can stay below one pixel.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from ..backends.probe import numba_problem
from ..camera import Camera, ViewRig
from ..geometry.normals import face_normals
from ..geometry.transforms import homogenize, project_points
from ..mesh import Mesh

LOGGER = logging.getLogger(__name__)

REFERENCE_TILE_PX = 512
"""Erosion and blur widths are given for pictures of this height and scale with it."""
OPAQUE = 0.9
"""A mask value from which on a pixel shows the object and nothing of the background."""
DEPTH_JUMP_PX = 2.0
"""Neighbouring pixels further apart than this, across the planes they show, are a depth jump."""
MIN_BLUR_SIGMA_PX = 0.25


@dataclass(frozen=True)
class ViewGeometry:
    """The mesh as one camera sees it.

    Attributes:
        camera: the camera.
        face_index: face shown at each pixel centre; -1 on background.
        planes: (unit normal towards the camera, offset) of that face in world space, so that
            ``normal @ point + offset`` is the distance in front of it; 0 on background.
        facing_away: the face shown turns its back to the camera.
        confidence: how far each pixel can be trusted, 0..1: 1 well inside the object mask.
        jumps: pixels on both sides of steps in depth.
        pure: 1 wherever a pixel shows one surface only, also in the rim that erosion took away.
    """

    camera: Camera
    face_index: Int64[Tensor, "height width"]
    planes: Float[Tensor, "height width 4"]
    facing_away: Bool[Tensor, "height width"]
    confidence: Float[Tensor, "height width"]
    jumps: Bool[Tensor, "height width"]
    pure: Float[Tensor, "height width"]


def soften_masks(
    masks: Float[Tensor, "view height width"], *, erosion_px: float, blur_px: float
) -> Float[Tensor, "view height width"]:
    """Shrink masks and fade their border inwards; nothing remains where they were not opaque.

    Args:
        masks: coverage 0..1.
        erosion_px: side of the square erosion window for a tile of 512 pixels.
        blur_px: standard deviation of the Gaussian for a tile of 512 pixels.

    Reference: Kiss3DGen (Lin et al. 2025), released projection: grey erosion 10x10, Gaussian 5.
    There the blur reaches back over the border; here it is cut off at the eroded mask.
    """
    scale = masks.shape[1] / REFERENCE_TILE_PX
    eroded = erode_masks(masks, radius_px=_radius(erosion_px / 2 * scale))
    return gaussian_blur(eroded, sigma_px=blur_px * scale) * eroded


def erode_masks(
    masks: Float[Tensor, "view height width"], *, radius_px: int
) -> Float[Tensor, "view height width"]:
    """1 where the whole square of side ``2 * radius_px + 1`` is opaque, else 0."""
    outside = dilate_square(masks < OPAQUE, radius_px=radius_px)
    return (~outside).to(masks.dtype)


def dilate_square(
    marks: Bool[Tensor, "view height width"], *, radius_px: int
) -> Bool[Tensor, "view height width"]:
    """True within a square of side ``2 * radius_px + 1`` round each mark; nothing lies outside."""
    for dim in (1, 2) if radius_px > 0 else ():
        size = marks.shape[dim]
        before = functional.pad(marks.int().cumsum(dim), (1, 0, 1, 0) if dim == 1 else (1, 0))
        before = before[:, :, 1:] if dim == 1 else before  # sums of what lies before each place
        places = torch.arange(size, device=marks.device)
        low, high = (places - radius_px).clamp(min=0), (places + radius_px + 1).clamp(max=size)
        marks = before.index_select(dim, high) > before.index_select(dim, low)
    return marks


def dot_rows(
    first: Float[Tensor, "*row channel"], second: Float[Tensor, "*row channel"]
) -> Float[Tensor, "*row"]:
    """Dot products along the last axis; faster than a sum over so short an axis."""
    product = first * second
    return product @ product.new_ones(product.shape[-1])


def gaussian_blur(
    images: Float[Tensor, "view height width"], *, sigma_px: float
) -> Float[Tensor, "view height width"]:
    """Separable Gaussian blur, the border repeated outwards."""
    if sigma_px < MIN_BLUR_SIGMA_PX:
        return images
    radius = max(1, int(3 * sigma_px + 0.5))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    stack = images[:, None]
    stack = functional.pad(stack, (radius, radius, 0, 0), mode="replicate")
    stack = functional.conv2d(stack, kernel[None, None, None, :])
    stack = functional.pad(stack, (0, 0, radius, radius), mode="replicate")
    return functional.conv2d(stack, kernel[None, None, :, None])[:, 0]


@torch.no_grad()
def view_geometry(
    mesh: Mesh,
    rig: ViewRig,
    *,
    width: int,
    height: int,
    masks: Float[Tensor, "view mask_height mask_width"] | None = None,
    erosion_px: float = 10.0,
    blur_px: float = 5.0,
    jump_margin_px: float = 2.0,
) -> list[ViewGeometry]:
    """Rasterise the mesh from every camera and rate every pixel.

    Args:
        mesh: the mesh.
        rig: the cameras.
        width: columns of the raster.
        height: rows of the raster.
        masks: object masks of the pictures in any size; the mesh's own silhouette when None.
        erosion_px: see `soften_masks`.
        blur_px: see `soften_masks`.
        jump_margin_px: pixels this close to a depth jump are not trusted, for tiles of 512; 0
            trusts all pixels.
    """
    from .mesh import rasterize, world_to_clip  # loads the kernels of the chosen backend

    clip = world_to_clip(mesh.vertices, rig, width=width, height=height)
    face_index = rasterize(clip, mesh.faces, width=width, height=height)[..., 3].round().long() - 1
    covered = (face_index >= 0).to(mesh.vertices.dtype)
    if masks is None:
        trusted = covered
    else:
        trusted = functional.interpolate(
            masks[:, None].to(covered), size=(height, width), mode="bilinear", antialias=True
        )[:, 0]
    scale = height / REFERENCE_TILE_PX
    confidence = soften_masks(trusted, erosion_px=erosion_px, blur_px=blur_px)
    pure = erode_masks(trusted, radius_px=1 if erosion_px > 0 else 0)  # anti-aliasing: one pixel
    geometry = []
    for view, camera in enumerate(rig):
        planes, facing_away = _facing_planes(mesh, camera, face_index[view])
        jumps = torch.zeros_like(face_index[view : view + 1], dtype=torch.bool)
        if jump_margin_px > 0:
            jumps = _depth_jumps(planes, face_index[view], camera)[None]
        near_jump = dilate_square(jumps, radius_px=_radius(jump_margin_px * scale))[0]
        geometry.append(
            ViewGeometry(
                camera,
                face_index[view],
                planes,
                facing_away,
                confidence=confidence[view] * ~near_jump,
                jumps=jumps[0],
                pure=pure[view] * ~jumps[0],
            )
        )
    return geometry


def hidden_points(
    points: Float[Tensor, "point 3"],
    pixels: Float[Tensor, "point 2"],
    depth: Float[Tensor, " point"],
    view: ViewGeometry,
    *,
    bias_px: float,
) -> Bool[Tensor, " point"]:
    """True for points that lie behind what the view shows at their place.

    A point is hidden when it lies behind the planes of all faces shown at the four pixels round
    its projection; where all four are background nothing hides it.

    Args:
        points: world positions in front of the camera and inside the picture.
        pixels: their pixel coordinates.
        depth: their distance along the viewing direction.
        view: the mesh seen by the camera.
        bias_px: how far behind a plane a point may lie, in pixel sizes at its depth.
    """
    height, width = view.face_index.shape
    focal = view.camera.focal_px(height)
    bias = bias_px * (depth / focal if view.camera.is_perspective else 1.0 / focal)
    planes = view.planes.reshape(-1, 4)
    covered = view.face_index.reshape(-1) >= 0
    corner = (pixels - 0.5).floor().long()
    homogeneous = homogenize(points)
    candidates = torch.arange(len(points), device=points.device)
    found_surface = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        columns = (corner[candidates, 0] + dx).clamp(0, width - 1)
        rows = (corner[candidates, 1] + dy).clamp(0, height - 1)
        flat = rows * width + columns
        tap, has_surface = planes[flat], covered[flat]
        distance = dot_rows(tap, homogeneous[candidates])
        in_front = has_surface & (distance >= -_at(bias, candidates))
        found_surface[candidates] |= has_surface
        candidates = candidates[~in_front]  # the next taps need to look at the rest only
        if not len(candidates):
            break
    hidden = torch.zeros_like(found_surface)
    hidden[candidates] = found_surface[candidates]
    return hidden


def shown_vertices(mesh: Mesh, view: ViewGeometry, keep: Bool[Tensor, " face"]) -> Tensor:
    """True for vertices of faces that own at least one pixel and are in ``keep``.

    The rule of the reference; faces smaller than a pixel can be missed.
    """
    shown = torch.zeros(mesh.num_faces, dtype=torch.bool, device=mesh.faces.device)
    shown[view.face_index[view.face_index >= 0]] = True
    vertices = torch.zeros(mesh.num_vertices, dtype=torch.bool, device=mesh.faces.device)
    vertices[mesh.faces[shown & keep].reshape(-1)] = True
    return vertices


def shows_back_faces(views: list[ViewGeometry], limit: float = 0.02) -> bool:
    """True when more than ``limit`` of the visible pixels show faces from behind.

    That happens for open or inside-out meshes; their faces must count from both sides.
    """
    covered = sum(int((view.face_index >= 0).sum()) for view in views)
    away = sum(int(view.facing_away.sum()) for view in views)
    return away > limit * max(covered, 1)


def project_visible_candidates(
    points: Float[Tensor, "point 3"], view: ViewGeometry
) -> tuple[Float[Tensor, "point 2"], Float[Tensor, " point"], Bool[Tensor, " point"]]:
    """Pixel coordinates in the raster, depth, and whether a point lies inside the picture."""
    height, width = view.face_index.shape
    pixels, depth = project_points(points, view.camera, width=width, height=height)
    inside = (
        (depth > view.camera.near)
        & (depth < view.camera.far)
        & (pixels[:, 0] > 0)
        & (pixels[:, 0] < width)
        & (pixels[:, 1] > 0)
        & (pixels[:, 1] < height)
    )
    return pixels, depth, inside


def _radius(width_px: float) -> int:
    return max(1, int(width_px + 0.5)) if width_px > 0 else 0


def _at(values: Tensor | float, index: Tensor) -> Tensor | float:
    return values[index] if isinstance(values, Tensor) else values


def _facing_planes(mesh: Mesh, camera: Camera, face_index: Tensor) -> tuple[Tensor, Tensor]:
    normals = face_normals(mesh.vertices, mesh.faces)
    anchors = mesh.vertices[mesh.faces[:, 0]]
    pose = camera.camera_to_world.to(mesh.vertices)
    towards = pose[:3, 3] - anchors if camera.is_perspective else pose[:3, 2].expand_as(anchors)
    away = dot_rows(normals, towards) < 0
    normals = torch.where(away[:, None], -normals, normals)
    offsets = -dot_rows(normals, anchors)[:, None]
    nothing = torch.zeros(1, 4, dtype=normals.dtype, device=normals.device)
    table = torch.cat([torch.cat([normals, offsets], dim=1), nothing])  # index -1: background
    away = torch.cat([away, away.new_zeros(1)])
    return table[face_index], away[face_index]


def _surface_points(planes: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """World point at each pixel centre on the plane shown there, and its depth."""
    height, width = planes.shape[:2]
    pose = camera.camera_to_world.to(planes)
    focal = camera.focal_px(height)
    xs = (torch.arange(width, device=planes.device, dtype=planes.dtype) + 0.5 - width / 2) / focal
    ys = (height / 2 - torch.arange(height, device=planes.device, dtype=planes.dtype) - 0.5) / focal
    flat = torch.stack([xs[None].expand(height, width), ys[:, None].expand(height, width)], dim=-1)
    # In camera space the plane is n.p + d = 0 and the ray (x, y, -1) * depth (perspective) or
    # (x, y, -depth) (orthographic).
    normal = planes[..., :3] @ pose[:3, :3]
    offset = planes[..., 3] + planes[..., :3] @ pose[:3, 3]
    sideways = dot_rows(normal[..., :2], flat)
    if camera.is_perspective:
        denominator = sideways - normal[..., 2]
        depth = -offset / torch.where(denominator.abs() < 1e-9, 1e-9, denominator)
        local = torch.cat([flat, -torch.ones_like(flat[..., :1])], dim=-1) * depth[..., None]
    else:
        slope = torch.where(normal[..., 2].abs() < 1e-9, 1e-9, normal[..., 2])
        depth = (sideways + offset) / slope
        local = torch.cat([flat, -depth[..., None]], dim=-1)
    return (homogenize(local) @ pose.T)[..., :3], depth


def _depth_jumps(planes: Tensor, face_index: Tensor, camera: Camera) -> Tensor:
    """True on both sides of steps between two surfaces that overlap in the picture."""
    if planes.device.type == "cpu" and not numba_problem():
        return _depth_jumps_compiled(planes, face_index, camera)
    return _depth_jumps_plain(planes, face_index, camera)


def _depth_jumps_compiled(planes: Tensor, face_index: Tensor, camera: Camera) -> Tensor:
    from ..backends.numba_cpu.depth_jumps import find_depth_jumps
    from ..backends.numba_cpu.runtime import run_kernel, to_array

    jumps = torch.zeros(planes.shape[:2], dtype=torch.bool)
    run_kernel(
        find_depth_jumps,
        to_array(planes, np.float32),
        (face_index >= 0).numpy(),
        to_array(camera.camera_to_world, np.float64),
        (camera.focal_px(planes.shape[0]), float(camera.is_perspective)),
        DEPTH_JUMP_PX,
        jumps.numpy(),
    )
    return jumps


def _depth_jumps_plain(planes: Tensor, face_index: Tensor, camera: Camera) -> Tensor:
    points, depth = _surface_points(planes, camera)
    focal = camera.focal_px(planes.shape[0])
    footprint = depth / focal if camera.is_perspective else torch.full_like(depth, 1 / focal)
    covered, normals = face_index >= 0, planes[..., :3].contiguous()
    jumps = torch.zeros(planes.shape[:2], dtype=torch.bool, device=planes.device)
    full, here, there = slice(None), slice(None, -1), slice(1, None)
    for first, second in (
        ((full, here), (full, there)),
        ((here, full), (there, full)),
        ((here, here), (there, there)),
        ((here, there), (there, here)),
    ):
        step = points[second] - points[first]
        across = torch.maximum(
            dot_rows(normals[first], step).abs(), dot_rows(normals[second], step).abs()
        )
        limit = DEPTH_JUMP_PX * torch.minimum(footprint[first], footprint[second])
        jump = (across > limit) & covered[first] & covered[second]
        jumps[first] |= jump
        jumps[second] |= jump
    return jumps
