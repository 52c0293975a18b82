"""Contains the second part of a remeshing pass: long edges get a vertex in the middle.

A face falls into 2, 3 or 4 by how many of its sides are split. The two faces at an edge see the
same new vertex, so no crack opens.

Reference: Palfinger 2022, "Continuous remeshing for inverse rendering", section 3.3.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .edges import EdgeTable


def split_edges(
    columns: Float[Tensor, "vertex channel"],
    faces: Int64[Tensor, "face 3"],
    table: EdgeTable,
    is_split: Bool[Tensor, " edge"],
) -> tuple[Float[Tensor, "more channel"], Int64[Tensor, "more_faces 3"]]:
    """Put a vertex with the mean of all columns on the given edges and divide their faces.

    New vertices are appended in the order of the edges.
    """
    start, end = table.edges[is_split].unbind(1)
    middles = (columns[start] + columns[end]) / 2
    middle_of_edge = torch.full_like(table.face_count, -1)
    middle_of_edge[is_split] = torch.arange(len(middles), device=faces.device) + len(columns)
    return torch.cat([columns, middles]), divide_faces(faces, middle_of_edge[table.face_edges])


def divide_faces(
    faces: Int64[Tensor, "face 3"], middles: Int64[Tensor, "face 3"]
) -> Int64[Tensor, "more 3"]:
    r"""Divide faces by the vertices on their sides (-1 where a side has none).

    Drawn with the face turned so that its odd side is ab; three splits leave four faces: the
    corners and the middle.

              c               c               c
             / \             /|\             / \
            /   \           / | \          ca---bc
           /     \         /  |  \         /  __/ \
          a-------b       a---ab--b       a--------b
         none split       one split      two split
    """
    has_middle = middles >= 0
    count = has_middle.sum(dim=1)
    whole = faces[count == 0]

    def turned(rows: Tensor, side: Tensor) -> tuple[Tensor, ...]:
        """Corners a, b, c and middles ab, bc, ca of ``rows``, side ``side`` first."""
        index = (side[:, None] + torch.arange(3, device=faces.device)) % 3
        return (
            *faces[rows].gather(1, index).unbind(1),
            *middles[rows].gather(1, index).unbind(1),
        )

    one, two, three = ((count == number).nonzero()[:, 0] for number in (1, 2, 3))
    a, b, c, ab, _, _ = turned(one, has_middle[one].long().argmax(dim=1))
    halves = [(a, ab, c), (ab, b, c)]
    a, b, c, _, bc, ca = turned(two, (~has_middle[two]).long().argmax(dim=1))
    thirds = [(a, b, bc), (a, bc, ca), (ca, bc, c)]
    a, b, c, ab, bc, ca = turned(three, torch.zeros_like(three))
    quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    pieces = [torch.stack(corners, dim=1) for corners in halves + thirds + quarters]
    return torch.cat([whole, *pieces])
