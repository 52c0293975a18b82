"""Contains the drawing of picture sets of meshes and Gaussians: view sets and turntables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import (
    KISS3DGEN_ELEVATION_DEG,
    KISS3DGEN_FOV_Y_DEG,
    KISS3DGEN_RADIUS,
    ViewRig,
    make_kiss3dgen_rig,
    make_orbit_rig,
    make_stdgen_rig,
)
from ..gaussian_cloud import GaussianCloud
from ..geometry.normals import encode_bundle_normals, encode_world_normals
from ..mesh import Mesh
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.facing_normals import facing_normals, with_sheet_normals
from ..rendering.mesh import MeshRender, Shading, render_mesh
from ..rendering.splats import SplatRender, render_splats

BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "grey": (0.5, 0.5, 0.5), "black": (0.0, 0.0, 0.0)}
NormalEncoding = Literal["bundle", "world"]
RigPreset = Literal["kiss3dgen", "stdgen", "orbit"]


@dataclass(frozen=True)
class ViewsParams:
    """How view sets are drawn.

    Attributes:
        size_px: width and height of each picture.
        background: name of the colour behind the object.
        shading: colours as they are, or lit from the camera (meshes only).
        normal_encoding: colours of the normal maps, see `geometry.normals`.
    """

    size_px: int = 512
    background: str = "white"
    shading: Shading = "flat_color"
    normal_encoding: NormalEncoding = "bundle"

    def __post_init__(self) -> None:
        if self.background not in BACKGROUNDS:
            raise ValueError(
                f"background must be one of {', '.join(BACKGROUNDS)}, got '{self.background}'."
            )
        if self.normal_encoding not in ("bundle", "world"):
            raise ValueError(
                f"normal_encoding must be bundle or world, got '{self.normal_encoding}'."
            )


@dataclass(frozen=True)
class ViewImages:
    """Pictures in the order of the rig.

    Attributes:
        rgb: over the background.
        masks: coverage, 1 inside the object.
        normals: encoded normal maps on white.
        depth: 1 at the nearest point of all views, falling to 0.1 at the farthest; 0 outside.
    """

    rgb: Float[Tensor, "view height width 3"]
    masks: Float[Tensor, "view height width"]
    normals: Float[Tensor, "view height width 3"]
    depth: Float[Tensor, "view height width"]


def make_named_rig(
    preset: RigPreset,
    *,
    num_views: int = 8,
    first_azimuth_deg: float = 0.0,
    elevation_deg: float = KISS3DGEN_ELEVATION_DEG,
    radius: float = KISS3DGEN_RADIUS,
    fov_y_deg: float = KISS3DGEN_FOV_Y_DEG,
) -> ViewRig:
    """Rig of a preset; number of views, azimuth, elevation and opening shape ``orbit`` only."""
    if preset == "kiss3dgen":
        return make_kiss3dgen_rig(radius)
    if preset == "stdgen":
        return make_stdgen_rig(radius=radius)
    if preset == "orbit":
        if num_views < 1:
            raise ValueError(f"An orbit needs at least one view, got {num_views}.")
        azimuths = [first_azimuth_deg + 360.0 * i / num_views for i in range(num_views)]
        return make_orbit_rig(azimuths, elevation_deg, radius=radius, fov_y_deg=fov_y_deg)
    raise ValueError(f"preset must be kiss3dgen, stdgen or orbit, got '{preset}'.")


def make_turntable_rig(
    num_frames: int, *, elevation_deg: float, radius: float, fov_y_deg: float
) -> ViewRig:
    """Cameras of one turn round the object, without repeating the first."""
    return make_named_rig(
        "orbit",
        num_views=num_frames,
        elevation_deg=elevation_deg,
        radius=radius,
        fov_y_deg=fov_y_deg,
    )


def make_bundle_rig(num_views: int, *, radius: float = KISS3DGEN_RADIUS) -> ViewRig:
    """Cameras of a bundle image: the published four, or as many evenly spaced ones."""
    if num_views == len(make_kiss3dgen_rig()):
        return make_kiss3dgen_rig(radius)
    return make_named_rig("orbit", num_views=num_views, radius=radius)


def render_mesh_views(
    mesh: Mesh,
    rig: ViewRig,
    *,
    params: ViewsParams = ViewsParams(),
    on_progress: ProgressCallback = ignore_progress,
) -> ViewImages:
    """Draw a mesh from every camera; without gradients."""
    mesh = with_sheet_normals(mesh)

    def draw(part: ViewRig) -> MeshRender:
        drawn = render_mesh(
            mesh,
            part,
            width=params.size_px,
            height=params.size_px,
            background=BACKGROUNDS[params.background],
            shading=params.shading,
        )
        return replace(drawn, normals_world=facing_normals(drawn, mesh, part))

    return _draw_views(draw, rig, params, on_progress)


def render_splat_views(
    cloud: GaussianCloud,
    rig: ViewRig,
    *,
    params: ViewsParams = ViewsParams(),
    on_progress: ProgressCallback = ignore_progress,
) -> ViewImages:
    """Draw Gaussians from every camera; without gradients."""

    def draw(part: ViewRig) -> SplatRender:
        return render_splats(
            cloud,
            part,
            width=params.size_px,
            height=params.size_px,
            background=BACKGROUNDS[params.background],
        )

    return _draw_views(draw, rig, params, on_progress)


def _draw_views(
    draw: Callable[[ViewRig], MeshRender | SplatRender],
    rig: ViewRig,
    params: ViewsParams,
    on_progress: ProgressCallback,
) -> ViewImages:
    """Draw view by view, so that memory stays small and the caller can interrupt."""
    rgb, masks, normals, depth = [], [], [], []
    with torch.no_grad():
        for index in range(len(rig)):
            camera = rig.select([index])
            view = draw(camera)
            mask = view.alpha[..., None].clamp(0, 1)
            rgb.append(view.rgb.clamp(0, 1))
            masks.append(view.alpha.clamp(0, 1))
            normals.append(_encode(view.normals_world, camera, params) * mask + (1 - mask))
            depth.append(view.depth)
            on_progress(Progress(index + 1, len(rig), "drawing views", rgb[-1][0]))
    return ViewImages(
        torch.cat(rgb), torch.cat(masks), torch.cat(normals), near_is_white(torch.cat(depth))
    )


def _encode(normals_world: Tensor, rig: ViewRig, params: ViewsParams) -> Tensor:
    if params.normal_encoding == "world":
        return encode_world_normals(normals_world)
    return encode_bundle_normals(normals_world, rig)


def near_is_white(
    depth: Float[Tensor, "view height width"],
) -> Float[Tensor, "view height width"]:
    """Camera depth (0 outside) as a picture: nearest 1, farthest 0.1, outside 0."""
    inside = depth > 0
    if not bool(inside.any()):
        return torch.zeros_like(depth)
    near, far = depth[inside].min(), depth[inside].max()
    shade = 1 - 0.9 * (depth - near) / (far - near).clamp(min=1e-9)
    return torch.where(inside, shade, torch.zeros_like(depth))
