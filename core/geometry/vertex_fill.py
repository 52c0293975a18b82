"""Contains the spreading of values over a surface, from where they are known to where they are not.

Values grow outwards from the known places, ring by ring, each place taking the mean of its
neighbours; then the filled places are averaged over as many rounds as the growing took.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..mesh import Mesh
from .chart_segmentation import weld_positions

MAX_ROUNDS = 10_000
"""Published cap of the growing rounds."""


def fill_unseen_vertices(
    mesh: Mesh,
    values: Float[Tensor, "vertex channel"],
    seen: Bool[Tensor, " vertex"],
    *,
    smoothing_rounds: int | None = None,
) -> Float[Tensor, "vertex channel"]:
    """Replace the values of unseen vertices by those that spread along edges from seen ones.

    Vertices at one position count as one, so seams do not stop the spreading; seen vertices keep
    their values. A part of the mesh without any seen vertex takes, per vertex, the value of the
    nearest seen vertex in space.

    Args:
        mesh: its edges are the paths.
        values: any number of channels; those of unseen vertices are ignored.
        seen: where the values count.
        smoothing_rounds: rounds of averaging after growing; as many as were grown when None.

    Reference: Kiss3DGen (Lin et al. 2025), released colour completion.

    Raises:
        ValueError: no vertex is seen.
    """
    position = weld_positions(mesh.vertices)
    num_positions = int(position.max()) + 1 if len(position) else 0
    weight = seen.to(values.dtype)
    mass = values.new_zeros(num_positions).index_add(0, position, weight)
    merged = values.new_zeros(num_positions, values.shape[1]).index_add(
        0, position, values * weight[:, None]
    ) / mass.clamp(min=1)[:, None]  # fmt: skip
    places = mesh.vertices.new_zeros(num_positions, 3)
    places[position] = mesh.vertices.detach()
    corners = position[mesh.faces]
    pairs = torch.cat([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    spread = spread_values(merged, mass > 0, pairs, places, smoothing_rounds=smoothing_rounds)
    return torch.where(seen[:, None], values, spread[position])


def spread_values(
    values: Float[Tensor, "node channel"],
    known: Bool[Tensor, " node"],
    pairs: Int64[Tensor, "pair 2"],
    positions: Float[Tensor, "node coordinate"],
    *,
    smoothing_rounds: int | None = None,
) -> Float[Tensor, "node channel"]:
    """Fill unknown nodes of a graph from known ones, which stay as they are.

    Nodes that no path connects to a known one take the value of the known node nearest to them.

    Raises:
        ValueError: nothing is known.
    """
    if not bool(known.any()):
        raise ValueError(
            "There is no value to spread: no vertex or texel is seen by any view. Check that "
            "cameras and pictures belong to this mesh."
        )
    result = values.detach().cpu().double().numpy().copy()
    reached = known.cpu().numpy().copy()
    unknown = np.flatnonzero(~reached)
    if not len(unknown):
        return values
    result[unknown] = 0
    adjacency = _adjacency(pairs.cpu().numpy(), len(result))[unknown]
    rounds = _grow(result, reached, unknown, adjacency)
    lost = unknown[~reached[unknown]]
    filled = reached[unknown]
    rows, paths = unknown[filled], adjacency[filled]
    degree = np.maximum(paths.sum(axis=1), 1)[:, None]
    for _ in range(rounds if smoothing_rounds is None else smoothing_rounds):
        result[rows] = (paths @ result) / degree
    if len(lost):
        from scipy.spatial import cKDTree

        place = positions.detach().cpu().double().numpy()
        sources = np.flatnonzero(known.cpu().numpy())
        result[lost] = result[sources[cKDTree(place[sources]).query(place[lost], workers=-1)[1]]]
    return torch.as_tensor(result, device=values.device).to(values.dtype)


def _adjacency(pairs: np.ndarray, size: int):  # type: ignore[no-untyped-def]
    from scipy.sparse import coo_array

    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    rows = np.concatenate([pairs[:, 0], pairs[:, 1]])
    columns = np.concatenate([pairs[:, 1], pairs[:, 0]])
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size)).tocsr()
    graph.data[:] = 1.0  # an edge counts once, however many faces share it
    return graph


def _grow(result: np.ndarray, reached: np.ndarray, unknown: np.ndarray, adjacency) -> int:  # type: ignore[no-untyped-def]
    """Fill ``result`` ring by ring in place; the number of rounds."""
    waiting = np.arange(len(unknown))
    paths = adjacency
    for done in range(MAX_ROUNDS):
        contacts = paths @ reached.astype(np.float64)
        touched = contacts > 0
        if not touched.any():
            return done
        ring = unknown[waiting[touched]]
        result[ring] = (paths[touched] @ result) / contacts[touched, None]
        reached[ring] = True
        waiting, paths = waiting[~touched], paths[~touched]
        if not len(waiting):
            return done + 1
    return MAX_ROUNDS
