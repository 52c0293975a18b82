"""Contains the dual marching cubes tables, derived from the topology of the cube.

Symbols: corner i of a cell has the offset (i & 1, i >> 1 & 1, i >> 2 & 1) along x, y, z. The code
of a cell sums 2^i over its inside corners. An edge whose corners differ is crossed. On each
face of the cell the crossed edges are joined by arcs; arcs form loops, and each loop is one patch
of the surface: one dual vertex. On a face with four crossed edges two joins are possible; we cut
off the inside corners, so that inside regions meeting at a diagonal stay apart.

Reference: Nielson 2004, "Dual Marching Cubes"; Wenger 2013, "Isosurfaces", section 3.6 (the two
cells that share an ambiguous face and would each pass both arcs through one vertex).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Int64
from torch import Tensor

NUM_CODES = 256

CORNER_OFFSETS = tuple((i & 1, i >> 1 & 1, i >> 2 & 1) for i in range(8))

# The order of the edges is that of the beta weights in published FlexiCubes networks.
EDGE_CORNERS = (
    (0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7), (6, 7), (2, 6), (2, 0), (3, 1), (7, 5), (6, 4),
)  # fmt: skip

_EDGE_OF_CORNERS = {frozenset(corners): edge for edge, corners in enumerate(EDGE_CORNERS)}


def _face_corners(axis: int, side: int) -> tuple[int, ...]:
    """Corners round the face on ``side`` of ``axis``, in cyclic order."""
    corners = []
    for second, third in ((0, 0), (1, 0), (1, 1), (0, 1)):
        offset = {axis: side, (axis + 1) % 3: second, (axis + 2) % 3: third}
        corners.append(offset[0] + 2 * offset[1] + 4 * offset[2])
    return tuple(corners)


FACE_CORNERS = tuple(_face_corners(axis, side) for axis in range(3) for side in range(2))
"""Face 2 * axis + side; its neighbour across is the same number with the last bit changed."""


def face_arcs(code: int, face: int, *, cut_off_inside: bool) -> list[tuple[int, int]]:
    """Pairs of crossed edges that the surface joins on one face of a cell."""
    corners = FACE_CORNERS[face]
    inside = [code >> corner & 1 for corner in corners]
    edges = [_EDGE_OF_CORNERS[frozenset((corners[i], corners[(i + 1) % 4]))] for i in range(4)]
    crossed = [edges[i] for i in range(4) if inside[i] != inside[(i + 1) % 4]]
    if len(crossed) == 4:
        return [(edges[i - 1], edges[i]) for i in range(4) if inside[i] == cut_off_inside]
    return [(crossed[0], crossed[1])] if crossed else []


def cell_patches(code: int, inverted_face: int | None = None) -> list[int]:
    """Patch of each of the 12 edges, -1 where not crossed; patches count up in edge order.

    Args:
        code: bit i is set when corner i is inside.
        inverted_face: face on which the outside corners are cut off instead of the inside ones.
    """
    label = list(range(12))
    crossed = set()
    for face in range(6):
        for first, second in face_arcs(code, face, cut_off_inside=face != inverted_face):
            crossed |= {first, second}
            keep, drop = label[first], label[second]
            label = [keep if value == drop else value for value in label]
    names: dict[int, int] = {}
    return [
        names.setdefault(label[edge], len(names)) if edge in crossed else -1 for edge in range(12)
    ]


def pinched_face(code: int) -> int | None:
    """The face whose two arcs lie on one patch, if any.

    Two such cells sharing that face would put four quads on one dual edge. Inverting the face in
    both cells separates the arcs. No code has two such faces, nor another ambiguous face beside it,
    so that an inversion never reaches a third cell.
    """
    patches = cell_patches(code)
    arcs = [face_arcs(code, face, cut_off_inside=True) for face in range(6)]
    pinched = [
        face
        for face in range(6)
        if len(arcs[face]) == 2 and patches[arcs[face][0][0]] == patches[arcs[face][1][0]]
    ]
    return pinched[0] if pinched else None


@dataclass(frozen=True)
class DualTables:
    """Lookup tables of the 256 cell codes; row 256 + code is the code with its face inverted.

    Attributes:
        patch_of_edge: patch number of each crossed edge, -1 where not crossed.
        num_patches: dual vertices of the cell.
        pinched_face: face to compare with the neighbour, -1 if none (256 rows).
        edge_by_offset: edge along an axis at position (second, third) along the next two axes.
    """

    patch_of_edge: Int64[Tensor, "row 12"]
    num_patches: Int64[Tensor, " row"]
    pinched_face: Int64[Tensor, " code"]
    edge_by_offset: Int64[Tensor, "axis=3 second=2 third=2"]


@lru_cache(maxsize=1)
def dual_tables() -> DualTables:
    """The tables on the CPU, computed once (a few milliseconds)."""
    pinched = [pinched_face(code) for code in range(NUM_CODES)]
    rows = [cell_patches(code) for code in range(NUM_CODES)]
    rows += [cell_patches(code, face) for code, face in enumerate(pinched)]
    patch_of_edge = torch.tensor(rows)
    edge_by_offset = torch.zeros(3, 2, 2, dtype=torch.int64)
    for edge, (start, end) in enumerate(EDGE_CORNERS):
        low, high = CORNER_OFFSETS[min(start, end)], CORNER_OFFSETS[max(start, end)]
        axis = next(a for a in range(3) if low[a] != high[a])
        edge_by_offset[axis, low[(axis + 1) % 3], low[(axis + 2) % 3]] = edge
    return DualTables(
        patch_of_edge=patch_of_edge,
        num_patches=patch_of_edge.amax(dim=1) + 1,
        pinched_face=torch.tensor([-1 if face is None else face for face in pinched]),
        edge_by_offset=edge_by_offset,
    )
