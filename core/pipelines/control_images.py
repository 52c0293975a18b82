"""Contains the condition pictures of ControlNets, made from a reference bundle.

Every picture has the size of the whole bundle and lies on it pixel by pixel: depth and normals
stand in both rows, because both rows show the same views.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.4 and released code (tile, blur); the paper names
edges as possible, the code has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ..bundle_image import BundleImage, join_bundle
from ..camera import ViewRig, make_kiss3dgen_rig
from ..geometry.depth_carving import CarvingParams, integrate_views
from ..geometry.visual_hull import VisualHullParams, visual_hull_sdf
from ..mesh import Mesh
from ..rendering.mesh import render_mesh
from ..rendering.visibility import gaussian_blur
from .bundle_views import read_bundle_views
from .edge_map import find_edges
from .render_views import near_is_white

ControlKind = Literal["tile", "blur", "canny", "depth", "normal", "gray", "low quality"]
CONTROL_KINDS: tuple[ControlKind, ...] = (
    "tile", "blur", "canny", "depth", "normal", "gray", "low quality",
)  # fmt: skip
FLAT_NORMAL = (0.5, 0.5, 1.0)
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ControlImageParams:
    """How condition pictures are made.

    Attributes:
        down_scale: "tile" and "low quality" pictures are shrunk by this and enlarged again; 1, as
            every caller of the released code has it, leaves them as they are.
        blur_px: standard deviation of "blur".
        canny_low: lower threshold of "canny", see `edge_map.find_edges`.
        canny_high: upper threshold.
    """

    down_scale: float = 1.0
    blur_px: float = 2.0
    canny_low: float = 0.15
    canny_high: float = 0.3

    def __post_init__(self) -> None:
        if self.down_scale < 1 or self.blur_px < 0:
            raise ValueError(
                "down_scale must be at least 1 and blur_px not negative, got "
                f"{self.down_scale} and {self.blur_px}."
            )


def make_control_image(
    bundle: BundleImage,
    kind: ControlKind,
    params: ControlImageParams = ControlImageParams(),
    *,
    mesh: Mesh | None = None,
    rig: ViewRig | None = None,
) -> Float[Tensor, "height width 3"]:
    """Condition picture of one kind.

    Args:
        bundle: the reference.
        kind: "tile" (the bundle itself), "blur", "canny" (white edges on black), "depth" (near is
            white, background black), "normal" (red to the right, flat background), "gray", or
            "low quality".
        params: settings.
        mesh: what the bundle shows, placed as in it; then depth and normals are drawn from it.
        rig: cameras of the bundle; None takes the four of Kiss3DGen.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in MAKERS:
        raise ValueError(f"Unknown kind of control '{kind}'; choose {', '.join(MAKERS)}.")
    rig = make_kiss3dgen_rig() if rig is None else rig
    return MAKERS[kind](bundle, params, mesh, rig.to(bundle.rgb_views.device))


def _tile(
    bundle: BundleImage, params: ControlImageParams, mesh: Mesh | None, rig: ViewRig
) -> Tensor:
    image = join_bundle(bundle)
    if params.down_scale == 1:
        return image
    height, width = image.shape[:2]
    size = (max(1, round(height / params.down_scale)), max(1, round(width / params.down_scale)))
    small = functional.interpolate(
        image.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True
    )
    large = functional.interpolate(small, (height, width), mode="bilinear")
    return large[0].permute(1, 2, 0)


def _blur(
    bundle: BundleImage, params: ControlImageParams, mesh: Mesh | None, rig: ViewRig
) -> Tensor:
    channels = join_bundle(bundle).permute(2, 0, 1)
    return gaussian_blur(channels, sigma_px=params.blur_px).permute(1, 2, 0)


def _canny(
    bundle: BundleImage, params: ControlImageParams, mesh: Mesh | None, rig: ViewRig
) -> Tensor:
    tiles = [*bundle.rgb_views, *bundle.normal_views]
    edges = [find_edges(tile, low=params.canny_low, high=params.canny_high) for tile in tiles]
    maps = torch.stack(edges).to(bundle.rgb_views)
    count = bundle.num_views
    return join_bundle(BundleImage(_as_color(maps[:count]), _as_color(maps[count:])))


def _gray(
    bundle: BundleImage, params: ControlImageParams, mesh: Mesh | None, rig: ViewRig
) -> Tensor:
    image = join_bundle(bundle)
    return _as_color(image @ image.new_tensor(LUMA))


def _depth(
    bundle: BundleImage, params: ControlImageParams, mesh: Mesh | None, rig: ViewRig
) -> Tensor:
    if mesh is None:
        depth = depth_from_bundle(bundle, rig)
    else:
        size = int(bundle.rgb_views.shape[1])
        depth = render_mesh(mesh, rig, width=size, height=size, antialias=False).depth
    views = _as_color(near_is_white(depth))
    return join_bundle(BundleImage(views, views))


def _normal(
    bundle: BundleImage, params: ControlImageParams, mesh: Mesh | None, rig: ViewRig
) -> Tensor:
    shape = read_bundle_views(bundle, rig)
    rotations = torch.stack([camera.camera_to_world[:3, :3] for camera in rig])
    normals = torch.einsum("vhwi,vij->vhwj", shape.normals_world, rotations.to(shape.masks))
    share = shape.masks[..., None]
    colors = share * (normals + 1) / 2 + (1 - share) * normals.new_tensor(FLAT_NORMAL)
    return join_bundle(BundleImage(colors, colors))


def depth_from_bundle(bundle: BundleImage, rig: ViewRig) -> Float[Tensor, "view height width"]:
    """Camera depth of every view, integrated from its normals; 0 on the background.

    The silhouettes of all views bound the depths (`geometry.depth_carving`).
    """
    shape = read_bundle_views(bundle, rig)
    hull = visual_hull_sdf(shape.masks, rig, VisualHullParams(resolution=64))
    depth = integrate_views(hull, shape.masks, shape.normals_world, rig, CarvingParams())
    size = shape.masks.shape[1:]
    large = functional.interpolate(depth[:, None], size, mode="nearest-exact")[:, 0]
    return large * (shape.masks > 0.5)


def _as_color(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 3"]:
    return values[..., None].expand(*values.shape, 3)


MAKERS: dict[ControlKind, Callable[..., Tensor]] = {
    "tile": _tile,
    "blur": _blur,
    "canny": _canny,
    "depth": _depth,
    "normal": _normal,
    "gray": _gray,
    "low quality": _tile,
}
