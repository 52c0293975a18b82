"""Contains the filling of texels: unseen ones along the surface, empty ones beyond the seams."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .vertex_fill import spread_values

SURFACE_NODES = 20_000
NODE_NEIGHBOURS = 8
BLEND_NEIGHBOURS = 4
NORMAL_WEIGHT = 1.5
"""A right angle between normals counts as this many node distances times the root of two."""
MIN_NODE_TRUST = 0.25


def dilate_texture(
    texture: Float[Tensor, "height width channel"],
    covered: Bool[Tensor, "height width"],
    *,
    padding_px: int | None = None,
) -> Float[Tensor, "height width channel"]:
    """Give empty texels the value of the nearest covered one, so that no seam shows.

    Args:
        texture: values, those of empty texels are ignored.
        covered: texels that belong to the surface.
        padding_px: how far values reach; texels further away get the mean value. None fills the
            whole texture, which keeps smaller mip levels clean too.

    Raises:
        ValueError: no texel is covered.
    """
    if not bool(covered.any()):
        raise ValueError("No texel is covered; the mesh's uvs have no area in the texture.")
    if bool(covered.all()):
        return texture
    from scipy.ndimage import distance_transform_edt

    empty = ~covered.cpu().numpy()
    distance, nearest = distance_transform_edt(empty, return_indices=True)
    rows, columns = (torch.as_tensor(index, device=texture.device) for index in nearest)
    padded = texture[rows.long(), columns.long()]
    if padding_px is not None:
        far = torch.as_tensor(distance > padding_px, device=texture.device)
        padded[far] = texture[covered].mean(dim=0)
    return padded


def fill_along_surface(
    values: Float[Tensor, "point channel"],
    trust: Float[Tensor, " point"],
    positions: Float[Tensor, "point 3"],
    normals: Float[Tensor, "point 3"],
    areas: Float[Tensor, " point"],
) -> Float[Tensor, "point channel"]:
    """Blend values of little trust into what the trusted neighbours on the surface show.

    Points are gathered into cells of space and direction; values spread over the graph of
    neighbouring cells, which follows the surface across seams and keeps thin sheets apart.

    Args:
        values: one row per surface point, such as the colour of a texel.
        trust: 0 (replace) .. 1 (keep).
        positions: world positions of the points.
        normals: unit normals of the points.
        areas: surface area that each point stands for.

    Raises:
        ValueError: no point is trusted.
    """
    doubtful = (trust < 1).nonzero()[:, 0]
    if not len(doubtful):
        return values
    from scipy.spatial import cKDTree

    features, cell = _surface_cells(positions, normals, float(areas.sum()))
    num_cells = int(cell.max()) + 1
    count = torch.bincount(cell, minlength=num_cells).to(values.dtype)
    mass = values.new_zeros(num_cells).index_add(0, cell, trust)
    sums = values.new_zeros(num_cells, values.shape[1])
    sums = sums.index_add(0, cell, values * trust[:, None])
    nodes = features.new_zeros(num_cells, 6).index_add(0, cell, features) / count[:, None]
    known = mass >= MIN_NODE_TRUST * count
    if not bool(known.any()):
        known = mass > 0
    tree = cKDTree(nodes.cpu().numpy(), balanced_tree=False)
    neighbours = tree.query(tree.data, k=min(NODE_NEIGHBOURS + 1, num_cells), workers=-1)[1]
    neighbours = torch.as_tensor(neighbours.reshape(num_cells, -1), device=values.device)
    start = torch.arange(num_cells, device=values.device)[:, None].expand_as(neighbours)
    pairs = torch.stack([start.reshape(-1), neighbours.reshape(-1)], dim=1)
    directions = nodes[:, 3:]
    pairs = pairs[(directions[pairs[:, 0]] * directions[pairs[:, 1]]).sum(dim=1) >= 0]
    spread = spread_values(sums / mass.clamp(min=1e-12)[:, None], known, pairs, nodes)
    distance, nearest = tree.query(
        features[doubtful].cpu().numpy(), k=min(BLEND_NEIGHBOURS, num_cells), workers=-1
    )
    blended = _blend(spread, distance, nearest)
    share = trust[doubtful, None]
    result = values.clone()
    result[doubtful] = share * values[doubtful] + (1 - share) * blended
    return result


def _surface_cells(positions: Tensor, normals: Tensor, area: float) -> tuple[Tensor, Tensor]:
    """Coordinates of space and direction in cell sizes, and the cell of each point."""
    num_nodes = min(SURFACE_NODES, max(1.0, len(positions) / 4))  # several points per cell
    size = math.sqrt(max(area, 1e-24) / num_nodes)
    features = torch.cat([positions / size, NORMAL_WEIGHT * normals], dim=1)
    octant = (normals * 1.5).round().clamp(-1, 1).long() + 1  # 27 directions
    grid = (positions / size).floor().long()
    grid = grid - grid.amin(dim=0)
    spans = grid.amax(dim=0) + 1
    key = (grid[:, 0] * spans[1] + grid[:, 1]) * spans[2] + grid[:, 2]
    key = ((key * 3 + octant[:, 0]) * 3 + octant[:, 1]) * 3 + octant[:, 2]
    return features, torch.unique(key, return_inverse=True)[1]


def _blend(values: Tensor, distance: np.ndarray, nearest: np.ndarray) -> Tensor:
    """Mean of the nearest nodes, weighted by inverse squared distance."""
    distance, nearest = distance.reshape(len(distance), -1), nearest.reshape(len(nearest), -1)
    closeness = 1.0 / (distance**2 + 0.25)
    weight = torch.as_tensor(closeness / closeness.sum(axis=1, keepdims=True)).to(values)
    index = torch.as_tensor(nearest, dtype=torch.int64, device=values.device)
    return (values[index] * weight[..., None]).sum(dim=1)
