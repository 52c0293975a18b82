"""Contains houses, castles and lighthouses. Doors face +Z."""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Category
from .curves import arc, circle, round_corners
from .primitives import ball, box, cylinder, extrude, lathe, torus


def _arched_door(width: float, height: float) -> np.ndarray:
    top = arc((0.0, height - width / 2), (width / 2, width / 2), 0, 180, 11)
    return np.concatenate([[(-width / 2, 0.0), (width / 2, 0.0)], top])


def build_house(kit: Assembly) -> None:
    """Walls with door and windows under a gabled or hipped roof with a chimney."""
    width, depth = kit.uniform(1.15, 1.35), kit.uniform(0.95, 1.15)
    height = kit.uniform(0.92, 1.04) * kit.stretch
    rise, over = kit.uniform(0.36, 0.46), 0.1
    kit.add("walls", box(width, height, depth, bevel=0.03).moved(y=height / 2))
    kit.add("base", box(width + 0.1, 0.1, depth + 0.1, bevel=0.03).moved(y=0.04), "gray")
    if kit.chance(0.65):
        _add_gables(kit, width / 2, depth, height, rise, over)
    else:
        roof = box(width + 2 * over, rise, depth + 2 * over, bevel=0.03).tapered(0.4, 0.12)
        kit.add("roof", roof.moved(y=height + rise / 2 - 0.02), "accent")
    chimney = box(0.2, 0.5, 0.2, bevel=0.03).moved(y=height + rise * 0.8, z=-depth * 0.12)
    kit.add("chimney", chimney.moved(x=kit.pick([-1, 1]) * width * 0.26), "gray")
    door = round_corners([(-0.15, 0.05), (0.15, 0.05), (0.15, 0.52), (-0.15, 0.52)], 0.04)
    if kit.chance(0.4):
        door = _arched_door(0.32, 0.56)
    kit.add("door", extrude(door, 0.1).moved(z=depth / 2), "wood")
    kit.add("knob", ball(0.035, segments=10).moved(0.09, 0.28, depth / 2 + 0.06), "gold")
    frame, pane = box(0.26, 0.26, 0.1, bevel=0.02), box(0.17, 0.17, 0.13, bevel=0.01)
    level = height * 0.56
    for first in (-1, 1):
        for second in (-1, 1):
            front = (first * 0.36 * width, level, second * depth / 2)
            side = (first * width / 2, level, second * 0.24 * depth)
            for solid, name, role in ((frame, "frames", "cream"), (pane, "windows", "dark")):
                kit.add(name, solid.moved(*front), role)
                kit.add(name, solid.turned("y", 90).moved(*side), role)


def _add_gables(
    kit: Assembly, half: float, depth: float, height: float, rise: float, over: float
) -> None:
    # Triangular walls to +-Z under two thick slopes that overhang by ``over``.
    eaves, ridge = height - 0.1, height + rise
    gable = [(0.01 - half, height - 0.05), (half - 0.01, height - 0.05), (0, ridge - 0.06)]
    kit.add("walls", extrude(gable, depth, bevel=0.02))
    reach, thick = half + over, 0.18
    under = [(-reach, eaves), (0, ridge), (reach, eaves)]
    above = [(reach, eaves + thick), (0, ridge + thick), (-reach, eaves + thick)]
    kit.add("roof", extrude(under + above, depth + 2 * over, bevel=0.03), "accent")


def _add_battlement(kit: Assembly, x: float, z: float, radius: float, level: float) -> None:
    rim = cylinder(radius * 1.04, radius * 1.18, 0.15, bevel=0.03, segments=24)
    kit.add("walls", rim.moved(x, level - 0.1, z))
    for px, pz in circle(radius * 1.0, 6, start_deg=30):
        merlon = box(0.13, 0.17, 0.13, bevel=0.02).moved(x + px, level + 0.1, z + pz)
        kit.add("walls", merlon)


