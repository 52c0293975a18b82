"""Contains how ellipses are ordered by depth and dealt out to image tiles, on the CPU.

Depths are sorted once per view; a stable counting sort then lists for each tile, front to back, the
ellipses whose extent meets it. Every (ellipse, tile) pair owns one slot of the gradient buffer;
the slots of one ellipse are neighbours, so their sum has a fixed order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..splat_view import ALPHA_MIN
from .runtime import compiled

TILE_WIDTH = 64
TILE_HEIGHT = 16
_RADIX_BITS = 11


class TileLists(NamedTuple):
    """Drawn Gaussians in depth order and their tiles.

    Attributes:
        order: Gaussian of each rank (0 is the nearest).
        first_slot: first gradient slot of each rank; one more entry closes the last.
        tile_start: first entry of each tile; one more entry closes the last.
        entry_rank: rank of each entry.
        entry_slot: gradient slot of each entry.
        tile_order: tiles in the order of drawing (filled in by the caller).
    """

    order: Any
    first_slot: Any
    tile_start: Any
    entry_rank: Any
    entry_slot: Any
    tile_order: Any


@compiled()
def sort_by_depth(depths, radii):
    """Indices of drawn Gaussians (radius > 0) from near to far; equal depths keep their order.

    Radix sort of the float32 bits, then insertion by the float64 values among near-equal ones.
    """
    count = 0
    for g in range(depths.shape[0]):
        if radii[g] > 0:
            count += 1
    order = np.empty(count, np.int64)
    rough = np.empty(count, np.float32)
    count = 0
    for g in range(depths.shape[0]):
        if radii[g] > 0:
            order[count] = g
            rough[count] = depths[g]
            count += 1
    keys = rough.view(np.uint32)  # positive floats compare like their bits
    other_order, other_keys = np.empty_like(order), np.empty_like(keys)
    mask = np.uint32((1 << _RADIX_BITS) - 1)
    for digit in range(3):
        shift = np.uint32(digit * _RADIX_BITS)
        starts = np.zeros((1 << _RADIX_BITS) + 1, np.int64)
        for i in range(count):
            starts[((keys[i] >> shift) & mask) + 1] += 1
        for i in range(1 << _RADIX_BITS):
            starts[i + 1] += starts[i]
        for i in range(count):
            bucket = (keys[i] >> shift) & mask
            target = starts[bucket]
            starts[bucket] = target + 1
            other_keys[target], other_order[target] = keys[i], order[i]
        keys, other_keys = other_keys, keys
        order, other_order = other_order, order
    for i in range(1, count):
        g = order[i]
        j = i
        while j > 0 and depths[order[j - 1]] > depths[g]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = g
    return order


@compiled()
def _tile_range(middle, half, tile, limit):
    """First and one past the last tile that pixel centres within middle +- half fall into."""
    low = max(math.ceil(middle - half - 0.5), 0)
    high = min(math.floor(middle + half - 0.5), limit - 1)
    if high < low:
        return 0, 0
    return int(low) // tile, int(high) // tile + 1


@compiled()
def _tile_rectangles(order, means2d, conics, opacities, width, height):
    rectangles = np.zeros((order.shape[0], 4), np.int32)
    for rank in range(order.shape[0]):
        g = order[rank]
        a, b, c = conics[g, 0], conics[g, 1], conics[g, 2]
        determinant = a * c - b * b
        reach = 2 * math.log(max(np.float64(opacities[g]) / ALPHA_MIN, 1.0)) + 1e-4
        half_x, half_y = math.sqrt(reach * c / determinant), math.sqrt(reach * a / determinant)
        left, right = _tile_range(means2d[g, 0], half_x, TILE_WIDTH, width)
        top, bottom = _tile_range(means2d[g, 1], half_y, TILE_HEIGHT, height)
        rectangles[rank, 0], rectangles[rank, 1] = left, right
        rectangles[rank, 2], rectangles[rank, 3] = top, bottom
    return rectangles


@compiled()
def build_tile_lists(means2d, conics, opacities, depths, radii, width, height):
    """Order ellipses by depth and list them per tile."""
    order = sort_by_depth(depths, radii)
    rectangles = _tile_rectangles(order, means2d, conics, opacities, width, height)
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    rows = (height + TILE_HEIGHT - 1) // TILE_HEIGHT
    first_slot = np.zeros(order.shape[0] + 1, np.int64)
    tile_start = np.zeros(columns * rows + 1, np.int64)
    for rank in range(order.shape[0]):
        left, right, top, bottom = rectangles[rank]
        first_slot[rank + 1] = first_slot[rank] + (right - left) * (bottom - top)
        for row in range(top, bottom):
            for column in range(left, right):
                tile_start[row * columns + column + 1] += 1
    for tile in range(columns * rows):
        tile_start[tile + 1] += tile_start[tile]
    cursor = tile_start[:-1].copy()
    entry_rank = np.empty(tile_start[-1], np.int64)
    entry_slot = np.empty(tile_start[-1], np.int64)
    for rank in range(order.shape[0]):
        left, right, top, bottom = rectangles[rank]
        slot = first_slot[rank]
        for row in range(top, bottom):
            for column in range(left, right):
                entry = cursor[row * columns + column]
                cursor[row * columns + column] = entry + 1
                entry_rank[entry], entry_slot[entry] = rank, slot
                slot += 1
    return TileLists(order, first_slot, tile_start, entry_rank, entry_slot, order)
