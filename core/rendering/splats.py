"""Contains the drawing of Gaussian clouds: colour, alpha, depths and normals from any cameras.

Rules of compositing are those of gsplat (see core/backends/splat_view.py); every backend follows
them. Public cameras are OpenGL ``camera_to_world``; backends get OpenCV view matrices.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..backends.probe import Backend, choose_backend
from ..backends.splat_view import CompositedSplats, SplatView
from ..camera import Camera, ViewRig
from ..gaussian_cloud import MAX_SH_DEGREE, GaussianCloud
from ..geometry.transforms import normalize

Background = Sequence[float] | Tensor
Parameters = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

_STAGED_BACKENDS = {"numba": "numba_cpu.splats", "torch": "torch_reference.splats"}


@dataclass(frozen=True)
class SplatRender:
    """Pictures of a Gaussian cloud, one per view.

    Attributes:
        rgb: display-referred sRGB over the background.
        alpha: 0..1.
        depth: expected camera z of what is seen (weighted mean); 0 where nothing is.
        median_depth: camera z at which half of the light is absorbed; 0 where that never happens.
            The backend ``cuda`` gives the expected depth instead.
        normals_world: mean direction of the Gaussians' shortest axes towards the camera, unit
            length; 0 where nothing is.
        means2d: projected centres in pixels (float64), 0 where undrawn. Its ``.grad`` is filled by
            ``backward()``: what densification looks at (see `screen_gradient_norms`).
        radii_px: three standard deviations on the screen; 0 where a Gaussian is not drawn.
    """

    rgb: Float[Tensor, "view height width 3"]
    alpha: Float[Tensor, "view height width"]
    depth: Float[Tensor, "view height width"]
    median_depth: Float[Tensor, "view height width"]
    normals_world: Float[Tensor, "view height width 3"]
    means2d: Float[Tensor, "view gaussian 2"]
    radii_px: Float[Tensor, "view gaussian"]


class _Drawn(NamedTuple):
    features: Tensor  # [view, height, width, 4 or 7]
    alpha: Tensor  # [view, height, width]
    median_depth: Tensor  # [view, height, width]
    means2d: Tensor  # [view, gaussian, 2]
    radii_px: Tensor  # [view, gaussian]


def render_splats(
    cloud: GaussianCloud,
    rig: ViewRig,
    *,
    width: int,
    height: int,
    background: Background = (1.0, 1.0, 1.0),
    backend: Backend = "auto",
    sh_degree: int | None = None,
    with_normals: bool = True,
) -> SplatRender:
    """Draw Gaussians; differentiable with respect to every parameter and to the camera poses.

    Args:
        cloud: Gaussians in the world frame.
        rig: cameras, perspective or orthographic.
        width: pixels per row.
        height: rows.
        background: one colour, or a tensor [3], [view, 3] or [view, height, width, 3].
        backend: who draws; ``auto`` takes the fastest that is ready for the cloud's device.
        sh_degree: highest degree of harmonics to show; None shows all that the cloud has.
        with_normals: False saves time and leaves ``normals_world`` at zero.

    Returns:
        Pictures in the order of the rig; without Gaussians in sight, the background.

    Reference: Kerbl et al. 2023, "3D Gaussian Splatting for Real-Time Radiance Field Rendering".
    """
    _require_size(width, height)
    sh_degree = _shown_degree(cloud, sh_degree)
    views = [
        make_splat_view(camera, width=width, height=height, like=cloud.means) for camera in rig
    ]
    name = choose_backend("splats", cloud.means.device, backend)
    draw = _draw_with_gsplat if name == "cuda" else _draw_in_stages
    drawn = draw(name, _usable_parameters(cloud), views, sh_degree, with_normals)
    return _assemble(drawn, background, with_normals, like=cloud.means)


def make_splat_view(camera: Camera, *, width: int, height: int, like: Tensor) -> SplatView:
    """View of a camera in OpenCV axes, on the device of ``like``; differentiable in the pose."""
    flip = torch.diag(camera.camera_to_world.new_tensor([1.0, -1.0, -1.0, 1.0]))
    focal = camera.focal_px(height)
    return SplatView(
        view_matrix=(flip @ camera.world_to_camera).to(like),
        focal_px=(focal, focal),
        center_px=(width / 2, height / 2),
        width=width,
        height=height,
        near=camera.near,
        far=camera.far,
        perspective=camera.is_perspective,
    )


def screen_gradient_norms(render: SplatRender) -> Float[Tensor, "view gaussian"]:
    """Length of the loss gradient on each projected centre, after ``backward()``.

    In units of half the image (normalised device coordinates), in which the published thresholds
    of densification are given.
    """
    gradient = render.means2d.grad
    if gradient is None:
        raise ValueError(
            "No gradient has reached means2d: call backward() on a loss of this render first, "
            "with a cloud that requires gradients."
        )
    height, width = render.alpha.shape[1:]
    return (gradient * gradient.new_tensor([width / 2, height / 2])).norm(dim=-1)


def _require_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"Images need at least one pixel, got width={width}, height={height}.")


def _shown_degree(cloud: GaussianCloud, sh_degree: int | None) -> int:
    if sh_degree is None:
        return cloud.sh_degree
    if not 0 <= sh_degree <= MAX_SH_DEGREE:
        raise ValueError(f"sh_degree must be 0..{MAX_SH_DEGREE}, got {sh_degree}.")
    return min(sh_degree, cloud.sh_degree)


def _usable_parameters(cloud: GaussianCloud) -> Parameters:
    """The cloud's tensors; those made under inference_mode are copied so autograd accepts them."""

    def usable(value: Tensor) -> Tensor:
        copied = value.is_inference() and not torch.is_inference_mode_enabled()
        return value.clone() if copied else value

    return (
        usable(cloud.means),
        usable(cloud.scales),
        usable(cloud.quats),
        usable(cloud.opacities),
        usable(cloud.harmonics),
    )


