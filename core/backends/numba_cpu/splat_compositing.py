"""Contains the CPU kernels that composite ellipses front to back, forward and backward.

Tiles of 64 x 16 pixels stay in the first-level cache. Within a tile, each ellipse is drawn row by
row over the exact span in which alpha >= 1/255. The backward pass runs front to back again: with
q = sum_c feature_c gradient_c and T the transmittance, the gradient to alpha is
T q - rest / (1 - alpha), where ``rest`` is one running number per pixel (all that lies behind).

Reference: Kerbl et al. 2023, "3D Gaussian Splatting", Eq. 2-3.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from ..splat_view import ALPHA_MAX, ALPHA_MIN, MIN_TRANSMITTANCE
from .runtime import compiled
from .splat_binning import TILE_HEIGHT, TILE_WIDTH

_FAST = {"contract", "nsz", "reassoc", "arcp"}
_LIVE_CHECK = 64  # entries between two looks at whether any pixel of the tile is still open
_MIN = np.float32(ALPHA_MIN)
_MAX = np.float32(ALPHA_MAX)
_STOP = np.float32(MIN_TRANSMITTANCE)
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_EIGHTH = np.float32(-0.125)
# exp(x) on [-0.72, 0], degree 6 (Chebyshev fit, relative error below 1e-8).
_E = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp, 6, domain=[-0.72, 0.0])
_E1, _E2, _E3, _E4, _E5, _E6 = (
    np.float32(v) for v in _E.convert(kind=np.polynomial.Polynomial).coef[1:]
)


@compiled(fastmath=_FAST, inline="always")
def _decay(power):
    """exp(-power) for 0 <= power <= 5.7, as (polynomial(-power / 8))^8: no branch, no call."""
    x = power * _EIGHTH
    e = _ONE + x * (_E1 + x * (_E2 + x * (_E3 + x * (_E4 + x * (_E5 + x * _E6)))))
    e = e * e
    e = e * e
    return e * e


@compiled()
def pack(order, means2d, conics, opacities, features):
    """Shapes [rank, (x, y, conic a b c, opacity, reach)] and float32 features in depth order."""
    count = order.shape[0]
    shapes = np.empty((count, 7))
    colors = np.empty((count, features.shape[1]), np.float32)
    for rank in range(count):
        g = order[rank]
        shapes[rank, 0], shapes[rank, 1] = means2d[g, 0], means2d[g, 1]
        for i in range(3):
            shapes[rank, 2 + i] = conics[g, i]
        shapes[rank, 5] = opacities[g]
        shapes[rank, 6] = 2 * math.log(max(np.float64(opacities[g]) / ALPHA_MIN, 1.0)) + 1e-5
        for channel in range(features.shape[1]):
            colors[rank, channel] = features[g, channel]
    return shapes, colors


@compiled()
def _row_span(shape, dy, left, columns):
    """Pixels [start, stop) of one tile row that the ellipse alpha >= 1/255 can reach."""
    a, b, c = shape[2], shape[3], shape[4]
    squared = (b * b - a * c) * dy * dy + a * shape[6]
    if squared <= 0:
        return 0, 0
    root = math.sqrt(squared)
    start = math.ceil(shape[0] + (-b * dy - root) / a - left - 0.5)
    stop = math.floor(shape[0] + (-b * dy + root) / a - left - 0.5) + 1
    return max(int(start), 0), min(int(stop), columns)


@compiled()
def _row_range(shape, top, rows):
    a, b, c = shape[2], shape[3], shape[4]
    half = math.sqrt(shape[6] * a / (a * c - b * b))
    start = math.ceil(shape[1] - half - top - 0.5)
    stop = math.floor(shape[1] + half - top - 0.5) + 1
    return max(int(start), 0), min(int(stop), rows)


@compiled()
def _any_open(transmittance):
    for y in range(transmittance.shape[0]):
        for x in range(transmittance.shape[1]):
            if transmittance[y, x] > 0:
                return True
    return False


@compiled(fastmath=_FAST)
def _draw_row(through, weight, median, rank, offset, c0, c1, c2, opacity):
    """Alphas of one row: updates the transmittance (negative once stopped), fills the weights."""
    for x in range(through.shape[0]):
        dx = np.float32(x) - offset
        alpha = min(opacity * _decay(c0 + dx * (c1 + dx * c2)), _MAX)
        before = through[x]
        after = before * (_ONE - alpha)
        seen = alpha >= _MIN
        added = seen & (after > _STOP)  # no short circuit: branches would stop vectorisation
        weight[x] = alpha * before if added else np.float32(0)
        through[x] = after if added else (-abs(before) if seen else before)
        median[x] = rank if added & (before >= _HALF) & (after < _HALF) else median[x]


@compiled(fastmath=_FAST)
def _add_row(target, weight, value):
    for x in range(weight.shape[0]):
        target[x] += weight[x] * value


@compiled()
def _draw_tile(lists, tile, shapes, colors, left, top, through, sums, median, weight):
    rows, columns = through.shape
    start, stop = lists.tile_start[tile], lists.tile_start[tile + 1]
    for entry in range(start, stop):
        if (entry - start) % _LIVE_CHECK == _LIVE_CHECK - 1 and not _any_open(through):
            break
        rank = np.int32(lists.entry_rank[entry])
        shape = shapes[rank]
        first, last = _row_range(shape, top, rows)
        offset = np.float32(shape[0] - left - 0.5)
        opacity, c2 = np.float32(shape[5]), np.float32(0.5 * shape[2])
        for y in range(first, last):
            dy = top + y + 0.5 - shape[1]
            x0, x1 = _row_span(shape, dy, left, columns)
            if x1 <= x0:
                continue
            c0, c1 = np.float32(0.5 * shape[4] * dy * dy), np.float32(shape[3] * dy)
            span = weight[: x1 - x0]
            _draw_row(
                through[y, x0:x1],
                span,
                median[y, x0:x1],
                rank,
                offset - np.float32(x0),
                c0,
                c1,
                c2,
                opacity,
            )
            for channel in range(colors.shape[1]):
                _add_row(sums[channel, y, x0:x1], span, colors[rank, channel])


@compiled(parallel=True)
def composite_forward(lists, shapes, colors, width, height, num_lanes):
    """Composite every tile.

    Returns:
        Sums of the features [height, width, channel], final transmittance (negative where the
        pixel was stopped) and the rank at which it fell below one half (-1: nowhere).
    """
    channels = colors.shape[1]
    image = np.empty((height, width, channels), np.float32)
    final = np.empty((height, width), np.float32)
    median = np.full((height, width), -1, np.int32)
    across = (width + TILE_WIDTH - 1) // TILE_WIDTH
    for lane in prange(num_lanes):
        sums = np.empty((channels, TILE_HEIGHT, TILE_WIDTH), np.float32)
        weight = np.empty(TILE_WIDTH, np.float32)
        for turn in range(lane, lists.tile_order.shape[0], num_lanes):
            tile = lists.tile_order[turn]
            left, top = (tile % across) * TILE_WIDTH, (tile // across) * TILE_HEIGHT
            right, bottom = min(left + TILE_WIDTH, width), min(top + TILE_HEIGHT, height)
            through = final[top:bottom, left:right]
            through[:] = 1
            sums[:] = 0
            _draw_tile(
                lists,
                tile,
                shapes,
                colors,
                left,
                top,
                through,
                sums,
                median[top:bottom, left:right],
                weight,
            )
            for y in range(top, bottom):
                for x in range(left, right):
                    for channel in range(channels):
                        image[y, x, channel] = sums[channel, y - top, x - left]
    return image, final, median


@compiled(fastmath=_FAST)
def _redraw_row(through, rest, blend, weight, slope, offset, c0, c1, c2, opacity):
    """Draw one row again; ``slope`` becomes the gradient to the exponent's power.

    Args:
        through: transmittance, as in `_draw_row`.
        rest: what lies behind, weighted by the image gradient; lowered by this ellipse's share.
        blend: q, this ellipse's features weighted by the image gradient.
        weight: filled with alpha T.
        slope: filled with the gradient to power = d^T C d / 2.
        offset: centre of the ellipse from the first pixel.
        c0: constant term of the power along the row.
        c1: linear term.
        c2: quadratic term.
        opacity: of the ellipse.
    """
    for x in range(through.shape[0]):
        dx = np.float32(x) - offset
        raw = opacity * _decay(c0 + dx * (c1 + dx * c2))
        alpha = min(raw, _MAX)
        before = through[x]
        after = before * (_ONE - alpha)
        seen = alpha >= _MIN
        added = seen & (after > _STOP)
        share = alpha * before if added else np.float32(0)
        behind = rest[x] - share * blend[x]
        gradient = before * blend[x] - behind / (_ONE - alpha)
        weight[x] = share
        rest[x] = behind
        through[x] = after if added else (-abs(before) if seen else before)
        slope[x] = -alpha * gradient if added & (raw <= _MAX) else np.float32(0)


@compiled(fastmath=_FAST)
def _row_moments(slope, offset):
    s0, s1, s2 = np.float32(0), np.float32(0), np.float32(0)
    for x in range(slope.shape[0]):
        dx = np.float32(x) - offset
        s0 += slope[x]
        s1 += slope[x] * dx
        s2 += slope[x] * dx * dx
    return s0, s1, s2


@compiled(fastmath=_FAST)
def _row_product(first, second):
    total = np.float32(0)
    for x in range(first.shape[0]):
        total += first[x] * second[x]
    return total


@compiled(fastmath=_FAST)
def _scale_row(target, values, factor):
    for x in range(target.shape[0]):
        target[x] = values[x] * factor


@compiled()
def _redraw_tile(lists, tile, shapes, colors, left, top, through, rest, gradients, rows4, slots):
    rows, columns = through.shape
    channels = colors.shape[1]
    start, stop = lists.tile_start[tile], lists.tile_start[tile + 1]
    for entry in range(start, stop):
        if (entry - start) % _LIVE_CHECK == _LIVE_CHECK - 1 and not _any_open(through):
            break
        rank = lists.entry_rank[entry]
        shape, color = shapes[rank], colors[rank]
        slot = slots[lists.entry_slot[entry]]
        first, last = _row_range(shape, top, rows)
        offset = np.float32(shape[0] - left - 0.5)
        opacity, c2 = np.float32(shape[5]), np.float32(0.5 * shape[2])
        for y in range(first, last):
            dy = top + y + 0.5 - shape[1]
            x0, x1 = _row_span(shape, dy, left, columns)
            if x1 <= x0:
                continue
            blend, weight, slope = rows4[0, : x1 - x0], rows4[1, : x1 - x0], rows4[2, : x1 - x0]
            _scale_row(blend, gradients[0, y, x0:x1], color[0])
            for channel in range(1, channels):
                _add_row(blend, gradients[channel, y, x0:x1], color[channel])
            c0, c1 = np.float32(0.5 * shape[4] * dy * dy), np.float32(shape[3] * dy)
            local = offset - np.float32(x0)
            _redraw_row(
                through[y, x0:x1], rest[y, x0:x1], blend, weight, slope, local, c0, c1, c2, opacity
            )
            s0, s1, s2 = _row_moments(slope, local)
            slot[0] += s0
            slot[1] += s1
            slot[2] += s2
            slot[3] += np.float32(dy) * s0
            slot[4] += np.float32(dy) * s1
            slot[5] += np.float32(dy * dy) * s0
            for channel in range(channels):
                slot[6 + channel] += _row_product(weight, gradients[channel, y, x0:x1])


@compiled(parallel=True)
def composite_backward(lists, shapes, colors, image, final, g_image, g_alpha, num_lanes):
    """Moments of the power's gradient and gradients to the features, one row per slot."""
    height, width, channels = image.shape
    slots = np.zeros((lists.first_slot[-1], 6 + channels), np.float32)
    across = (width + TILE_WIDTH - 1) // TILE_WIDTH
    for lane in prange(num_lanes):
        gradients = np.empty((channels, TILE_HEIGHT, TILE_WIDTH), np.float32)
        tile_through = np.empty((TILE_HEIGHT, TILE_WIDTH), np.float32)
        tile_rest = np.empty((TILE_HEIGHT, TILE_WIDTH), np.float32)
        rows4 = np.empty((3, TILE_WIDTH), np.float32)
        for turn in range(lane, lists.tile_order.shape[0], num_lanes):
            tile = lists.tile_order[turn]
            left, top = (tile % across) * TILE_WIDTH, (tile // across) * TILE_HEIGHT
            right, bottom = min(left + TILE_WIDTH, width), min(top + TILE_HEIGHT, height)
            for y in range(top, bottom):
                for x in range(left, right):
                    total = -g_alpha[y, x] * abs(final[y, x])
                    for channel in range(channels):
                        gradients[channel, y - top, x - left] = g_image[y, x, channel]
                        total += g_image[y, x, channel] * image[y, x, channel]
                    tile_rest[y - top, x - left] = total
            through = tile_through[: bottom - top, : right - left]
            through[:] = 1
            _redraw_tile(
                lists, tile, shapes, colors, left, top, through, tile_rest, gradients, rows4, slots
            )
    return slots


@compiled(parallel=True)
def gather_gradients(lists, shapes, slots, count):
    """Sum each Gaussian's slots in order and turn moments into gradients.

    Returns:
        Gradients to means2d, conics, opacities and features, float64.
    """
    channels = slots.shape[1] - 6
    g_means2d = np.zeros((count, 2))
    g_conics = np.zeros((count, 3))
    g_opacities = np.zeros(count)
    g_features = np.zeros((count, channels))
    for rank in prange(lists.order.shape[0]):
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
            for channel in range(channels):
                g_features[g, channel] += slots[slot, 6 + channel]
        g_means2d[g, 0] = -(a * s1 + b * sy)
        g_means2d[g, 1] = -(b * s1 + c * sy)
        g_conics[g, 0] = 0.5 * s2
        g_conics[g, 1] = sxy
        g_conics[g, 2] = 0.5 * syy
        g_opacities[g] = -s0 / shapes[rank, 5]
    return g_means2d, g_conics, g_opacities, g_features
