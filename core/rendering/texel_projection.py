"""Contains the projection of pictures onto texels: weighted blend, or detail of the best view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from ..mesh import Mesh
from .observation import facing_faces, observe_points, sample_pure
from .projection_params import VertexProjectionParams
from .texels import Texels
from .visibility import REFERENCE_TILE_PX, ViewGeometry, dilate_square, gaussian_blur

COARSE_SIGMA_PX = 8.0
"""Blur that separates coarse colours from detail, for tiles of 512 pixels."""


@dataclass(frozen=True)
class TexelColors:
    """What the views show at the texels.

    Attributes:
        values: colours; 0 where nothing is seen.
        support: how well a texel is seen, summed over the views.
        best_view: index of the view of largest weight; -1 where nothing is seen.
    """

    values: Float[Tensor, "texel channel"]
    support: Float[Tensor, " texel"]
    best_view: Int64[Tensor, " texel"]


@torch.no_grad()
def project_views_to_texels(
    mesh: Mesh,
    texels: Texels,
    views: Float[Tensor, "view height width channel"],
    geometry: Sequence[ViewGeometry],
    params: VertexProjectionParams,
    *,
    view_weights: Sequence[float],
    two_sided: bool,
    separate_detail: bool,
    on_view: Callable[[int], None] = lambda done: None,
) -> TexelColors:
    """Weighted mean of the views at each texel.

    Args:
        mesh: the surface.
        texels: points on it.
        views: pictures.
        geometry: what each of them sees.
        params: weights and thresholds.
        view_weights: one factor per view.
        two_sided: surfaces count from behind.
        separate_detail: blend the coarse colours only and take fine detail from the view of
            largest weight (two bands of a multi-band blend).
        on_view: called with the number of finished views.

    Reference: Baumberg 2002, "Blending images for texturing 3D models", Sec. 4 (two bands).
    """
    count, channels = len(texels.index), views.shape[-1]
    total = views.new_zeros(count, channels)
    detail = views.new_zeros(count, channels) if separate_detail else None
    weight, support = views.new_zeros(count), views.new_zeros(count)
    largest = views.new_zeros(count)
    best = torch.full((count,), -1, dtype=torch.int64, device=views.device)
    for number, (view, seen_from) in enumerate(zip(views, geometry, strict=True)):
        candidates = None
        if not two_sided:  # where a face is turned away its smooth normals do not count
            candidates = facing_faces(mesh, seen_from)[texels.face_index].nonzero()[:, 0]
        seen = observe_points(
            texels.positions,
            texels.normals,
            seen_from,
            params,
            view_weight=view_weights[number],
            two_sided=two_sided,
            candidates=candidates,
        )
        image = view
        if detail is not None:
            image = torch.cat([coarse_colors(view, seen_from), view], dim=-1)
        colors = sample_pure(image, seen_from.pure, seen.image_xy)
        total.index_add_(0, seen.index, seen.weight[:, None] * colors[:, :channels])
        weight.index_add_(0, seen.index, seen.weight)
        support.index_add_(0, seen.index, seen.support)
        wins = seen.weight > largest[seen.index]
        winners = seen.index[wins]
        largest[winners], best[winners] = seen.weight[wins], number
        if detail is not None:
            detail[winners] = colors[wins, channels:] - colors[wins, :channels]
        on_view(number + 1)
    values = total / weight.clamp(min=1e-12)[:, None]
    return TexelColors(values if detail is None else values + detail, support, best)


def coarse_colors(
    view: Float[Tensor, "height width channel"], seen_from: ViewGeometry
) -> Float[Tensor, "height width channel"]:
    """The picture without fine detail; what lies outside the object has no part in it.

    Near depth jumps, across which a blur would mix two surfaces, the picture stays as it is.
    """
    height, width = view.shape[:2]
    sigma_px = COARSE_SIGMA_PX * height / REFERENCE_TILE_PX
    raster_scale = len(seen_from.pure) / height
    reach = round(2 * sigma_px * raster_scale)
    crossed = dilate_square(seen_from.jumps[None], radius_px=reach).to(view.dtype)
    crossed = gaussian_blur(crossed, sigma_px=sigma_px / 2 * raster_scale)
    fields = functional.interpolate(
        torch.stack([seen_from.pure, crossed[0]])[None].to(view.dtype), size=(height, width)
    )[0]
    pure, keep = fields[0][..., None], fields[1][..., None].clamp(0, 1)
    weighted = torch.cat([view * pure, pure], dim=-1).permute(2, 0, 1)
    blurred = gaussian_blur(weighted, sigma_px=sigma_px).permute(1, 2, 0)
    coarse = blurred[..., :-1] / blurred[..., -1:].clamp(min=1e-3)
    return keep * view + (1 - keep) * coarse
