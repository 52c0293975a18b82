"""Contains mesh rasterisation and interpolation by nvdiffrast (0.3.3 or newer) on an NVIDIA GPU.

Only the public Python API is used. nvdiffrast's first image row is the bottom one; mirroring y in
clip space makes it the top one, as everywhere else in this package, and leaves u and v alone.
nvdiffrast may be used for research and evaluation only: it is optional and never installed by us.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def rasterize(
    vertices_clip: Float[Tensor, "view vertex 4"],
    faces: Int64[Tensor, "face 3"],
    width: int,
    height: int,
) -> Float[Tensor, "view height width 4"]:
    """Draw triangles into one raster per view; see `torch_reference.mesh.rasterize`.

    Weights are computed in float32. z/w gets its gradient from interpolated clip coordinates,
    because nvdiffrast's own depth channel has none.
    """
    import nvdiffrast.torch as dr

    positions = vertices_clip.float()
    mirrored = positions * positions.new_tensor([1.0, -1.0, 1.0, 1.0])
    triangles = faces.to(torch.int32)
    rast, _ = dr.rasterize(
        _context(vertices_clip.device),
        mirrored.contiguous(),
        triangles,
        resolution=[height, width],
        grad_db=False,
    )
    if torch.is_grad_enabled() and vertices_clip.requires_grad:
        z_and_w, _ = dr.interpolate(positions[..., 2:].contiguous(), rast, triangles)
        z, w = z_and_w.split(1, dim=-1)
        covered = rast[..., 3:] > 0
        depth = torch.where(covered, z / torch.where(covered, w, 1.0), 0.0)
        rast = torch.cat([rast[..., :2], depth, rast[..., 3:]], dim=-1)
    return rast.to(vertices_clip.dtype)


def interpolate(
    attributes: Float[Tensor, "vertex channel"] | Float[Tensor, "view vertex channel"],
    rast: Float[Tensor, "view height width 4"],
    faces: Int64[Tensor, "face 3"],
) -> Float[Tensor, "view height width channel"]:
    """Values of the corners, weighted at each pixel; see `torch_reference.mesh.interpolate`."""
    import nvdiffrast.torch as dr

    per_view = attributes if attributes.ndim == 3 else attributes[None]  # [1, V, C] is broadcast
    out, _ = dr.interpolate(
        per_view.float().contiguous(), rast.float().contiguous(), faces.to(torch.int32)
    )
    return out.to(attributes.dtype)


@functools.cache
def _context(device: torch.device) -> Any:
    import nvdiffrast.torch as dr

    return dr.RasterizeCudaContext(device=device)
