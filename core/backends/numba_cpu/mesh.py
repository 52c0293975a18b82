"""Contains mesh rasterisation and interpolation on the CPU, with hand-written gradients.

Both are deterministic: the same input gives the same bits, whatever the number of threads.
Float32 or float64 positions; all weights are computed in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from .runtime import run_kernel, to_array

INDEX = np.uint32
"""Unsigned, so that the kernels need no test for indices that count from the end."""
BANDS_AT_ONCE = 4
"""Bands that a thread takes at a time, so that unequal work is shared."""
MIN_TASKS = 4
MAX_PIECES_PER_FACE = 6


def rasterize(
    vertices_clip: Float[Tensor, "view vertex 4"],
    faces: Int64[Tensor, "face 3"],
    width: int,
    height: int,
) -> Float[Tensor, "view height width 4"]:
    """Draw triangles into one raster per view; see `torch_reference.mesh.rasterize`."""
    if torch.is_grad_enabled() and vertices_clip.requires_grad:
        return _Rasterize.apply(vertices_clip, faces, width, height)
    return _draw(vertices_clip, faces, width, height)


def interpolate(
    attributes: Float[Tensor, "vertex channel"] | Float[Tensor, "view vertex channel"],
    rast: Float[Tensor, "view height width 4"],
    faces: Int64[Tensor, "face 3"],
) -> Float[Tensor, "view height width channel"]:
    """Values of the corners, weighted at each pixel; see `torch_reference.mesh.interpolate`."""
    if torch.is_grad_enabled() and (attributes.requires_grad or rast.requires_grad):
        return _Interpolate.apply(attributes, rast, faces)
    return _blend_corners(attributes, rast, faces)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, clip: Tensor, faces: Tensor, width: int, height: int) -> Tensor:
        rast = _draw(clip, faces, width, height)
        ctx.save_for_backward(clip, faces, rast)
        return rast

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rast: Tensor) -> tuple[Tensor | None, ...]:
        from .mesh_raster import raster_backward

        clip, faces, rast = ctx.saved_tensors
        buffers = run_kernel(
            raster_backward,
            to_array(clip, np.float64),
            to_array(faces, INDEX),
            rast.numpy(),
            to_array(grad_rast, rast.numpy().dtype),
            _num_parts(len(clip)),
        )
        return torch.from_numpy(buffers).sum(dim=1).to(clip.dtype), None, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
        ctx.save_for_backward(attributes, rast, faces)
        return _blend_corners(attributes, rast, faces)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from .mesh_interpolate import attributes_backward, weights_backward

        attributes, rast, faces = ctx.saved_tensors
        grad_array = to_array(grad, attributes.numpy().dtype)
        rast_array, faces_array = to_array(rast, rast.numpy().dtype), to_array(faces, INDEX)
        grad_attributes = grad_rast = None
        if ctx.needs_input_grad[0]:
            vertices, parts = attributes.shape[-2], _num_parts(len(rast))
            buffers = torch.from_numpy(
                run_kernel(
                    attributes_backward, rast_array, faces_array, grad_array, vertices, parts
                )
            )
            over = (0, 1) if attributes.ndim == 2 else (1,)
            grad_attributes = buffers.sum(dim=over).to(attributes.dtype)
        if ctx.needs_input_grad[1]:
            grad_rast = torch.empty_like(rast, memory_format=torch.contiguous_format)
            run_kernel(
                weights_backward,
                _per_view_array(attributes),
                rast_array,
                faces_array,
                grad_array,
                grad_rast.numpy(),
            )
        return grad_attributes, grad_rast, None


def _draw(clip: Tensor, faces: Tensor, width: int, height: int) -> Tensor:
    import numba

    from . import mesh_clipping, mesh_raster

    clip_array, faces_array = to_array(clip, np.float64), to_array(faces, INDEX)
    views, count = clip_array.shape[:2]
    xy = np.empty((views, count, 2), np.int32)
    depth = np.empty((views, count), np.float64)
    outside = np.empty((views, count), np.uint8)
    run_kernel(mesh_clipping.project_vertices, clip_array, width, height, xy, depth, outside)
    capacity = 0
    if outside.any():
        crossing = run_kernel(mesh_clipping.count_crossing, outside, faces_array)
        capacity = int(crossing.sum()) * MAX_PIECES_PER_FACE
    piece_xy, piece_depth, piece_face, piece_first = (
        run_kernel(
            mesh_clipping.clip_faces, clip_array, faces_array, outside, width, height, capacity
        )
        if capacity
        else _no_pieces(views)
    )
    listed, first = run_kernel(
        mesh_raster.sort_into_bands,
        faces_array, xy, outside, piece_xy, piece_first, width, height,
    )  # fmt: skip
    rast = torch.empty(views, height, width, 4, dtype=clip.dtype)
    with numba.parallel_chunksize(BANDS_AT_ONCE):
        run_kernel(
            mesh_raster.draw_bands,
            clip_array, faces_array, xy, depth,
            piece_xy, piece_depth, piece_face, piece_first, listed, first, rast.numpy(),
        )  # fmt: skip
    return rast


def _no_pieces(views: int) -> tuple[np.ndarray, ...]:
    return (
        np.empty((0, 3, 2), np.int32),
        np.empty((0, 3), np.float64),
        np.empty(0, INDEX),
        np.zeros(views + 1, np.int64),
    )


def _blend_corners(attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
    from .mesh_interpolate import interpolate_forward

    out = torch.empty(*rast.shape[:3], attributes.shape[-1], dtype=attributes.dtype)
    run_kernel(
        interpolate_forward,
        _per_view_array(attributes),
        to_array(rast, rast.detach().numpy().dtype),
        to_array(faces, INDEX),
        out.numpy(),
    )
    return out


def _per_view_array(attributes: Tensor) -> np.ndarray:
    array = attributes.detach()
    array = array[None] if array.ndim == 2 else array
    return to_array(array, array.numpy().dtype)


def _num_parts(views: int) -> int:
    """Parts of the rows of a view that have a gradient buffer of their own."""
    return -(-MIN_TASKS // views)


def find_silhouette_candidates(
    rast: Float[Tensor, "view height width 4"],
    vertices_clip: Float[Tensor, "view vertex 4"],
    faces: Int64[Tensor, "face 3"],
    edges: Int64[Tensor, "edge 2"],
    edge_faces: Int64[Tensor, "edge 2"],
    edge_signs: Int64[Tensor, "edge 2"],
    extra: Int64[Tensor, "extra 3"],
) -> tuple[Int64[Tensor, "candidate 5"], Float[Tensor, " candidate"]]:
    """Crossings of visible silhouette edges with pixel pairs; see `rendering.silhouette`.

    Returns:
        Columns (view, edge, inner pixel, outer pixel, along_x), and the distance of the edge from
        the inner pixel's centre. In the order of views and edges.
    """
    from .mesh_silhouette import face_orientations, find_candidates

    clip = to_array(vertices_clip, np.float64)
    orientations = run_kernel(face_orientations, clip, to_array(faces, INDEX))
    extra_array = to_array(extra, np.int64)
    found, reach = run_kernel(
        find_candidates,
        clip,
        to_array(rast, rast.detach().numpy().dtype),
        orientations,
        to_array(edges, np.int64),
        to_array(edge_faces, np.int64),
        to_array(edge_signs, np.int64),
        extra_array,
        np.searchsorted(extra_array[:, 0], np.arange(len(edges) + 1)),
    )
    return torch.from_numpy(found), torch.from_numpy(reach)