def build_castle(kit: Assembly) -> None:
    """Four corner towers with pointed roofs round a keep; a gate in the front wall."""
    half = kit.uniform(0.6, 0.68)
    wall = kit.uniform(0.5, 0.58) * kit.stretch
    tower = wall + kit.uniform(0.26, 0.36) * kit.stretch
    radius = kit.uniform(0.2, 0.24)
    kit.add("walls", box(2 * half, wall, 2 * half, bevel=0.03).moved(y=wall / 2))
    for offset in np.linspace(-half + 0.28, half - 0.28, 4):
        for x, z in (
            (offset, half - 0.05),
            (offset, -half + 0.05),
            (half - 0.05, offset),
            (-half + 0.05, offset),
        ):
            kit.add("walls", box(0.15, 0.18, 0.15, bevel=0.02).moved(x, wall + 0.06, z))
    pointed = kit.chance(0.75)
    for x in (-half, half):
        for z in (-half, half):
            kit.add(
                "walls",
                cylinder(radius * 1.08, radius, tower, bevel=0.02, segments=24).moved(x, 0, z),
            )
            if pointed:
                cone = cylinder(radius * 1.3, 0.0, kit.uniform(0.38, 0.44), bevel=0.03, segments=24)
                kit.add("roofs", cone.moved(x, tower - 0.02, z), "accent")
            else:
                _add_battlement(kit, x, z, radius, tower)
    keep = tower + kit.uniform(0.16, 0.26) * kit.stretch
    kit.add("walls", cylinder(half * 0.55, half * 0.5, keep, bevel=0.02, segments=28))
    kit.add(
        "roofs",
        cylinder(half * 0.68, 0.0, 0.58, bevel=0.03, segments=28).moved(y=keep - 0.02),
        "accent",
    )
    kit.add("flag", cylinder(0.035, 0.03, 0.3, bevel=0.01, segments=8).moved(y=keep + 0.5), "wood")
    banner = extrude([(0.0, 0.0), (0.3, 0.08), (0.0, 0.17)], 0.06).moved(0.0, keep + 0.62)
    kit.add("flag", banner, "accent")
    kit.add(
        "gate", extrude(_arched_door(0.4, 0.42 * kit.stretch + 0.04), 0.12).moved(z=half), "wood"
    )
    for x, z in ((-half, half), (half, half), (half, -half), (-half, -half)):
        slit = box(0.09, 0.2, 0.09, bevel=0.02)
        for dx, dz in ((np.sign(x) * radius, 0.0), (0.0, np.sign(z) * radius)):
            kit.add("windows", slit.moved(x + dx, tower * 0.78, z + dz), "dark")


def build_lighthouse(kit: Assembly) -> None:
    """A tapering tower with two broad bands, a gallery, a glowing lantern and a cap."""
    height = kit.uniform(1.2, 1.35) * kit.stretch
    low, high = kit.uniform(0.38, 0.44), kit.uniform(0.23, 0.27)
    rock = lathe(
        np.concatenate([[(0.0, -0.06)], arc((0, -0.05), (0.72, 0.2), 0, 90, 8)]), segments=14
    )
    kit.add("rock", rock, "gray")
    bands = 5
    for i in range(bands):
        a, b = i / bands, (i + 1) / bands
        ra, rb = low + (high - low) * a, low + (high - low) * b
        piece = cylinder(ra, rb, height / bands, bevel=0.006, segments=32).moved(
            y=0.06 + a * height
        )
        kit.add("tower" if i % 2 == 0 else "bands", piece, "primary" if i % 2 == 0 else "accent")
    top = 0.06 + height
    kit.add(
        "gallery", cylinder(high * 1.2, high * 1.55, 0.12, bevel=0.03).moved(y=top - 0.03), "dark"
    )
    kit.add("gallery", torus(high * 1.42, 0.03).moved(y=top + 0.2), "dark")
    for x, z in circle(high * 1.42, 8):
        kit.add(
            "gallery",
            cylinder(0.022, 0.022, 0.2, bevel=0.004, segments=8).moved(x, top + 0.02, z),
            "dark",
        )
    kit.add("lantern", cylinder(high * 0.82, high * 0.82, 0.36, bevel=0.02).moved(y=top), "glow")
    kit.add(
        "cap", cylinder(high * 1.12, 0.0, kit.uniform(0.3, 0.38), bevel=0.03).moved(y=top + 0.33)
    )
    kit.add("cap", ball(0.06, segments=14).moved(y=top + 0.7))
    kit.add("door", extrude(_arched_door(0.24, 0.36), 0.14).moved(y=0.1, z=low * 0.94), "wood")
    for t, angle in ((0.5, 0.0), (0.86, 0.0), (0.5, 180.0)):
        radius = low + (high - low) * t
        pane = box(0.13, 0.19, 0.1, bevel=0.03).moved(y=0.06 + t * height, z=radius - 0.01)
        kit.add("windows", pane.turned("y", angle), "dark")


BUILDINGS: dict[str, Category] = {
    "house": Category(build_house, "roof", "clay", roughness=0.9),
    "castle": Category(build_castle, "roofs", "primary_dark", roughness=0.9),
    "lighthouse": Category(build_lighthouse, "bands", "white"),
}
