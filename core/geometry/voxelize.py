"""Contains the solid voxelisation of closed meshes by winding numbers along columns."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..mesh import Mesh

# Column centres are moved by an irrational share of a voxel, so that none runs through a vertex
# or along an edge of a mesh built on a regular grid.
COLUMN_SHIFT = (1.2e-4 * 2**0.5, 1.2e-4 * 3**0.5)
MAX_PAIRS = 4_000_000


def voxelize_solid(
    mesh: Mesh, low: Float[Tensor, 3], high: Float[Tensor, 3], resolution: int = 64
) -> Bool[Tensor, "x y z"]:
    """Which voxel centres of a grid over the box ``low``..``high`` lie inside the mesh.

    Inside means a non-zero winding number, counted along +z, so overlapping closed parts are
    merged. The surface should be closed: below a hole the count is off.
    """
    if resolution < 1:
        raise ValueError(f"resolution must be at least 1, got {resolution}.")
    cell = (high - low) / resolution
    if not bool((cell > 0).all()):
        raise ValueError(f"The box is empty: low {low.tolist()}, high {high.tolist()}.")
    corners = ((mesh.vertices - low) / cell).double()[mesh.faces]  # [F, 3, 3] in voxels
    winding = torch.zeros(
        (resolution, resolution, resolution + 1), dtype=torch.int32, device=corners.device
    )
    for part in corners.split(_faces_per_part(corners, resolution)):
        _add_crossings(part, winding, resolution)
    # A crossing at height z counts for every voxel centre below it.
    return winding.flip(2).cumsum(2).flip(2)[..., 1:] != 0


def _column_range(corners: Tensor, axis: int, resolution: int) -> tuple[Tensor, Tensor]:
    """First column and number of columns whose centre a triangle's extent covers."""
    shift = 0.5 + COLUMN_SHIFT[axis]
    first = (corners[..., axis].amin(1) - shift).ceil().clamp(0, resolution)
    last = (corners[..., axis].amax(1) - shift).floor().clamp(-1, resolution - 1)
    return first.long(), (last - first + 1).clamp(min=0).long()


def _faces_per_part(corners: Tensor, resolution: int) -> int:
    if not len(corners):
        return 1
    count = _column_range(corners, 0, resolution)[1] * _column_range(corners, 1, resolution)[1]
    return max(1, MAX_PAIRS // max(1, int(count.max())))


def _add_crossings(corners: Tensor, winding: Tensor, resolution: int) -> None:
    """Add to ``winding`` the signed crossing of every (triangle, column) pair, in place."""
    first_x, num_x = _column_range(corners, 0, resolution)
    first_y, num_y = _column_range(corners, 1, resolution)
    count = num_x * num_y
    face = torch.repeat_interleave(torch.arange(len(corners), device=corners.device), count)
    rank = torch.arange(len(face), device=face.device) - (count.cumsum(0) - count)[face]
    column_x = first_x[face] + rank // num_y[face]
    column_y = first_y[face] + rank % num_y[face]
    x, y = column_x + 0.5 + COLUMN_SHIFT[0], column_y + 0.5 + COLUMN_SHIFT[1]

    a, b, c = corners[face].unbind(1)
    area_a = (b[:, 0] - x) * (c[:, 1] - y) - (c[:, 0] - x) * (b[:, 1] - y)
    area_b = (c[:, 0] - x) * (a[:, 1] - y) - (a[:, 0] - x) * (c[:, 1] - y)
    area_c = (a[:, 0] - x) * (b[:, 1] - y) - (b[:, 0] - x) * (a[:, 1] - y)
    total = area_a + area_b + area_c  # > 0 where the normal points to +z
    same_side = ((area_a > 0) == (area_b > 0)) & ((area_b > 0) == (area_c > 0))
    hit = same_side & (total != 0)
    height = (area_a * a[:, 2] + area_b * b[:, 2] + area_c * c[:, 2])[hit] / total[hit]
    # Voxel k has its centre at k + 0.5: a crossing at height h lies above voxels k < h - 0.5.
    slot = (height - 0.5).ceil().clamp(0, resolution).long()
    winding.index_put_(
        (column_x[hit], column_y[hit], slot), total[hit].sign().to(winding.dtype), accumulate=True
    )
