"""Contains the CPU kernels that composite ellipses front to back, forward and backward.

Tiles stay in the first-level cache. Within a tile, each ellipse is drawn row by row over the span
in which alpha >= 1/255, eight pixels at a time. The backward pass runs front to back again: with
q = sum_c feature_c gradient_c and T the transmittance, the gradient to alpha is
T q - rest / (1 - alpha), where ``rest`` is one running number per pixel (all that lies behind).

Reference: Kerbl et al. 2023, "3D Gaussian Splatting", Eq. 2-3.
"""

from __future__ import annotations

import math

import numpy as np

from ..splat_view import ALPHA_MIN
from .runtime import compiled
from .simd import WIDTH
from .splat_binning import TILE_HEIGHT, TILE_WIDTH
from .splat_blocks import draw_block, redraw_block

STRIDE = TILE_WIDTH + WIDTH  # blocks may run over the end of a row into closed pixels
PLANE = TILE_HEIGHT * STRIDE
NUM_MOMENTS = 6
_LIVE_CHECK = 64  # entries between two looks at whether any pixel of the tile is still open


@compiled()
def pack(order, means2d, conics, opacities, features, shapes, colors):
    """Fill shapes [rank, (x, y, conic a b c, opacity, reach)] and features in depth order."""
    for rank in range(order.shape[0]):
        g = order[rank]
        opacity = np.float64(opacities[g])
        shapes[rank, 0], shapes[rank, 1] = means2d[g, 0], means2d[g, 1]
        for i in range(3):
            shapes[rank, 2 + i] = conics[g, i]
        shapes[rank, 5] = opacity
        shapes[rank, 6] = 2 * math.log(max(opacity / ALPHA_MIN, 1.0)) + 1e-9
        for channel in range(features.shape[1]):
            colors[rank * features.shape[1] + channel] = features[g, channel]


@compiled()
def _row_span(shape, inverse, dy, left):
    """Pixels [start, stop) of one tile row that the ellipse can reach; ``inverse`` is 1 / a."""
    a, b, c = shape[2], shape[3], shape[4]
    squared = (b * b - a * c) * dy * dy + a * shape[6]
    if squared < 0:
        return 0, 0
    half = math.sqrt(squared) * inverse
    middle = shape[0] - b * dy * inverse - left - 0.5
    start, stop = math.ceil(middle - half - 1e-6), math.floor(middle + half + 1e-6) + 1
    return max(int(start), 0), min(int(stop), TILE_WIDTH)


@compiled()
def _row_range(shape, top, rows):
    a, b, c = shape[2], shape[3], shape[4]
    half = math.sqrt(shape[6] * a / (a * c - b * b)) + 1e-6
    start = math.ceil(shape[1] - half - top - 0.5)
    stop = math.floor(shape[1] + half - top - 0.5) + 1
    return max(int(start), 0), min(int(stop), rows)


@compiled()
def _open_tile(through, rows, columns):
    """Transmittance 1 in the pixels of the tile, 0 (closed) in its padding."""
    for y in range(TILE_HEIGHT):
        for x in range(STRIDE):
            through[y * STRIDE + x] = 1.0 if y < rows and x < columns else 0.0


@compiled()
def _any_open(through):
    for i in range(through.shape[0]):
        if through[i] > 0:
            return True
    return False


@compiled()
def _draw_tile(lists, tile, shapes, colors, channels, left, top, rows, through, sums, median):
    start, stop = lists.tile_start[tile], lists.tile_start[tile + 1]
    for entry in range(start, stop):
        if (entry - start) % _LIVE_CHECK == _LIVE_CHECK - 1 and not _any_open(through):
            break
        rank = lists.entry_rank[entry]
        shape = shapes[rank]
        first, last = _row_range(shape, top, rows)
        c2, inverse = 0.5 * shape[2], 1 / shape[2]
        for y in range(first, last):
            dy = top + y + 0.5 - shape[1]
            x0, x1 = _row_span(shape, inverse, dy, left)
            c0, c1 = 0.5 * shape[4] * dy * dy, shape[3] * dy
            for x in range(x0, x1, WIDTH):
                dx0 = left + x + 0.5 - shape[0]
                at = y * STRIDE + x
                draw_block(
                    through, sums, median, colors, at, PLANE, rank * channels, channels,
                    np.int32(rank), dx0, c0, c1, c2, shape[5],
                )  # fmt: skip


