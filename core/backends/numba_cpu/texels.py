"""Contains the compiled count of the triangles that cover each texel."""

from __future__ import annotations

import math

import numpy as np

from .runtime import compiled


@compiled()
def count_layers(corners, counts, epsilon):  # type: ignore[no-untyped-def]
    """Add 1 to ``counts`` [height, width] at every texel centre inside a triangle.

    Args:
        corners: [face, 3, 2] in pixels, texel centres at whole numbers, float64.
        counts: int32, changed in place.
        epsilon: barycentric margin; centres closer to the border count for none.
    """
    for face in range(len(corners)):
        _visit(corners[face], counts, epsilon, False)


@compiled()
def find_overlaps(corners, counts, epsilon, involved):  # type: ignore[no-untyped-def]
    """Set ``involved`` [face] where a triangle covers a texel of more than one layer."""
    for face in range(len(corners)):
        involved[face] = _visit(corners[face], counts, epsilon, True)


@compiled()
def _visit(corners, counts, epsilon, look):  # type: ignore[no-untyped-def]
    height, width = counts.shape
    ax, ay = corners[0, 0], corners[0, 1]
    bx, by = corners[1, 0], corners[1, 1]
    cx, cy = corners[2, 0], corners[2, 1]
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if abs(area) < 1e-12:
        return False
    first_column = max(0, int(math.ceil(min(ax, bx, cx))))
    last_column = min(width - 1, int(math.floor(max(ax, bx, cx))))
    first_row = max(0, int(math.ceil(min(ay, by, cy))))
    last_row = min(height - 1, int(math.floor(max(ay, by, cy))))
    for y in range(first_row, last_row + 1):
        for x in range(first_column, last_column + 1):
            u = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
            v = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
            if u > epsilon and v > epsilon and 1.0 - u - v > epsilon:
                if look:
                    if counts[y, x] > 1:
                        return True
                else:
                    counts[y, x] += np.int32(1)
    return False
