"""Contains edge tables and adjacency of triangle meshes.

Side k of a face (a, b, c) runs from corner k to corner k + 1: ab, bc, ca. The corner opposite it is
corner k + 2. Every function is vectorised torch on the device of its input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .sorting import stable_sort


@dataclass(frozen=True)
class EdgeTable:
    """The undirected edges of a mesh and how its faces use them.

    Attributes:
        edges: the two vertices of each edge, the lower index first; sorted.
        face_edges: edge of side k of each face.
        face_count: number of faces at each edge: 1 on a boundary, 2 inside, more if non-manifold.
        edge_sides: two of the sides at each edge, as 3 * face + k, the lower first; -1 where the
            edge has a single face.
    """

    edges: Int64[Tensor, "edge 2"]
    face_edges: Int64[Tensor, "face 3"]
    face_count: Int64[Tensor, " edge"]
    edge_sides: Int64[Tensor, "edge 2"]


def side_vertices(faces: Int64[Tensor, "face 3"]) -> Int64[Tensor, "side 2"]:
    """Start and end vertex of the directed sides, three per face."""
    return torch.stack([faces, faces.roll(-1, dims=1)], dim=-1).reshape(-1, 2)


def build_edges(faces: Int64[Tensor, "face 3"]) -> EdgeTable:
    """The edge table of a mesh; faces may be non-manifold, but must have three distinct corners."""
    device = faces.device
    if not len(faces):
        empty = torch.zeros((0, 2), dtype=torch.int64, device=device)
        return EdgeTable(empty, faces, empty[:, 0], empty)
    start, end = side_vertices(faces).unbind(1)
    stride = int(faces.max()) + 1
    key, side = stable_sort(torch.minimum(start, end) * stride + torch.maximum(start, end))
    is_first = torch.ones_like(key, dtype=torch.bool)
    is_first[1:] = key[1:] != key[:-1]
    edge_of_sorted = is_first.cumsum(0) - 1
    face_edges = torch.empty_like(side)
    face_edges[side] = edge_of_sorted
    first = is_first.nonzero()[:, 0]
    bounds = torch.cat([first, first.new_tensor([len(key)])])
    face_count = bounds[1:] - bounds[:-1]
    second = side[(first + 1).clamp(max=len(side) - 1)]
    second = torch.where(face_count > 1, second, torch.full_like(second, -1))
    unique = key[first]
    return EdgeTable(
        edges=torch.stack([unique // stride, unique % stride], dim=1),
        face_edges=face_edges.reshape(-1, 3),
        face_count=face_count,
        edge_sides=torch.stack([side[first], second], dim=1),
    )


def opposite_vertices(
    faces: Int64[Tensor, "face 3"], edge_sides: Int64[Tensor, "edge 2"]
) -> Int64[Tensor, "edge 2"]:
    """The corner facing each edge in its two faces, -1 where there is no second face."""
    corners = faces.roll(-2, dims=1).reshape(-1)  # corner k + 2 for side k
    return torch.where(edge_sides >= 0, corners[edge_sides.clamp(min=0)], edge_sides)


def vertex_degrees(edges: Int64[Tensor, "edge 2"], num_vertices: int) -> Int64[Tensor, " vertex"]:
    """Number of edges at each vertex."""
    return torch.bincount(edges.reshape(-1), minlength=num_vertices)


def boundary_vertices(table: EdgeTable, num_vertices: int) -> Bool[Tensor, " vertex"]:
    """Vertices on an edge that has a single face."""
    on_boundary = torch.zeros(num_vertices, dtype=torch.bool, device=table.edges.device)
    on_boundary[table.edges[table.face_count == 1].reshape(-1)] = True
    return on_boundary


def edge_lengths(
    vertices: Float[Tensor, "vertex 3"], edges: Int64[Tensor, "edge 2"]
) -> Float[Tensor, " edge"]:
    """Euclidean length of each edge, in the unit of the vertices."""
    return (vertices[edges[:, 0]] - vertices[edges[:, 1]]).norm(dim=-1)


def neighbour_mean(
    values: Float[Tensor, "vertex channel"], edges: Int64[Tensor, "edge 2"]
) -> Float[Tensor, "vertex channel"]:
    """Mean of the values at the neighbours of each vertex; its own value where it has none."""
    start, end = edges.unbind(1)
    summed = torch.zeros_like(values).index_add(0, start, values[end])
    summed = summed.index_add(0, end, values[start])
    degrees = vertex_degrees(edges, len(values))
    mean = summed / degrees.clamp(min=1).to(values)[:, None]
    return torch.where(degrees[:, None] > 0, mean, values)


def has_edge(
    table: EdgeTable, first: Int64[Tensor, " pair"], second: Int64[Tensor, " pair"]
) -> Bool[Tensor, " pair"]:
    """Whether the mesh has an edge between the two vertices of each pair."""
    if not len(table.edges) or not len(first):
        return torch.zeros_like(first, dtype=torch.bool)
    stride = int(max(table.edges.max(), first.max(), second.max())) + 1
    keys = table.edges[:, 0] * stride + table.edges[:, 1]  # sorted, as the edges are
    wanted = torch.minimum(first, second) * stride + torch.maximum(first, second)
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return keys[place] == wanted


def count_common_neighbours(
    table: EdgeTable, pairs: Int64[Tensor, "pair 2"], num_vertices: int
) -> Int64[Tensor, " pair"]:
    """Number of vertices that are neighbours of both vertices of each pair."""
    center, other = pairs.unbind(1)
    wanted = torch.zeros(num_vertices, dtype=torch.bool, device=pairs.device)
    wanted[center] = True
    start, end = table.edges.unbind(1)
    forward, backward = wanted[start], wanted[end]
    source = torch.cat([start[forward], end[backward]])
    source, order = stable_sort(source)
    target = torch.cat([end[forward], start[backward]])[order]
    degrees = torch.bincount(source, minlength=num_vertices)
    first = degrees.cumsum(0) - degrees

    # One row per (pair, neighbour of its center).
    repeats = degrees[center]
    pair = torch.arange(len(pairs), device=pairs.device).repeat_interleave(repeats)
    within = torch.arange(len(pair), device=pairs.device) - (repeats.cumsum(0) - repeats)[pair]
    neighbour = target[first[center[pair]] + within]
    common = has_edge(table, other[pair], neighbour)
    return torch.bincount(pair[common], minlength=len(pairs))
