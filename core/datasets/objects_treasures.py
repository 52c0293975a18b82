"""Contains swords, crowns and gifts: blades and points upward, flat sides to +Z."""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Category
from .primitives import ball, box, cylinder, extrude, loft, torus


def build_sword(kit: Assembly) -> None:
    """A broad double-edged blade upward with guard, grip and pommel; flat sides face +Z and -Z."""
    length = kit.uniform(1.15, 1.3) * kit.stretch
    width, thickness = kit.uniform(0.19, 0.24) * kit.stretch**-0.4, 0.09
    stations = [(0.0, 0.92), (0.3, 1.0), (0.72, kit.uniform(0.86, 1.12)), (0.86, 0.78), (1.0, 0.04)]
    rings = []
    for t, scale in stations:
        w, d = width * scale, thickness * (0.35 + 0.65 * scale)
        section = [(w, 0.25), (0.62 * w, 0.75), (0, 1), (-0.62 * w, 0.75), (-w, 0.25)]
        both = section + [(x, -z) for x, z in reversed(section)]
        rings.append([(x, t * length, z * d) for x, z in both])
    kit.add("blade", loft(np.array(rings)))
    fuller = box(width * 0.42, length * 0.62, 2 * thickness + 0.03, bevel=0.03)
    kit.add("fuller", fuller.moved(y=length * 0.33), "primary_light")
    reach = kit.uniform(0.36, 0.46)
    droop = kit.uniform(-0.1, 0.12)
    x = np.linspace(-reach, reach, 13)
    top = np.stack([x, 0.09 + droop * (x / reach) ** 2], axis=1)
    bottom = np.stack([x[::-1], -0.09 + droop * (x[::-1] / reach) ** 2], axis=1)
    guard = extrude(np.concatenate([bottom[::-1], top[::-1]]), 0.28, bevel=0.05)
    kit.add("hilt", guard, "accent")
    kit.mirrored("hilt", ball(0.135, segments=16).moved(reach, droop), "accent")
    grip = kit.uniform(0.36, 0.44)
    kit.add("grip", cylinder(0.105, 0.09, grip, segments=18).moved(y=-grip - 0.04), "wood")
    for t in (0.3, 0.6):
        kit.add("grip", torus(0.095, 0.035, segments=18, sides=8).moved(y=-0.06 - t * grip), "gold")
    kit.add("hilt", ball(0.17, segments=20).moved(y=-grip - 0.1), "accent")
    kit.add("jewel", ball(0.085, segments=14).scaled(z=1.9), "glow")


def build_crown(kit: Assembly) -> None:
    """A ring with five to eight points, balls on the tips and jewels round the band."""
    points = kit.pick([5, 6, 8])
    radius, wall = kit.uniform(0.72, 0.8), 0.1
    band = kit.uniform(0.34, 0.4) * kit.stretch
    peak = kit.uniform(0.4, 0.5) * kit.stretch
    count = 12 * points
    angles = np.arange(count) * (2 * np.pi / count)
    phase = (angles * points / (2 * np.pi)) % 1.0
    tip = band + peak * np.abs(1 - 2 * phase) ** kit.uniform(0.9, 1.3)
    flare = 1 + 0.16 * (tip / (band + peak))
    rings = []
    for r, y in (
        (radius, 0 * tip),
        (radius * flare, tip),
        ((radius - wall) * flare, tip),
        (radius - wall, 0 * tip),
    ):
        rings.append(np.stack([r * np.sin(angles), y, r * np.cos(angles)], axis=1))
    kit.add("ring", loft(np.stack(rings), loop=True))
    for level in (0.04, band * 0.86):
        hoop = torus(radius * (1 + 0.16 * level / (band + peak)) + 0.0, 0.065, segments=40)
        kit.add("hoops", hoop.moved(y=level), "primary_dark")
    cap = ball(radius * 0.86, segments=28).scaled(y=0.8 * band / radius)
    kit.add("lining", cap.moved(y=0.02).deformed(_flatten_below), "rose")
    top = band + peak
    for i in range(points):
        angle = 2 * np.pi * i / points
        r = radius * 1.16 - wall / 2
        kit.add(
            "jewels",
            ball(0.13, segments=16).moved(r * np.sin(angle), top + 0.04, r * np.cos(angle)),
            "accent",
        )
        turn = 360 * i / points
        jewel = ball(0.13, segments=14).scaled(x=0.9, y=1.1, z=0.6)
        kit.add("jewels", jewel.moved(y=band * 0.46, z=radius + 0.05).turned("y", turn), "accent")


def _flatten_below(vertices: np.ndarray) -> np.ndarray:
    vertices[:, 1] = np.where(
        vertices[:, 1] < 0.05, 0.05 + 0.1 * (vertices[:, 1] - 0.05), vertices[:, 1]
    )
    return vertices


def build_gift(kit: Assembly) -> None:
    """A wrapped box with a lid, a ribbon on all sides and a bow on top."""
    width, depth = kit.uniform(1.0, 1.15), kit.uniform(0.95, 1.1)
    height = kit.uniform(0.75, 0.9) * kit.stretch
    kit.add("box", box(width, height, depth, bevel=0.04).moved(y=height / 2))
    lid = box(width + 0.1, 0.24, depth + 0.1, bevel=0.04)
    kit.add("lid", lid.moved(y=height + 0.02), "primary_light")
    ribbon = kit.uniform(0.17, 0.22)
    for x, z in ((ribbon, depth), (width, ribbon)):
        band = box(
            x + (0.04 if x == width else 0), height, z + (0.04 if z == depth else 0), bevel=0.015
        )
        kit.add("ribbon", band.moved(y=height / 2 + 0.01), "accent")
        over = box(
            x + (0.14 if x == width else 0), 0.28, z + (0.14 if z == depth else 0), bevel=0.015
        )
        kit.add("ribbon", over.moved(y=height + 0.02), "accent")
    size = kit.uniform(0.24, 0.29)
    top = height + 0.12
    for side in (-1, 1):
        loop = torus(size * 0.75, 0.085, segments=24).turned("x", 90).scaled(x=1.25)
        kit.add(
            "bow", loop.turned("z", 28 * side).moved(x=side * size, y=top + size * 0.85), "accent"
        )
    kit.add("bow", ball(0.14).moved(y=top + 0.1), "accent")


TREASURES: dict[str, Category] = {
    "sword": Category(build_sword, "hilt", "gold", metallic=0.6, roughness=0.35),
    "crown": Category(build_crown, "jewels", "glass", metallic=0.7, roughness=0.3),
    "gift": Category(build_gift, "ribbon", "cream"),
}
