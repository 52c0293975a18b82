"""Contains mugs, vases, teapots and cakes. Handles and spouts lie in the plane z = 0."""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Category
from .curves import arc, circle, round_corners, smooth_curve, smooth_profile
from .primitives import Solid, ball, cylinder, ellipsoid, lathe, loft, torus, tube


def _handle(points: np.ndarray, radius: float) -> Solid:
    path = np.concatenate([points, np.zeros((len(points), 1))], axis=1)
    return tube(path, radius, sides=12)


def build_mug(kit: Assembly) -> None:
    """A hollow cup with one handle at +X; straight, tapered or barrel-shaped."""
    height = kit.uniform(1.0, 1.15) * kit.stretch
    foot, rim = kit.uniform(0.42, 0.52), kit.uniform(0.5, 0.56)
    belly = max(foot, rim) * kit.pick([1.0, 1.0, 1.12])
    wall = 0.075
    outside = smooth_profile([(foot, 0.0), ((belly + foot) / 2, 0.3), (belly, 0.6), (rim, 1.0)])
    outside[:, 1] *= height
    inside = outside[outside[:, 1] > 0.12 * height] - [wall, 0.0]
    profile = np.concatenate(
        [
            [(0.0, 0.0), (foot - 0.08, 0.0), (foot - 0.02, 0.025)],
            outside[outside[:, 1] > 0.05 * height],
            [(rim - wall / 2, height + 0.03)],
            inside[::-1],
            [(0.0, 0.1 * height)],
        ]
    )
    kit.add("body", lathe(profile, segments=36))
    if kit.chance(0.35):
        low = kit.uniform(0.2, 0.5) * height
        radius = np.interp([low, low + 0.16], outside[:, 1], outside[:, 0]) + 0.015
        kit.add(
            "stripe", cylinder(radius[0], radius[1], 0.16, bevel=0.01).moved(y=low), "primary_light"
        )
    reach, thickness = kit.uniform(0.36, 0.46), kit.uniform(0.085, 0.11)
    radii = (reach, kit.uniform(0.27, 0.34) * height)
    x = float(np.interp(0.5 * height, outside[:, 1], outside[:, 0])) - 0.06
    if kit.chance(0.3):
        top, bottom = 0.52 * height + radii[1], 0.52 * height - radii[1]
        corners = [(x, top), (x + reach, top), (x + reach * 0.8, bottom), (x, bottom)]
        path = round_corners(corners, 0.22, steps=6, closed=False)
    else:
        path = arc((x, 0.52 * height), radii, 90, -90, 18)
    kit.add("handle", _handle(path, thickness), "accent")


VASE_PROFILES = (
    [(0.3, 0.0), (0.55, 0.3), (0.48, 0.62), (0.22, 0.8), (0.36, 1.0)],
    [(0.26, 0.0), (0.34, 0.25), (0.56, 0.62), (0.26, 0.84), (0.34, 1.0)],
    [(0.36, 0.0), (0.6, 0.25), (0.32, 0.55), (0.19, 0.8), (0.32, 1.0)],
    [(0.28, 0.0), (0.52, 0.42), (0.36, 0.74), (0.3, 0.82), (0.46, 1.0)],
)


def build_vase(kit: Assembly) -> None:
    """A curved body, a neck of its own colour, and two rings; no handles."""
    points = np.array(kit.pick(VASE_PROFILES)) * [kit.uniform(0.92, 1.1), 1.0]
    points[1:-1, 0] *= kit.rng.uniform(0.92, 1.08, size=3)
    height = kit.uniform(1.35, 1.55) * kit.stretch
    curve = smooth_profile(points, samples=9)
    curve[:, 1] *= height
    split = points[3, 1] * height * kit.uniform(0.92, 1.0)
    lower, upper = curve[curve[:, 1] < split], curve[curve[:, 1] >= split]
    border = (float(np.interp(split, curve[:, 1], curve[:, 0])), split)
    foot = [(0.0, 0.0), (curve[0, 0] - 0.05, 0.0)]
    kit.add(
        "body", lathe(np.concatenate([foot, lower[lower[:, 1] > 0.02], [border, (0.0, split)]]))
    )
    wall = np.minimum(0.08, 0.4 * upper[:, :1]) * [1.0, 0.0]
    lip = [(upper[-1, 0] - 0.04, height + 0.04)]
    inside = (upper - wall)[::-1]
    neck = np.concatenate([[(0.0, split), border], upper[1:], lip, inside, [(0.0, split + 0.02)]])
    kit.add("neck", lathe(neck), "accent")
    for t in kit.pick([(0.14, 0.62), (0.3,), (0.2, 0.45)]):
        radius = float(np.interp(t * height, curve[:, 1], curve[:, 0]))
        kit.add("rings", torus(radius, 0.05).moved(y=t * height), "primary_light")