def _draw_in_stages(
    name: str,
    parameters: Parameters,
    views: list[SplatView],
    sh_degree: int,
    with_normals: bool,
) -> _Drawn:
    """Project every view, put all centres into one tensor with a gradient, composite every view."""
    backend: Any = importlib.import_module(f"..backends.{_STAGED_BACKENDS[name]}", __package__)
    projected = [
        backend.project_splats(*parameters, view, sh_degree=sh_degree, with_normals=with_normals)
        for view in views
    ]
    means2d = torch.stack([ellipses.means2d for ellipses in projected])
    if means2d.requires_grad:
        means2d.retain_grad()
    composite: Callable[..., CompositedSplats] = backend.composite_splats
    images, medians = [], []
    for centers, ellipses, view in zip(means2d, projected, views, strict=True):
        image = composite(
            centers, ellipses.conics, parameters[3], ellipses.features, ellipses.radii_px,
            width=view.width, height=view.height,
        )  # fmt: skip
        images.append(image)
        medians.append(_median_depth(image, ellipses.features))
    return _Drawn(
        torch.stack([image.features for image in images]),
        torch.stack([image.alpha for image in images]),
        torch.stack(medians),
        means2d,
        torch.stack([ellipses.radii_px for ellipses in projected]),
    )


def _median_depth(image: CompositedSplats, features: Tensor) -> Tensor:
    index = image.median_index.flatten()
    found = index >= 0
    # index_select, because its backward on the CPU adds in a fixed order.
    depth = features.new_zeros(index.shape)
    depth[found] = features[:, 3].index_select(0, index[found])
    return depth.reshape(image.median_index.shape)


def _draw_with_gsplat(
    name: str,
    parameters: Parameters,
    views: list[SplatView],
    sh_degree: int,
    with_normals: bool,
) -> _Drawn:
    from ..backends.cuda.gsplat_splats import draw_views

    return _Drawn(*draw_views(*parameters, views, sh_degree=sh_degree, with_normals=with_normals))


def _assemble(
    drawn: _Drawn, background: Background, with_normals: bool, *, like: Tensor
) -> SplatRender:
    features, alpha = drawn.features, drawn.alpha
    colors = _expand_background(background, features)
    rgb = features[..., :3] + (1 - alpha)[..., None] * colors
    covered = alpha > 0
    depth = torch.where(covered, features[..., 3] / torch.where(covered, alpha, 1.0), 0.0)
    if with_normals:
        normals = normalize(features[..., 4:7])
    else:
        normals = torch.zeros_like(features[..., :3])
    return SplatRender(
        rgb=rgb.to(like),
        alpha=alpha.to(like),
        depth=depth.to(like),
        median_depth=drawn.median_depth.to(like),
        normals_world=normals.to(like),
        means2d=drawn.means2d,
        radii_px=drawn.radii_px.to(like),
    )


def _expand_background(background: Background, features: Tensor) -> Tensor:
    """Background as a tensor that broadcasts over [view, height, width, 3]."""
    if isinstance(background, Tensor):
        colors = background.to(features)
    else:
        colors = features.new_tensor(list(background))
    num_views, height, width, _ = features.shape
    allowed = ((3,), (num_views, 3), (num_views, height, width, 3))
    if tuple(colors.shape) not in allowed:
        raise ValueError(
            f"background must have shape [3], [{num_views}, 3] or "
            f"[{num_views}, {height}, {width}, 3], got {list(colors.shape)}."
        )
    return colors[:, None, None] if colors.ndim == 2 else colors
