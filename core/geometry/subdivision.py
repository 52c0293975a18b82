"""Contains Loop subdivision that only divides where triangles are large.

Reference: Loop 1987, "Smooth subdivision surfaces based on triangles"; boundary rules as in Hoppe
et al. 1994, "Piecewise smooth surface reconstruction"; interpolation after Cheng et al. 2009, "Loop
subdivision surface based progressive interpolation".
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..mesh import Mesh
from .edges import EdgeTable, build_edges, edge_lengths, opposite_vertices
from .remesh_split import split_edges
from .submesh import first_of_each, group_rows, vertex_columns, with_vertex_columns

INTERPOLATION_ROUNDS = 3  # what is left of a vertex's shift after them: less than a fifth


def loop_subdivide(
    mesh: Mesh,
    iterations: int = 2,
    edge_threshold: float = 0.0025,
    *,
    interpolate: bool = False,
) -> Mesh:
    """Smooth and refine a mesh; edges below the threshold are left alone, without cracks.

    Colours and texture coordinates of new vertices lie halfway. Across texture seams, where a
    vertex stands once per coordinate, the surface stays closed.

    Args:
        mesh: may have boundaries; edges with more than two faces are treated as boundaries.
        iterations: number of rounds; each makes up to four faces of one.
        edge_threshold: an edge is divided when longer than this part of the diagonal of the
            bounding box; 0 divides all.
        interpolate: keep old vertices (nearly) in place. Loop's scheme pulls them inwards, which
            costs rods that are only a few edges round much of their thickness.
    """
    if iterations < 0 or edge_threshold < 0:
        raise ValueError(
            "iterations and edge_threshold must not be negative, got "
            f"{iterations} and {edge_threshold}."
        )
    if mesh.is_empty:
        return mesh
    low, high = mesh.bounds()
    limit = edge_threshold * float((high - low).norm())
    for _ in range(iterations):
        mesh = _subdivide_once(mesh, limit, interpolate)
    return mesh


def _subdivide_once(mesh: Mesh, limit: float, interpolate: bool) -> Mesh:
    # The surface is that of the welded mesh; colours and coordinates live on the mesh as it is.
    if mesh.uvs is None:
        site = torch.arange(mesh.num_vertices, device=mesh.faces.device)
        points, sites = mesh.vertices, mesh.faces
    else:
        site = group_rows(mesh.vertices)
        points, sites = mesh.vertices[first_of_each(site)], site[mesh.faces]
    welded = build_edges(sites)
    is_long = edge_lengths(points, welded.edges) > limit
    if not bool(is_long.any()):
        return mesh
    if interpolate:
        points = _control_points(points, welded, is_long)
    odd = _edge_points(points, sites, welded)
    even = _vertex_points(points, welded, is_long)

    table = build_edges(mesh.faces)
    welded_edge = torch.empty_like(table.face_count)
    welded_edge[table.face_edges] = welded.face_edges
    is_split = is_long[welded_edge]
    columns, faces = split_edges(vertex_columns(mesh), mesh.faces, table, is_split)
    refined = with_vertex_columns(mesh, columns, faces)
    return replace(refined, vertices=torch.cat([even[site], odd[welded_edge[is_split]]]))


def _control_points(
    points: Float[Tensor, "vertex 3"], table: EdgeTable, is_split: Bool[Tensor, " edge"]
) -> Float[Tensor, "vertex 3"]:
    """Points that `_vertex_points` moves to where ``points`` are now.

    Its matrix has eigenvalues between 7/16 (valence 6) and 1, so adding what is missing converges.
    """
    control = points
    for _ in range(INTERPOLATION_ROUNDS):
        control = control + points - _vertex_points(control, table, is_split)
    return control


def _edge_points(
    points: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"], table: EdgeTable
) -> Float[Tensor, "edge 3"]:
    """New vertices: 3/8 of the ends and 1/8 of the opposite corners; the middle on a boundary."""
    start, end = points[table.edges].unbind(dim=1)
    middle = (start + end) / 2
    opposite = opposite_vertices(faces, table.edge_sides).clamp(min=0)
    inner = 0.75 * middle + points[opposite].sum(dim=1) / 8
    return torch.where((table.face_count == 2)[:, None], inner, middle)


def _vertex_points(
    points: Float[Tensor, "vertex 3"], table: EdgeTable, is_split: Bool[Tensor, " edge"]
) -> Float[Tensor, "vertex 3"]:
    """Old vertices, moved where an edge at them is divided."""
    count = len(points)
    inner = table.face_count == 2
    border = table.edges[~inner]
    degree, neighbours = _sum_neighbours(points, table.edges)
    beta = (5 / 8 - (3 / 8 + torch.cos(2 * torch.pi / degree) / 4).square()) / degree
    moved = (1 - degree * beta) * points + beta * neighbours

    border_degree, border_neighbours = _sum_neighbours(points, border)
    on_curve = 0.75 * points + border_neighbours / 8  # two neighbours along the boundary
    moved = torch.where(border_degree > 0, points, moved)  # corners where boundaries meet stay
    moved = torch.where(border_degree == 2, on_curve, moved)
    touched = torch.zeros(count, dtype=torch.bool, device=points.device)
    touched[table.edges[is_split].reshape(-1)] = True
    return torch.where(touched[:, None], moved, points)


def _sum_neighbours(
    points: Float[Tensor, "vertex 3"], edges: Int64[Tensor, "edge 2"]
) -> tuple[Float[Tensor, "vertex 1"], Float[Tensor, "vertex 3"]]:
    start, end = edges.unbind(1)
    summed = torch.zeros_like(points).index_add(0, start, points[end])
    summed = summed.index_add(0, end, points[start])
    degree = torch.bincount(edges.reshape(-1), minlength=len(points)).to(points)
    return degree[:, None], summed