@compiled()
def composite_forward(lane, num_lanes, lists, shapes, colors, image, final, median):
    """Composite every num_lanes-th tile.

    Fills the sums of the features [height, width, channel], the final transmittance (negative where
    the pixel was stopped) and the rank at which it fell below one half (-1: nowhere).
    """
    height, width, channels = image.shape
    across = (width + TILE_WIDTH - 1) // TILE_WIDTH
    sums = np.empty(channels * PLANE, np.float32)
    through = np.empty(PLANE, np.float64)
    crossed = np.empty(PLANE, np.int32)
    for turn in range(lane, lists.tile_order.shape[0], num_lanes):
        tile = lists.tile_order[turn]
        left, top = (tile % across) * TILE_WIDTH, (tile // across) * TILE_HEIGHT
        columns, rows = min(TILE_WIDTH, width - left), min(TILE_HEIGHT, height - top)
        _open_tile(through, rows, columns)
        for i in range(channels * PLANE):
            sums[i] = 0
        for i in range(PLANE):
            crossed[i] = -1
        _draw_tile(lists, tile, shapes, colors, channels, left, top, rows, through, sums, crossed)
        for y in range(rows):
            for x in range(columns):
                at = y * STRIDE + x
                final[top + y, left + x] = through[at]
                median[top + y, left + x] = crossed[at]
                for channel in range(channels):
                    image[top + y, left + x, channel] = sums[channel * PLANE + at]


@compiled()
def _redraw_tile(
    lists, tile, shapes, colors, channels, left, top, rows, through, rest, gradients, totals, slots
):  # fmt: skip
    start, stop = lists.tile_start[tile], lists.tile_start[tile + 1]
    for entry in range(start, stop):
        if (entry - start) % _LIVE_CHECK == _LIVE_CHECK - 1 and not _any_open(through):
            break
        rank = lists.entry_rank[entry]
        shape = shapes[rank]
        first, last = _row_range(shape, top, rows)
        c2, inverse = 0.5 * shape[2], 1 / shape[2]
        for i in range(totals.shape[0]):
            totals[i] = 0
        for y in range(first, last):
            dy = top + y + 0.5 - shape[1]
            x0, x1 = _row_span(shape, inverse, dy, left)
            c0, c1 = 0.5 * shape[4] * dy * dy, shape[3] * dy
            for x in range(x0, x1, WIDTH):
                dx0 = left + x + 0.5 - shape[0]
                at = y * STRIDE + x
                redraw_block(
                    through, rest, gradients, colors, totals, at, PLANE, rank * channels, channels,
                    dy, dx0, c0, c1, c2, shape[5],
                )  # fmt: skip
        slot = lists.entry_slot[entry]
        for number in range(NUM_MOMENTS + channels):
            total = 0.0
            for i in range(WIDTH):
                total += totals[number * WIDTH + i]
            slots[slot, number] = total


@compiled()
def _load_gradients(
    image, final, g_image, g_alpha, left, top, rows, columns, gradients, rest
):  # fmt: skip
    """Image gradients of a tile by channel, and all that each pixel shows, weighted by them."""
    channels = image.shape[2]
    for i in range(channels * PLANE):
        gradients[i] = 0
    for y in range(rows):
        for x in range(columns):
            row, column, at = top + y, left + x, y * STRIDE + x
            total = -np.float64(g_alpha[row, column]) * abs(final[row, column])
            for channel in range(channels):
                slope = g_image[row, column, channel]
                gradients[channel * PLANE + at] = slope
                total += np.float64(slope) * image[row, column, channel]
            rest[at] = total


@compiled()
def composite_backward(
    lane, num_lanes, lists, shapes, colors, image, final, g_image, g_alpha, slots
):  # fmt: skip
    """Fill the slots of every num_lanes-th tile: moments, then gradients to the features."""
    height, width, channels = image.shape
    across = (width + TILE_WIDTH - 1) // TILE_WIDTH
    gradients = np.empty(channels * PLANE, np.float32)
    through = np.empty(PLANE, np.float64)
    rest = np.zeros(PLANE, np.float64)
    totals = np.empty((NUM_MOMENTS + channels) * WIDTH, np.float64)
    for turn in range(lane, lists.tile_order.shape[0], num_lanes):
        tile = lists.tile_order[turn]
        left, top = (tile % across) * TILE_WIDTH, (tile // across) * TILE_HEIGHT
        columns, rows = min(TILE_WIDTH, width - left), min(TILE_HEIGHT, height - top)
        _open_tile(through, rows, columns)
        _load_gradients(image, final, g_image, g_alpha, left, top, rows, columns, gradients, rest)
        _redraw_tile(
            lists, tile, shapes, colors, channels, left, top, rows, through, rest, gradients,
            totals, slots,
        )  # fmt: skip


@compiled()
def gather_gradients(
    lane, num_lanes, lists, shapes, slots, g_means2d, g_conics, g_opacities, g_features
):  # fmt: skip
    """Sum each Gaussian's slots in order and turn moments into gradients (outputs start at 0)."""
    for rank in range(lane, lists.order.shape[0], num_lanes):
        g = lists.order[rank]
        a, b, c = shapes[rank, 2], shapes[rank, 3], shapes[rank, 4]
        s0 = s1 = s2 = sy = sxy = syy = 0.0
        for slot in range(lists.first_slot[rank], lists.first_slot[rank + 1]):
            s0 += slots[slot, 0]
            s1 += slots[slot, 1]
            s2 += slots[slot, 2]
            sy += slots[slot, 3]
            sxy += slots[slot, 4]
            syy += slots[slot, 5]
            for channel in range(g_features.shape[1]):
                g_features[g, channel] += slots[slot, NUM_MOMENTS + channel]
        g_means2d[g, 0] = -(a * s1 + b * sy)
        g_means2d[g, 1] = -(b * s1 + c * sy)
        g_conics[g, 0] = 0.5 * s2
        g_conics[g, 1] = sxy
        g_conics[g, 2] = 0.5 * syy
        g_opacities[g] = -s0 / shapes[rank, 5]
