"""Contains what one view knows about points of the surface: which it sees, and their colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from ..backends.probe import numba_problem
from ..geometry.normals import face_normals
from ..mesh import Mesh
from .projection_params import VertexProjectionParams
from .visibility import ViewGeometry, dot_rows, hidden_points, project_visible_candidates


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
    if candidates is None:
        candidates = torch.arange(len(points), device=points.device)
    look = _look_compiled if _compiled_kernels_fit(points) else _look
    index, cosines, trust, pixels = look(
        points, normals, candidates, view, params, two_sided=two_sided, test_hidden=test_hidden
    )
    height, width = view.face_index.shape
    image_xy = pixels / pixels.new_tensor([width, height]) * 2 - 1
    strength = view_weight * cosines**params.cos_power
    # Sharper weights choose between views; they do not make a surface less well seen.
    seen_strength = view_weight * cosines ** min(params.cos_power, 2.0)
    support = torch.maximum(trust[:, 0], trust[:, 1]) if params.rim_weight > 0 else trust[:, 0]
    weight = strength * (trust[:, 0] + params.rim_weight * trust[:, 1])
    return Observation(index, weight, seen_strength * support, image_xy)


def _compiled_kernels_fit(points: Tensor) -> bool:
    return points.device.type == "cpu" and not numba_problem()


def _look(
    points: Tensor,
    normals: Tensor,
    candidates: Tensor,
    view: ViewGeometry,
    params: VertexProjectionParams,
    *,
    two_sided: bool,
    test_hidden: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices of the seen candidates, their cosines, (confidence, purity) and raster pixels."""
    index = candidates
    cosines = cosines_to_camera(points[index], normals[index], view, params.direction)
    cosines = cosines.abs() if two_sided else cosines
    facing = cosines > params.cos_threshold
    index, cosines = index[facing], cosines[facing]
    pixels, depth, inside = project_visible_candidates(points[index], view)
    index, cosines, pixels, depth = index[inside], cosines[inside], pixels[inside], depth[inside]
    height, width = view.face_index.shape
    image_xy = pixels / pixels.new_tensor([width, height]) * 2 - 1
    trust = sample_view(torch.stack([view.confidence, view.pure], dim=-1), image_xy)
    kept = trust[:, 0] + params.rim_weight * trust[:, 1] > 0
    if test_hidden:
        hidden = torch.zeros_like(kept)
        hidden[kept] = hidden_points(
            points[index[kept]], pixels[kept], depth[kept], view, bias_px=params.bias_px
        )
        kept = kept & ~hidden
    return index[kept], cosines[kept], trust[kept], pixels[kept]


def _look_compiled(
    points: Tensor,
    normals: Tensor,
    candidates: Tensor,
    view: ViewGeometry,
    params: VertexProjectionParams,
    *,
    two_sided: bool,
    test_hidden: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as `_look` in one pass over the points."""
    from ..backends.numba_cpu.point_visibility import observe
    from ..backends.numba_cpu.runtime import run_kernel, to_array

    camera = view.camera
    seen = torch.zeros(len(candidates), 5)
    run_kernel(
        observe,
        to_array(points, np.float32),
        to_array(normals, np.float32),
        to_array(candidates, np.int64),
        to_array(camera.camera_to_world, np.float64),
        (
            camera.focal_px(len(view.face_index)),
            float(camera.near),
            float(camera.far),
            float(camera.is_perspective),
            float(params.direction == "ray"),
        ),
        (
            float(params.cos_threshold),
            float(params.bias_px if test_hidden else -1.0),
            float(two_sided),
            float(params.rim_weight),
        ),
        to_array(view.planes, np.float32),
        (view.face_index >= 0).numpy(),
        to_array(torch.stack([view.confidence, view.pure], dim=-1), np.float32),
        seen.numpy(),
    )
    kept = (seen[:, 0] > 0).nonzero()[:, 0]
    seen = seen[kept].to(points.dtype)
    return candidates[kept], seen[:, 0], seen[:, 1:3], seen[:, 3:]


@torch.no_grad()
def facing_faces(mesh: Mesh, view: ViewGeometry) -> Bool[Tensor, " face"]:
    """True for faces whose outer side is turned to the camera."""
    normals = face_normals(mesh.vertices, mesh.faces)
    return cosines_to_camera(mesh.vertices[mesh.faces[:, 0]], normals, view, "ray") > 0


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


def cosines_to_camera(
    points: Float[Tensor, "point 3"],
    normals: Float[Tensor, "point 3"],
    view: ViewGeometry,
    direction: Literal["ray", "axis"],
) -> Float[Tensor, " point"]:
    """Cosine between normals and the way to the camera, or its one optical axis."""
    pose = view.camera.camera_to_world.to(points)
    if direction == "ray" and view.camera.is_perspective:
        towards = pose[:3, 3] - points
        return dot_rows(normals, towards) / dot_rows(towards, towards).clamp(min=1e-24).sqrt()
    return normals @ pose[:3, 2]
