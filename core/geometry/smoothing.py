"""Contains smoothing of vertex positions over the edges of a mesh."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .edges import boundary_vertices, build_edges, neighbour_mean


def laplacian_smooth(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    *,
    iterations: int = 1,
    step: float = 1.0,
    fix_boundary: bool = True,
) -> Float[Tensor, "vertex 3"]:
    """Move each vertex towards the mean of its neighbours (uniform weights); shrinks the mesh.

    Args:
        vertices: positions.
        faces: vertex indices.
        iterations: rounds, all vertices at once in each.
        step: part of the way to the mean, 1 for all of it.
        fix_boundary: leave vertices on open borders where they are.
    """
    return _smooth(vertices, faces, [step] * iterations, fix_boundary)


def taubin_smooth(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    *,
    iterations: int = 10,
    shrink: float = 0.5,
    inflate: float = 0.53,
    fix_boundary: bool = True,
) -> Float[Tensor, "vertex 3"]:
    """Smooth without shrinking: a step towards the mean of the neighbours, then one away from it.

    Reference: Taubin 1995, "A signal processing approach to fair surface design".

    Args:
        vertices: positions.
        faces: vertex indices.
        iterations: pairs of steps.
        shrink: length of the first step (lambda of the paper).
        inflate: length of the second step, larger than ``shrink`` (minus mu of the paper).
        fix_boundary: leave vertices on open borders where they are.
    """
    if not 0 < shrink < inflate:
        raise ValueError(f"Taubin smoothing needs 0 < shrink < inflate, got {shrink}, {inflate}.")
    return _smooth(vertices, faces, [shrink, -inflate] * iterations, fix_boundary)


def _smooth(vertices: Tensor, faces: Tensor, steps: list[float], fix_boundary: bool) -> Tensor:
    table = build_edges(faces)
    moves = torch.ones_like(vertices[:, :1])
    if fix_boundary:
        moves = moves * ~boundary_vertices(table, len(vertices))[:, None]
    for step in steps:
        mean = neighbour_mean(vertices, table.edges)
        vertices = vertices + step * moves * (mean - vertices)
    return vertices
