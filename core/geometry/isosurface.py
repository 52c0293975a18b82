"""Contains the extraction of a watertight, manifold triangle mesh from a grid of signed distances.

Each cell of the grid that the surface crosses gets one vertex per sheet of the surface (dual
marching cubes), each crossed grid edge one quad between the four cells round it. The topology here
serves the differentiable extraction in `flexicubes` too.

Reference: Nielson 2004, "Dual Marching Cubes". The SDF is negative inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from .._checks import require_finite, require_floating, require_shape
from .isosurface_tables import CORNER_OFFSETS, EDGE_CORNERS, NUM_CODES, dual_tables


@dataclass(frozen=True)
class DualTopology:
    """How the dual vertices of a grid hang together; indices only, no positions.

    A crossing is a pair (active cell, crossed edge of it): each grid edge inside the grid occurs in
    four of them. Crossings are sorted by cell, then by edge.

    Attributes:
        cells: flat index (z fastest) of each cell that the surface crosses.
        vertex_cell: row of ``cells`` that a dual vertex belongs to.
        crossing_cell: row of ``cells`` of each crossing.
        crossing_edge: edge 0..11 of the cell.
        crossing_vertex: dual vertex that the crossing belongs to.
        crossing_ends: the two grid points of the edge (flat, z fastest).
        quads: dual vertices round each crossed edge, counter-clockwise seen from outside.
    """

    cells: Int64[Tensor, " cell"]
    vertex_cell: Int64[Tensor, " vertex"]
    crossing_cell: Int64[Tensor, " crossing"]
    crossing_edge: Int64[Tensor, " crossing"]
    crossing_vertex: Int64[Tensor, " crossing"]
    crossing_ends: Int64[Tensor, "crossing 2"]
    quads: Int64[Tensor, "quad 4"]


def _cell_codes(inside: Bool[Tensor, "x y z"]) -> UInt8[Tensor, "x-1 y-1 z-1"]:
    bits = inside.to(torch.uint8)
    nx, ny, nz = inside.shape
    codes = torch.zeros((nx - 1, ny - 1, nz - 1), dtype=torch.uint8, device=inside.device)
    for corner, (i, j, k) in enumerate(CORNER_OFFSETS):
        codes |= bits[i : nx - 1 + i, j : ny - 1 + j, k : nz - 1 + k] << corner
    return codes


def _table_rows(codes: Tensor, cells: Tensor) -> Int64[Tensor, " cell"]:
    """Row of the tables for each active cell: inverted where two pinched faces meet."""
    device = codes.device
    pinched = dual_tables().pinched_face.to(device)
    flat = codes.reshape(-1)
    code = flat[cells].long()
    face = pinched[code]
    axis, side = face.clamp(min=0) // 2, face.clamp(min=0) % 2
    shape = torch.tensor(codes.shape, device=device)
    strides = torch.tensor(codes.stride(), device=device)
    position = cells // strides[axis] % shape[axis] + 2 * side - 1
    exists = (face >= 0) & (position >= 0) & (position < shape[axis])
    neighbour = torch.where(exists, cells + (2 * side - 1) * strides[axis], cells)
    meets = exists & (pinched[flat[neighbour].long()] == (face ^ 1))
    return code + NUM_CODES * meets


def _quads_along(
    axis: int, inside: Tensor, cell_row: Tensor, first_vertex: Tensor, patch_of_edge: Tensor
) -> Int64[Tensor, "quad 4"]:
    """Quads round the crossed grid edges that run along one axis and lie inside the grid."""
    second, third = (axis + 1) % 3, (axis + 2) % 3
    starts = inside.narrow(axis, 0, inside.shape[axis] - 1)
    ends = inside.narrow(axis, 1, inside.shape[axis] - 1)
    crossed = starts != ends
    for side in (second, third):  # edges in the outer planes touch fewer than four cells
        crossed.select(side, 0).fill_(False)
        crossed.select(side, crossed.shape[side] - 1).fill_(False)
    points = crossed.nonzero()
    edge_by_offset = dual_tables().edge_by_offset
    corners = []
    # Cells in counter-clockwise order about the axis: (+,+), (-,+), (-,-), (+,-).
    for back_second, back_third in ((0, 0), (1, 0), (1, 1), (0, 1)):
        place = points.clone()
        place[:, second] -= back_second
        place[:, third] -= back_third
        row = cell_row[place[:, 0], place[:, 1], place[:, 2]].long()
        edge = int(edge_by_offset[axis, back_second, back_third])
        corners.append(first_vertex[row] + patch_of_edge[row, edge])
    quads = torch.stack(corners, dim=1)
    leaving = starts[points[:, 0], points[:, 1], points[:, 2]]
    quads = torch.where(leaving[:, None], quads, quads[:, [0, 3, 2, 1]])
    # The first corner is chosen so that ties between diagonals go as in published meshes.
    second_first = leaving != (axis == 1)
    return torch.where(second_first[:, None], quads.roll(-1, dims=1), quads)


def dual_topology(inside: Bool[Tensor, "x y z"]) -> DualTopology:
    """Topology of the surface between the inside and outside points of a grid.

    The surface is manifold; where inside points touch the border of the grid it is open, and there
    two fans of faces may share a vertex.
    """
    device = inside.device
    tables = dual_tables()
    codes = _cell_codes(inside)
    cells = ((codes != 0) & (codes != NUM_CODES - 1)).reshape(-1).nonzero()[:, 0]
    rows = _table_rows(codes, cells)
    patch_of_edge = tables.patch_of_edge.to(device)[rows]  # [cell, 12]
    counts = tables.num_patches.to(device)[rows]
    first_vertex = counts.cumsum(0) - counts
    numbers = torch.arange(len(cells), device=device)

    cell_row = torch.zeros(codes.shape, dtype=torch.int32, device=device)
    cell_row.reshape(-1)[cells] = numbers.to(torch.int32)
    quads = [_quads_along(axis, inside, cell_row, first_vertex, patch_of_edge) for axis in range(3)]

    crossing_cell, crossing_edge = (patch_of_edge >= 0).nonzero().unbind(1)
    return DualTopology(
        cells=cells,
        vertex_cell=numbers.repeat_interleave(counts),
        crossing_cell=crossing_cell,
        crossing_edge=crossing_edge,
        crossing_vertex=first_vertex[crossing_cell] + patch_of_edge[crossing_cell, crossing_edge],
        crossing_ends=_edge_ends(inside, cells[crossing_cell], crossing_edge),
        quads=torch.cat(quads),
    )


def _edge_ends(inside: Tensor, cells: Tensor, edges: Tensor) -> Int64[Tensor, "crossing 2"]:
    """Flat grid points at the ends of the given edges of the given cells."""
    _, ny, nz = inside.shape
    device = inside.device
    x, yz = cells // ((ny - 1) * (nz - 1)), cells % ((ny - 1) * (nz - 1))
    origin = (x * ny + yz // (nz - 1)) * nz + yz % (nz - 1)
    corner_step = torch.tensor([(i * ny + j) * nz + k for i, j, k in CORNER_OFFSETS], device=device)
    return origin[:, None] + corner_step[torch.tensor(EDGE_CORNERS, device=device)[edges]]


def average_by_index(
    values: Float[Tensor, "item channel"], index: Int64[Tensor, " item"], count: int
) -> Float[Tensor, "count channel"]:
    """Mean of the values that share an index; zero where none does."""
    summed = values.new_zeros((count, values.shape[1])).index_add(0, index, values)
    number = torch.bincount(index, minlength=count).clamp(min=1)
    return summed / number[:, None]


def shorter_diagonals(
    vertices: Float[Tensor, "vertex 3"], quads: Int64[Tensor, "quad 4"]
) -> Bool[Tensor, " quad"]:
    """Whether the diagonal from the first to the third corner is no longer than the other."""
    a, b, c, d = vertices[quads].unbind(dim=1)
    return (a - c).square().sum(-1) <= (b - d).square().sum(-1)


def split_quads(
    quads: Int64[Tensor, "quad 4"], first: Bool[Tensor, " quad"]
) -> Int64[Tensor, "face 3"]:
    """Two triangles per quad, along the diagonal of its first corner or along the other."""
    along_ac = quads[:, [0, 1, 2, 0, 2, 3]]
    along_bd = quads[:, [0, 1, 3, 1, 2, 3]]
    return torch.where(first[:, None], along_ac, along_bd).reshape(-1, 3)


def extract_isosurface(
    sdf: Float[Tensor, "x y z"],
    lower: Sequence[float] | Float[Tensor, 3],
    upper: Sequence[float] | Float[Tensor, 3],
    *,
    level: float = 0.0,
) -> tuple[Float[Tensor, "vertex 3"], Int64[Tensor, "face 3"]]:
    """Watertight, manifold mesh of the region where ``sdf < level``; not differentiable.

    Where the region reaches the border of the grid it is closed along that border. With one sign
    everywhere the result is the box of the grid (all inside) or an empty mesh (all outside).

    Args:
        sdf: samples, negative inside; any scalar field that grows outwards will do.
        lower: world position of sample [0, 0, 0].
        upper: world position of the last sample.
        level: value of the surface.

    Returns:
        Vertices in world units and counter-clockwise faces (the signed volume is positive).
    """
    require_shape("sdf", sdf, None, None, None)
    require_floating("sdf", sdf)
    require_finite("sdf", sdf)
    low = torch.as_tensor(lower, dtype=sdf.dtype, device=sdf.device)
    high = torch.as_tensor(upper, dtype=sdf.dtype, device=sdf.device)
    if min(sdf.shape) < 2:
        raise ValueError(f"sdf needs at least 2 samples along each axis, got {list(sdf.shape)}.")
    if not bool((high > low).all()):
        raise ValueError(
            f"upper {high.tolist()} must lie above lower {low.tolist()} in every coordinate."
        )
    with torch.no_grad():
        field = torch.nn.functional.pad(sdf - level, (1,) * 6, value=torch.inf)
        topology = dual_topology(field < 0)
        crossings = _linear_crossings(field, topology.crossing_ends)
        size = torch.tensor(sdf.shape, dtype=sdf.dtype, device=sdf.device)
        # Index 1 of the padded grid is sample 0.
        crossings = low + (crossings - 1) * ((high - low) / (size - 1))
        vertices = average_by_index(crossings, topology.crossing_vertex, len(topology.vertex_cell))
        return vertices, split_quads(topology.quads, shorter_diagonals(vertices, topology.quads))


def _linear_crossings(
    field: Float[Tensor, "x y z"], ends: Int64[Tensor, "crossing 2"]
) -> Float[Tensor, "crossing 3"]:
    """Zero crossings on grid edges, in units of the grid; beside infinity at the finite end."""
    _, ny, nz = field.shape
    values = field.reshape(-1)[ends]
    points = torch.stack([ends // (ny * nz), ends // nz % ny, ends % nz], dim=-1).to(field.dtype)
    start, end = values.unbind(1)
    fraction = start / (start - end)
    fraction = torch.where(start.isinf(), torch.ones_like(start), fraction)  # end is the inside one
    return points[:, 0] + fraction[:, None] * (points[:, 1] - points[:, 0])
