"""Contains Gaussians on NVIDIA GPUs, through the public API of gsplat (Apache-2.0).

gsplat brings projection and compositing; colours and normals are computed here, because harmonics
and extra channels cannot be combined in one call. The parity test compares it with the reference
wherever a GPU is present.
"""

from __future__ import annotations

import functools
import logging

import torch
from jaxtyping import Float
from torch import Tensor

from ..splat_view import COVARIANCE_BLUR_PX2, SplatView
from ..torch_reference.harmonics import harmonic_basis

LOGGER = logging.getLogger(__name__)


def draw_views(
    means: Float[Tensor, "gaussian 3"],
    scales: Float[Tensor, "gaussian 3"],
    quats: Float[Tensor, "gaussian 4"],
    opacities: Float[Tensor, " gaussian"],
    harmonics: Float[Tensor, "gaussian coefficient 3"],
    views: list[SplatView],
    *,
    sh_degree: int,
    with_normals: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw all views in one call.

    Returns:
        Features [view, height, width, 4 or 7] and alpha [view, height, width] as the other backends
        give them, median depth, centres on the screen with a gradient, and radii. gsplat does not
        find the median depth: its place is taken by the expected depth, which is logged once.
    """
    from gsplat import rasterization

    _require_one_projection(views)
    first = views[0]
    with_colors = [
        _view_features(means, scales, quats, harmonics, view, sh_degree, with_normals)
        for view in views
    ]
    images, alphas, meta = rasterization(
        means=means.float(),
        quats=quats.float(),
        scales=scales.float(),
        opacities=opacities.float(),
        colors=torch.stack(with_colors),  # [view, gaussian, 3 or 6]
        viewmats=torch.stack([view.view_matrix for view in views]).to(means.device).float(),
        Ks=torch.stack([_intrinsics(view) for view in views]).to(means.device),
        width=first.width,
        height=first.height,
        near_plane=min(view.near for view in views),
        far_plane=max(view.far for view in views),
        eps2d=COVARIANCE_BLUR_PX2,
        packed=False,
        render_mode="RGB+D",
        camera_model="pinhole" if first.perspective else "ortho",
    )
    means2d = meta["means2d"]
    if means2d.requires_grad:
        means2d.retain_grad()
    radii = meta["radii"].float()
    radii = radii.amax(dim=-1) if radii.ndim == 3 else radii
    alpha, depth_sum = alphas[..., 0], images[..., -1:]
    features = torch.cat([images[..., :3], depth_sum, images[..., 3:-1]], dim=-1)
    _log_median_once()
    median = depth_sum[..., 0] / alpha.clamp(min=1e-6)
    return features, alpha, median, means2d, radii


def _require_one_projection(views: list[SplatView]) -> None:
    if len({view.perspective for view in views}) > 1:
        raise ValueError(
            "gsplat draws either perspective or orthographic views in one call, got both; "
            "render them apart or choose backend 'torch'."
        )


def _intrinsics(view: SplatView) -> Tensor:
    (fx, fy), (cx, cy) = view.focal_px, view.center_px
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _view_features(
    means: Tensor,
    scales: Tensor,
    quats: Tensor,
    harmonics: Tensor,
    view: SplatView,
    sh_degree: int,
    with_normals: bool,
) -> Tensor:
    """Colours [gaussian, 3] seen from one camera, followed by normals if asked for."""
    eye = view.eye.to(means)
    offsets = means - eye if view.perspective else eye.expand_as(means)
    directions = offsets / offsets.norm(dim=1, keepdim=True).clamp(min=1e-12)
    basis = harmonic_basis(directions, sh_degree)
    colors = torch.einsum("gk,gkc->gc", basis, harmonics[:, : (sh_degree + 1) ** 2])
    colors = (colors + 0.5).clamp(min=0)
    if not with_normals:
        return colors.float()
    return torch.cat([colors, _facing_normals(scales, quats, directions)], dim=1).float()


def _facing_normals(scales: Tensor, quats: Tensor, directions: Tensor) -> Tensor:
    """Shortest axis of each Gaussian, on the side that faces the camera."""
    w, x, y, z = (quats / quats.norm(dim=1, keepdim=True)).unbind(dim=1)
    axes = torch.stack(
        [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], dim=1),
            torch.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], dim=1),
            torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], dim=1),
        ],
        dim=1,
    )  # [gaussian, axis, 3]
    shortest = scales.detach().argmin(dim=1)
    normals = axes[torch.arange(len(axes), device=axes.device), shortest]
    away = (normals.detach() * directions.detach()).sum(dim=1, keepdim=True) > 0
    return torch.where(away, -normals, normals)


@functools.cache
def _log_median_once() -> None:
    LOGGER.warning("gsplat gives no median depth; median_depth holds the expected depth instead")
