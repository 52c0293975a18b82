"""Contains FlexiCubes: differentiable extraction of a mesh from a grid whose cells have weights.

Symbols, per cell: alpha stretches the SDF at the corners and so moves the crossings u on the edges;
beta weighs the crossings in the dual vertex; gamma decides how a quad becomes triangles. All are
positive; alpha = beta = 1 gives dual marching cubes.

Reference: Shen et al. 2023, "Flexible isosurface extraction for gradient-based mesh optimization".
The SDF is negative inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .._checks import require_finite, require_floating, require_shape
from .isosurface import DualTopology, dual_topology, split_quads
from .isosurface_tables import EDGE_CORNERS

NUM_LOGITS = 21
MIN_SQUARED_DISTANCE = 1e-20  # keeps the gradient of a distance finite at zero


@dataclass(frozen=True)
class FlexiCubesWeights:
    """Weights of all cells, in the flat order of the cells (z fastest).

    Attributes:
        beta: of the 12 edges (order of `isosurface_tables.EDGE_CORNERS`).
        alpha: of the 8 corners (corner i at offset (i & 1, i >> 1 & 1, i >> 2 & 1)).
        gamma: of the cell.
    """

    beta: Float[Tensor, "cell 12"]
    alpha: Float[Tensor, "cell 8"]
    gamma: Float[Tensor, " cell"]


@dataclass(frozen=True)
class FlexiCubesMesh:
    """An extracted mesh.

    Attributes:
        vertices: in the units of the grid; differentiable.
        faces: counter-clockwise seen from outside.
        deviation: for each crossing of a cell, how far its distance to the dual vertex differs from
            the mean of that vertex; the mean of all is the regulariser L_dev (Eq. 8).
    """

    vertices: Float[Tensor, "vertex 3"]
    faces: Int64[Tensor, "face 3"]
    deviation: Float[Tensor, " crossing"]


def weights_from_logits(logits: Float[Tensor, "cell 21"], scale: float = 0.5) -> FlexiCubesWeights:
    """Weights of the raw outputs of a network: 12 of beta, 8 of alpha, one of gamma.

    Zero logits give beta = alpha = 1 and gamma = 0.5; ``scale`` is the half width of the range.
    """
    require_shape("logits", logits, None, NUM_LOGITS)
    if not 0 < scale < 1:
        raise ValueError(f"scale must lie between 0 and 1, or weights turn negative; got {scale}.")
    return FlexiCubesWeights(
        beta=torch.tanh(logits[:, :12]) * scale + 1,
        alpha=torch.tanh(logits[:, 12:20]) * scale + 1,
        gamma=torch.sigmoid(logits[:, 20]) * scale + (1 - scale) / 2,
    )


def flexicubes(
    sdf: Float[Tensor, "x y z"],
    grid_vertices: Float[Tensor, "x y z 3"],
    weights: FlexiCubesWeights | None = None,
    *,
    training: bool = False,
) -> FlexiCubesMesh:
    """Extract the zero level; gradients flow to the SDF, the grid and the weights.

    The mesh is manifold. Where the inside reaches the border of the grid it stays open, and there
    two fans may share a vertex (`manifold_cut` parts them). A grid of one sign gives an empty mesh.

    Args:
        sdf: samples, negative inside.
        grid_vertices: position of each sample; may be displaced by up to half a cell.
        weights: None for plain dual marching cubes.
        training: four triangles round the middle of each quad, so that gamma gets a gradient,
            instead of two triangles along a diagonal.
    """
    _require_grid(sdf, grid_vertices)
    num_cells = (sdf.shape[0] - 1) * (sdf.shape[1] - 1) * (sdf.shape[2] - 1)
    if weights is None:
        weights = _unit_weights(num_cells, sdf)
    elif len(weights.gamma) != num_cells:
        raise ValueError(
            f"The grid {list(sdf.shape)} has {num_cells} cells, but the weights are for "
            f"{len(weights.gamma)}."
        )
    topology = dual_topology(sdf.detach() < 0)
    cell = topology.cells[topology.crossing_cell]
    corners = torch.tensor(EDGE_CORNERS, device=sdf.device)[topology.crossing_edge]
    stretch = weights.alpha[cell[:, None], corners]
    beta = weights.beta[cell, topology.crossing_edge]
    vertices = _dual_vertices(_crossings(sdf, grid_vertices, topology, stretch), beta, topology)
    # The published regulariser measures to the crossings of the SDF itself, without alpha.
    deviation = _deviation(_crossings(sdf, grid_vertices, topology), vertices, topology)
    gamma = weights.gamma[topology.cells[topology.vertex_cell]]
    if training:
        vertices, faces = _fan_quads(vertices, gamma, topology.quads)
    else:
        a, b, c, d = gamma[topology.quads].unbind(1)
        faces = split_quads(topology.quads, a * c > b * d)
    return FlexiCubesMesh(vertices, faces, deviation)


def _require_grid(sdf: Tensor, grid_vertices: Tensor) -> None:
    require_shape("sdf", sdf, None, None, None)
    require_floating("sdf", sdf)
    require_finite("sdf", sdf)
    require_shape("grid_vertices", grid_vertices, *sdf.shape, 3)
    require_finite("grid_vertices", grid_vertices)
    if min(sdf.shape) < 2:
        raise ValueError(f"sdf needs at least 2 samples along each axis, got {list(sdf.shape)}.")


def _unit_weights(num_cells: int, like: Tensor) -> FlexiCubesWeights:
    one = like.new_ones(1)
    return FlexiCubesWeights(
        one.expand(num_cells, 12), one.expand(num_cells, 8), one.expand(num_cells)
    )


def _crossings(
    sdf: Float[Tensor, "x y z"],
    grid_vertices: Float[Tensor, "x y z 3"],
    topology: DualTopology,
    stretch: Float[Tensor, "crossing 2"] | None = None,
) -> Float[Tensor, "crossing 3"]:
    """Zero crossings on the edges, of the SDF times alpha at the two ends if given (Eq. 4)."""
    values = sdf.reshape(-1)[topology.crossing_ends]
    start, end = (values if stretch is None else values * stretch).unbind(1)
    start_point, end_point = grid_vertices.reshape(-1, 3)[topology.crossing_ends].unbind(1)
    fraction = start / (start - end)  # signs differ, so that the difference is never zero
    return start_point + fraction[:, None] * (end_point - start_point)


def _dual_vertices(
    crossings: Float[Tensor, "crossing 3"],
    beta: Float[Tensor, " crossing"],
    topology: DualTopology,
) -> Float[Tensor, "vertex 3"]:
    """Mean of the crossings of each patch, weighted by beta (Eq. 5)."""
    count = len(topology.vertex_cell)
    index = topology.crossing_vertex
    total = beta.new_zeros(count).index_add(0, index, beta)
    summed = crossings.new_zeros((count, 3)).index_add(0, index, crossings * beta[:, None])
    return summed / total[:, None]


def _deviation(
    crossings: Float[Tensor, "crossing 3"],
    vertices: Float[Tensor, "vertex 3"],
    topology: DualTopology,
) -> Float[Tensor, " crossing"]:
    """Mean absolute deviation of the distances between dual vertex and crossings (Eq. 8)."""
    index = topology.crossing_vertex
    squared = (crossings - vertices[index]).square().sum(dim=-1)
    distance = squared.clamp(min=MIN_SQUARED_DISTANCE).sqrt()
    count = len(topology.vertex_cell)
    number = torch.bincount(index, minlength=count).to(distance)
    mean = distance.new_zeros(count).index_add(0, index, distance) / number
    return (distance - mean[index]).abs()


def _fan_quads(
    vertices: Float[Tensor, "vertex 3"],
    gamma: Float[Tensor, " vertex"],
    quads: Int64[Tensor, "quad 4"],
) -> tuple[Float[Tensor, "more 3"], Int64[Tensor, "face 3"]]:
    """Four triangles per quad round a point that gamma draws to one diagonal or the other."""
    a, b, c, d = vertices[quads].unbind(dim=1)
    gamma_a, gamma_b, gamma_c, gamma_d = gamma[quads].unbind(1)
    first, second = (gamma_a * gamma_c)[:, None], (gamma_b * gamma_d)[:, None]
    middles = (first * (a + c) + second * (b + d)) / (2 * (first + second))
    middle = torch.arange(len(quads), device=quads.device)[:, None] + len(vertices)
    corners = torch.stack([quads, quads.roll(-1, dims=1), middle.expand(-1, 4)], dim=-1)
    return torch.cat([vertices, middles]), corners.reshape(-1, 3)
