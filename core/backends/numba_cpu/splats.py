"""Contains Gaussians on the CPU: the numba kernels as differentiable torch functions.

Geometry is held in float64, blending in float32. The backward pass is bit-identical over runs and
thread counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..splat_view import CompositedSplats, ProjectedSplats, SplatView
from .lanes import run_in_lanes
from .runtime import run_kernel, to_array


def project_splats(
    means: Float[Tensor, "gaussian 3"],
    scales: Float[Tensor, "gaussian 3"],
    quats: Float[Tensor, "gaussian 4"],
    opacities: Float[Tensor, " gaussian"],
    harmonics: Float[Tensor, "gaussian coefficient 3"],
    view: SplatView,
    *,
    sh_degree: int,
    with_normals: bool,
) -> ProjectedSplats:
    """Project Gaussians to ellipses with colour, depth and normal; outputs are float64."""
    view_matrix = view.view_matrix.double()
    (fx, fy), (cx, cy) = view.focal_px, view.center_px
    numbers = np.array([fx, fy, cx, cy, *view.ray_limits, view.near, view.far])
    eye = _eye(view_matrix, view.perspective)
    constants = (numbers, view.width, view.height, view.perspective, sh_degree, with_normals)
    outputs = _Project.apply(
        means, scales, quats, opacities, harmonics, view_matrix, eye, constants
    )
    return ProjectedSplats(*outputs)


def composite_splats(
    means2d: Float[Tensor, "gaussian 2"],
    conics: Float[Tensor, "gaussian 3"],
    opacities: Float[Tensor, " gaussian"],
    features: Float[Tensor, "gaussian channel"],
    radii_px: Float[Tensor, " gaussian"],
    *,
    width: int,
    height: int,
) -> CompositedSplats:
    """Blend ellipses front to back; ``features[:, 3]`` is the depth by which they are sorted."""
    outputs = _Composite.apply(means2d, conics, opacities, features, radii_px, width, height)
    return CompositedSplats(*outputs)


def _eye(view_matrix: Tensor, perspective: bool) -> Tensor:
    rotation = view_matrix[:3, :3]
    return -rotation.T @ view_matrix[:3, 3] if perspective else rotation[2]


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, *inputs: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from .splat_projection import Ellipses, project_forward

        *tensors, constants = inputs
        splats, lens = _kernel_arguments(tensors, constants)
        count = len(splats.means)
        ellipses = Ellipses(
            np.zeros((count, 2)),
            np.zeros((count, 3)),
            np.zeros((count, 7 if constants[5] else 4)),
            np.zeros(count),
        )
        run_in_lanes(project_forward, splats, lens, ellipses)
        outputs = tuple(torch.from_numpy(array) for array in ellipses)
        ctx.save_for_backward(*tensors, *outputs)
        ctx.constants = constants
        ctx.mark_non_differentiable(outputs[3])
        return outputs  # type: ignore[return-value]

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, g_means2d: Tensor, g_conics: Tensor, g_features: Tensor, g_radii: Tensor
    ) -> tuple[Tensor | None, ...]:
        from .splat_projection import CHUNK, POSE_SIZE, Ellipses, Splats, project_backward

        *tensors, means2d, conics, features, radii = ctx.saved_tensors
        splats, lens = _kernel_arguments(tensors, ctx.constants)
        ellipses = Ellipses(*(to_array(t, np.float64) for t in (means2d, conics, features, radii)))
        g_centers, g_shapes, g_colors = (
            to_array(t, np.float64) for t in (g_means2d, g_conics, g_features)
        )
        slopes = Ellipses(g_centers, g_shapes, g_colors, ellipses.radii)
        gradients = Splats(
            means=np.zeros_like(splats.means),
            scales=np.zeros_like(splats.scales),
            quats=np.zeros_like(splats.quats),
            opacities=np.zeros(0, np.float32),
            harmonics=np.zeros_like(splats.harmonics),
        )
        parts = np.zeros((-(-len(splats.means) // CHUNK), POSE_SIZE))
        run_in_lanes(project_backward, splats, lens, ellipses, slopes, gradients, parts)
        pose = parts.sum(axis=0)
        g_view = torch.zeros(4, 4, dtype=torch.float64)
        g_view[:3, :3] = torch.from_numpy(pose[:9].reshape(3, 3))
        g_view[:3, 3] = torch.from_numpy(pose[9:12])
        g_means, g_scales, g_quats, _, g_harmonics = (
            torch.from_numpy(array).to(like.dtype)
            for array, like in zip(gradients, tensors[:5], strict=True)
        )
        g_eye = torch.from_numpy(pose[12:])
        return g_means, g_scales, g_quats, None, g_harmonics, g_view, g_eye, None


def _kernel_arguments(tensors: list[Tensor], constants: Any) -> tuple[Any, Any]:
    from .splat_projection import Lens, Splats

    numbers, width, height, perspective, degree, _ = constants
    splats = Splats(*(to_array(tensor, np.float32) for tensor in tensors[:5]))
    view, eye = (to_array(tensor, np.float64) for tensor in tensors[5:])
    return splats, Lens(view, eye, numbers, width, height, perspective, degree)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        features: Tensor,
        radii_px: Tensor,
        width: int,
        height: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from .splat_compositing import composite_forward

        lists, shapes, colors = _prepare(
            means2d, conics, opacities, features, radii_px, width, height
        )
        image = np.empty((height, width, features.shape[1]), np.float32)
        final = np.empty((height, width))
        median = np.empty((height, width), np.int64)
        run_in_lanes(composite_forward, lists, shapes, colors, image, final, median)
        ctx.kernel_state = (lists, shapes, colors, image, final)
        ctx.count, ctx.dtype = means2d.shape[0], opacities.dtype
        nearest = np.concatenate([lists.order, [-1]])[median]
        outputs = (
            torch.from_numpy(image),
            torch.from_numpy((1 - np.abs(final)).astype(np.float32)),
            torch.from_numpy(nearest),
        )
        ctx.mark_non_differentiable(outputs[2])
        return outputs

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, g_image: Tensor, g_alpha: Tensor, g_median: Tensor
    ) -> tuple[Tensor | None, ...]:
        from .splat_compositing import NUM_MOMENTS, composite_backward, gather_gradients

        lists, shapes, _, image, _ = ctx.kernel_state
        channels = image.shape[2]
        slots = np.zeros((lists.first_slot[-1], NUM_MOMENTS + channels), np.float32)
        slopes = to_array(g_image, np.float32), to_array(g_alpha, np.float32)
        run_in_lanes(composite_backward, *ctx.kernel_state, *slopes, slots)
        gathered = [
            np.zeros((ctx.count, 2)),
            np.zeros((ctx.count, 3)),
            np.zeros(ctx.count),
            np.zeros((ctx.count, channels)),
        ]
        run_in_lanes(gather_gradients, lists, shapes, slots, *gathered)
        g_means2d, g_conics, g_opacities, g_features = (torch.from_numpy(a) for a in gathered)
        return g_means2d, g_conics, g_opacities.to(ctx.dtype), g_features, None, None, None


def _prepare(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    radii_px: Tensor,
    width: int,
    height: int,
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Tile lists, and ellipses and features in depth order."""
    from .splat_binning import build_tile_lists
    from .splat_compositing import pack

    centers, inverses, values = (to_array(t, np.float64) for t in (means2d, conics, features))
    opaque, radii = to_array(opacities, np.float32), to_array(radii_px, np.float64)
    depths = np.ascontiguousarray(values[:, 3])
    lists = run_kernel(build_tile_lists, centers, inverses, opaque, depths, radii, width, height)
    fullest_first = np.argsort(-np.diff(lists.tile_start), kind="stable")
    lists = lists._replace(tile_order=fullest_first)
    count, channels = len(lists.order), values.shape[1]
    shapes, colors = np.empty((count, 7)), np.empty(count * channels, np.float32)
    run_kernel(pack, lists.order, centers, inverses, opaque, values, shapes, colors)
    return lists, shapes, colors
