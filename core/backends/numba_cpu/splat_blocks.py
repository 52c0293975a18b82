"""Contains the inner step of compositing as vector code: one ellipse over eight pixels of a row.

Everything that decides whether a pixel is drawn (alpha, transmittance) is float64, so that CPU and
reference decide alike; colours are summed in float32.

Along a row, power = d^T C d / 2 = c0 + dx (c1 + dx c2), and alpha = opacity exp(-power). The
exponential is (polynomial(-power / 8))^8, with error below 1e-10.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..splat_view import ALPHA_MAX, ALPHA_MIN, MIN_TRANSMITTANCE
from .simd import FLOAT, WIDTH, Vectors

MAX_POWER = 6.5  # alpha is below 1/255 from 5.54 on
_POLYNOMIAL = np.polynomial.chebyshev.Chebyshev.interpolate(
    np.exp, 8, domain=[-MAX_POWER / 8, 0.0]
).convert(kind=np.polynomial.Polynomial)
EXP_COEFFICIENTS = [float(value) for value in _POLYNOMIAL.coef]


class _Alphas(NamedTuple):
    dx: Any
    raw: Any  # before the cap
    alpha: Any
    rest: Any  # 1 - alpha
    before: Any  # transmittance in front of the ellipse
    added: Any  # lanes in which the ellipse is drawn
    after: Any


def _alphas(v: Vectors, through: Any, at: Any, row: Any) -> _Alphas:
    """Draw decisions of eight pixels; updates their transmittance (negative once stopped)."""
    builder = v.builder
    dx0, c0, c1, c2, opacity = (v.spread(value) for value in row)
    dx = builder.fadd(dx0, v.ramp())
    power = v.multiply_add(dx, v.multiply_add(dx, c2, c1), c0)
    power = v.minimum(power, v.constant(MAX_POWER))
    decay = v.polynomial(builder.fmul(power, v.constant(-0.125)), EXP_COEFFICIENTS)
    for _ in range(3):
        decay = builder.fmul(decay, decay)
    raw = builder.fmul(opacity, decay)
    alpha = v.minimum(raw, v.constant(ALPHA_MAX))
    before = v.load(through, at)
    rest = builder.fsub(v.constant(1.0), alpha)
    after = builder.fmul(before, rest)
    seen = builder.fcmp_ordered(">=", alpha, v.constant(ALPHA_MIN))
    enough = builder.fcmp_ordered(">", after, v.constant(MIN_TRANSMITTANCE))
    added = builder.and_(seen, enough)
    stopped = builder.select(seen, v.negative_magnitude(before), before)
    v.store(builder.select(added, after, stopped), through, at)
    return _Alphas(dx, raw, alpha, rest, before, added, after)


def _data(context: Any, builder: Any, signature: Any, arguments: Any, count: int) -> list[Any]:
    """Data pointers of the first ``count`` arguments, which are contiguous arrays."""
    return [
        context.make_array(kind)(context, builder, value).data
        for kind, value in zip(signature.args[:count], arguments[:count], strict=True)
    ]


def _draw_block(
    typingctx, through, sums, median, colors,
    at, plane, color_at, channels, rank, dx0, c0, c1, c2, opacity,
):  # fmt: skip
    """Composite one ellipse over the pixels at .. at + 7 of a tile.

    Args:
        typingctx: numba's.
        through: float64, transmittance per pixel; negative once the pixel is stopped.
        sums: float32 [channel * plane], weighted features.
        median: int32, rank at which the transmittance fell below one half.
        colors: float32 [rank * channel], features.
        at: first pixel.
        plane: pixels per channel.
        color_at: first feature of this ellipse.
        channels: number of features.
        rank: of this ellipse.
        dx0: from the centre of the ellipse to that of the first pixel.
        c0: constant term of the power along the row.
        c1: linear term.
        c2: quadratic term.
        opacity: of the ellipse.
    """
    signature = types.void(
        through, sums, median, colors, types.intp, types.intp, types.intp, types.intp, types.int32,
        *[types.float64] * 5,
    )  # fmt: skip

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        v = Vectors(builder)
        through, sums, median, colors = _data(context, builder, sig, arguments, 4)
        at, plane, color_at, channels, rank = arguments[4:9]
        a = _alphas(v, through, at, arguments[9:])
        half = v.constant(0.5)
        crossing = builder.and_(
            a.added,
            builder.and_(
                builder.fcmp_ordered(">=", a.before, half),
                builder.fcmp_ordered("<", a.after, half),
            ),
        )
        v.store(builder.select(crossing, v.spread(rank), v.load(median, at)), median, at)
        share = builder.select(a.added, builder.fmul(a.alpha, a.before), v.constant(0.0))
        weight = v.to_float(share)
        with cgutils.for_range(builder, channels) as loop:
            color = v.scalar(colors, builder.add(color_at, loop.index))
            target = builder.add(at, builder.mul(plane, loop.index))
            v.store(v.multiply_add(weight, color, v.load(sums, target)), sums, target)
        return context.get_dummy_value()

    return signature, generate


draw_block: Any = intrinsic(_draw_block)


def _redraw_block(
    typingctx, through, rest, gradients, colors, totals,
    at, plane, color_at, channels, dy, dx0, c0, c1, c2, opacity,
):  # fmt: skip
    """Gradients of one ellipse over the pixels at .. at + 7 of a tile, front to back again.

    Args:
        typingctx: numba's.
        through: as in `_draw_block`.
        rest: float64, what lies behind, weighted by the image gradient; lowered by this share.
        gradients: float32 [channel * plane], image gradient.
        colors: as in `_draw_block`.
        totals: float64 [(6 + channel) * 8], sums per lane: the gradient to the power times
            1, dx, dx^2, dy, dx dy, dy^2; then the gradients to the features.
        at: first pixel.
        plane: pixels per channel.
        color_at: first feature of this ellipse.
        channels: number of features.
        dy: from the centre of the ellipse to the row.
        dx0: from the centre of the ellipse to that of the first pixel.
        c0: constant term of the power along the row.
        c1: linear term.
        c2: quadratic term.
        opacity: of the ellipse.
    """
    signature = types.void(
        through, rest, gradients, colors, totals, types.intp, types.intp, types.intp, types.intp,
        *[types.float64] * 6,
    )  # fmt: skip

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        v = Vectors(builder)
        through, rest, gradients, colors, totals = _data(context, builder, sig, arguments, 5)
        at, plane, color_at, channels, dy = arguments[5:10]
        a = _alphas(v, through, at, arguments[10:])
        index = channels.type

        # q: this ellipse's features weighted by the image gradient.
        blend = cgutils.alloca_once_value(builder, v.constant(0.0, FLOAT))
        with cgutils.for_range(builder, channels) as loop:
            color = v.scalar(colors, builder.add(color_at, loop.index))
            slopes = v.load(gradients, builder.add(at, builder.mul(plane, loop.index)))
            builder.store(v.multiply_add(slopes, color, builder.load(blend)), blend)
        q = v.to_double(builder.load(blend))

        share = builder.select(a.added, builder.fmul(a.alpha, a.before), v.constant(0.0))
        behind = builder.fsub(v.load(rest, at), builder.fmul(share, q))
        v.store(behind, rest, at)
        g_alpha = builder.fsub(builder.fmul(a.before, q), builder.fdiv(behind, a.rest))
        uncapped = builder.fcmp_ordered("<=", a.raw, v.constant(ALPHA_MAX))
        g_power = builder.select(
            builder.and_(a.added, uncapped),
            builder.fneg(builder.fmul(a.alpha, g_alpha)),
            v.constant(0.0),
        )
        g_dx, dys = builder.fmul(g_power, a.dx), v.spread(dy)
        g_dy = builder.fmul(g_power, dys)
        moments = (
            g_power, g_dx, builder.fmul(g_dx, a.dx),
            g_dy, builder.fmul(g_dy, a.dx), builder.fmul(g_dy, dys),
        )  # fmt: skip
        for number, moment in enumerate(moments):
            place = index(number * WIDTH)
            v.store(builder.fadd(v.load(totals, place), moment), totals, place)
        with cgutils.for_range(builder, channels) as loop:
            slopes = v.load(gradients, builder.add(at, builder.mul(plane, loop.index)))
            place = builder.mul(builder.add(loop.index, index(6)), index(WIDTH))
            total = v.multiply_add(share, v.to_double(slopes), v.load(totals, place))
            v.store(total, totals, place)
        return context.get_dummy_value()

    return signature, generate


redraw_block: Any = intrinsic(_redraw_block)