def build_teapot(kit: Assembly) -> None:
    """A round body with spout at +X, handle at -X and a lid with a knob."""
    width = kit.uniform(0.62, 0.7)
    height = kit.uniform(0.95, 1.06) * kit.stretch**0.8
    belly = kit.uniform(0.36, 0.48)
    points = [(0.36, 0.0), (0.56, 0.12), (1.0 * width, belly), (0.5, 0.85), (0.34, 1.0)]
    body = smooth_profile(points, samples=7) * [1.0, height]
    kit.add("body", lathe(np.concatenate([[(0.0, 0.0)], body, [(0.0, height)]]), segments=40))
    foot = cylinder(0.42, 0.38, 0.08, bevel=0.03, segments=36)
    kit.add("foot", foot.moved(y=-0.05), "primary_dark")
    lid = lathe(np.concatenate([[(0.0, -0.02)], arc((0, 0), (0.37, 0.2), 0, 90, 9)]), segments=36)
    kit.add("lid", lid.moved(y=height - 0.01), "accent")
    kit.add("lid", ball(0.1, segments=18).moved(y=height + 0.25), "accent")
    spout = smooth_curve(
        [
            (width * 0.75, 0.3 * height, 0.0),
            (width + 0.16, 0.44 * height, 0.0),
            (width + 0.26, 0.74 * height, 0.0),
            (width + 0.48, 0.96 * height, 0.0),
        ],
        samples=6,
    )
    kit.add("spout", tube(spout, np.linspace(0.19, 0.085, len(spout)), sides=14))
    loop = arc((-width * 0.82, 0.55 * height), (kit.uniform(0.4, 0.5), 0.33 * height), 100, 262, 18)
    kit.add("handle", _handle(loop, 0.085), "accent")


def _icing(radius: float, thickness: float, drips: int, depth: float, phase: float) -> Solid:
    # A disc whose rim hangs down in rounded drips.
    angles = np.arange(6 * drips) * (2 * np.pi / (6 * drips))
    unit = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    hang = (
        depth
        * (0.5 + 0.5 * np.cos(drips * angles + phase))
        * (1 + 0.35 * np.sin(2.3 * phase + 3 * angles))
    )
    rings = []
    for scale, level, follow in ((0.9, 0, 1), (1.0, 0, 1), (1.0, 0.6, 0), (0.9, 1, 0)):
        y = level * thickness - follow * hang
        rings.append(
            np.stack([scale * radius * unit[:, 0], y, scale * radius * unit[:, 1]], axis=1)
        )
    return loft(np.stack(rings))


def build_cake(kit: Assembly) -> None:
    """One to three round tiers with dripping icing, and candles or a cherry."""
    tiers = kit.pick([1, 2, 2, 3])
    radius = kit.uniform(0.8, 0.9)
    height = {1: 0.62, 2: 0.44, 3: 0.38}[tiers] * kit.uniform(0.95, 1.1) * kit.stretch
    shrink = kit.uniform(0.66, 0.74)
    plate = cylinder(radius * 1.12, radius * 1.2, 0.08, bevel=0.03, segments=40)
    kit.add("plate", plate.moved(y=-0.06), "white")
    base = 0.0
    drips = kit.pick([7, 8, 9, 10])
    for tier in range(tiers):
        r = radius * shrink**tier
        kit.add("tiers", cylinder(r, r, height, bevel=0.03, segments=44).moved(y=base))
        icing = _icing(r * 1.04, 0.07, max(5, drips - 2 * tier), 0.26 * height, kit.uniform(0, 6))
        kit.add("icing", icing.moved(y=base + height - 0.02), "accent")
        base += height
    if kit.chance(0.6):
        count = kit.pick([1, 3, 4, 5])
        ring = circle(0.0 if count == 1 else 0.55 * r, count, start_deg=90)
        for x, z in ring:
            candle = cylinder(0.06, 0.06, 0.26, bevel=0.015, segments=12)
            kit.add("candles", candle.moved(x=x, y=base + 0.02, z=z), "white")
            flame = ellipsoid(0.055, 0.1, 0.055, segments=12)
            kit.add("flames", flame.moved(x=x, y=base + 0.37, z=z), "beak")
    else:
        kit.add("cherry", ball(0.15).moved(y=base + 0.14), "rose")
        stem = smooth_curve([(0, base + 0.26, 0), (0.03, base + 0.36, 0), (0.12, base + 0.44, 0)])
        kit.add("stem", tube(stem, 0.03, sides=8), "leaf")


TABLEWARE: dict[str, Category] = {
    "mug": Category(build_mug, "handle", "primary_dark", roughness=0.35),
    "vase": Category(build_vase, "neck", "primary_dark", roughness=0.35),
    "teapot": Category(build_teapot, "lid", "primary_dark", roughness=0.3),
    "cake": Category(build_cake, "icing", "cream"),
}
