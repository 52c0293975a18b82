"""Contains mushrooms, trees, cacti, flowers and snowmen. Faces and blossoms look to +Z."""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Category
from .curves import arc, round_corners, smooth_curve, smooth_profile
from .primitives import Solid, ball, cylinder, ellipsoid, lathe, torus, tube


def build_mushroom(kit: Assembly) -> None:
    """A domed or pointed cap with raised spots on a swelling stem."""
    radius = kit.uniform(0.72, 0.88) * kit.stretch**-0.35
    cap = kit.uniform(0.5, 0.66)
    stem = kit.uniform(0.62, 0.78) * kit.stretch
    foot = kit.uniform(0.27, 0.34)
    profile = smooth_profile(
        [(foot, 0.0), (foot * 1.08, 0.15), (foot * 0.8, 0.7), (foot * 0.78, 1.1)]
    )
    kit.add("stem", lathe([(0.0, 0.0), *(profile * [1.0, stem]), (0.0, 1.1 * stem)]), "accent")
    power = kit.uniform(0.75, 1.1)
    angles = np.linspace(0, np.pi / 2, 12)
    dome = np.stack([radius * np.cos(angles), cap * np.sin(angles) ** power], axis=1)
    dome[-1, 0] = 0.0
    lip = [(0.0, 0.03), (radius * 0.7, -0.01), (radius * 0.93, -0.09), (radius * 1.0, -0.06)]
    kit.add("cap", lathe([*lip, *dome], segments=40).moved(y=stem))
    slope = kit.uniform(0.25, 0.5)
    for row, (height_deg, count) in enumerate(((24, 7), (56, 4))):
        for i in range(count):
            azimuth = 2 * np.pi * (i + slope * (row + 1)) / count
            angle = np.radians(height_deg + kit.uniform(-4, 4))
            r = radius * np.cos(angle)
            spot = ball(kit.uniform(0.1, 0.14), segments=12).scaled(y=0.75)
            y = stem + cap * np.sin(angle) ** power
            kit.add("spots", spot.moved(r * np.sin(azimuth), y, r * np.cos(azimuth)), "cream")
    kit.add("spots", ball(0.14, segments=12).scaled(y=0.5).moved(y=stem + cap), "cream")


def _bumpy(solid: Solid, kit: Assembly, amount: float) -> Solid:
    waves = kit.rng.uniform(3.0, 5.0, size=(3, 3)) * kit.pick([-1, 1])
    phases = kit.rng.uniform(0, 2 * np.pi, size=3)

    def swell(vertices: np.ndarray) -> np.ndarray:
        bumps = np.sin(vertices @ waves + phases).prod(axis=1, keepdims=True)
        return vertices * (1 + amount * bumps)

    return solid.deformed(swell)


def build_tree(kit: Assembly) -> None:
    """A broad-leaved tree of round clumps, or a fir of stacked cones."""
    trunk = kit.uniform(0.55, 0.7) * kit.stretch
    radius = kit.uniform(0.13, 0.17)
    shape = [(0, 0), (radius * 1.6, 0), (radius, 0.25), (radius * 0.9, 1.4), (0, 1.4)]
    profile = round_corners(shape, 0.1, closed=False) * [1.0, trunk]
    kit.add("trunk", lathe(profile, segments=16), "accent")
    style = kit.pick(["fir", "clumps", "crown"])
    if style == "fir":
        width, level = kit.uniform(0.6, 0.7), trunk * 0.75
        for i in range(3):
            r, height = width * (1 - 0.24 * i), kit.uniform(0.58, 0.64) * kit.stretch**0.5
            cone = round_corners(
                [(0, 0.06), (r, 0), (0.05, height), (0, height)], 0.08, closed=False
            )
            kit.add(
                "leaves",
                lathe(cone, segments=28).moved(y=level),
                ("primary", "primary", "primary_light")[i],
            )
            level += 0.56 * height
        return
    if style == "crown":
        size = kit.uniform(0.58, 0.68)
        crown = _bumpy(
            ellipsoid(size, size * kit.uniform(1.1, 1.3) * kit.stretch**0.5, size), kit, 0.1
        )
        kit.add("leaves", crown.moved(y=trunk + size * 0.85))
        return
    size = kit.uniform(0.42, 0.48)
    for i in range(4):
        azimuth = 2 * np.pi * (i / 4 + 0.125) + kit.uniform(-0.3, 0.3)
        x, z = 0.34 * np.sin(azimuth), 0.34 * np.cos(azimuth)
        clump = ball(size * kit.uniform(0.85, 1.0)).moved(x, trunk + 0.22 + kit.uniform(0, 0.12), z)
        kit.add("leaves", clump)
    kit.add("leaves", ball(size * 1.05).moved(y=trunk + 0.62 * kit.stretch**0.5), "primary_light")


def _ribbed(path: np.ndarray, radius: float, ribs: int) -> Solid:
    # A tube with lobes along its length; its centre line lies in the plane z = 0.
    sides = 4 * ribs
    solid = tube(path, radius, sides=sides)
    center = path[np.linalg.norm(solid.vertices[:, None] - path[None], axis=-1).argmin(axis=1)]
    offset = solid.vertices - center
    spread = np.arctan2(offset[:, 2], np.hypot(offset[:, 0], 1e-9) * np.sign(offset[:, 0] + 1e-9))
    factor = 1 + 0.09 * np.cos(ribs * spread)[:, None] * [1.0, 0.0, 1.0]
    return Solid(center + offset * factor, solid.faces)


def build_cactus(kit: Assembly) -> None:
    """A ribbed column with two bent arms in a pot, flowers on the tips."""
    height = kit.uniform(1.1, 1.25) * kit.stretch
    pot = round_corners([(0, 0), (0.32, 0), (0.44, 0.42), (0, 0.42)], 0.05, closed=False)
    kit.add("pot", lathe(pot), "accent")
    kit.add("pot", cylinder(0.5, 0.5, 0.14, bevel=0.04).moved(y=0.36), "accent")
    column = np.stack([np.zeros(12), np.linspace(0.35, 0.4 + height, 12), np.zeros(12)], axis=1)
    radius = kit.uniform(0.24, 0.29)
    kit.add("body", _ribbed(column, radius, 8))
    flower = lathe(
        np.array([(0, -0.05), (0.07, 0.0), (0.13, 0.1), (0.06, 0.09), (0, 0.12)]), segments=12
    )
    kit.add("flowers", flower.scaled(1.3, 1.3, 1.3).moved(y=0.4 + height + radius), "rose")
    for side in (-1, 1):
        level = 0.4 + height * kit.uniform(0.32, 0.58)
        reach, rise = kit.uniform(0.46, 0.54), kit.uniform(0.3, 0.46) * kit.stretch
        corners = [(0, level), (reach, level), (reach, level + rise)]
        bend = round_corners(corners, 0.22, steps=6, closed=False)
        path = np.concatenate([bend * [side, 1], np.zeros((len(bend), 1))], axis=1)
        kit.add("arms", tube(path, radius * kit.uniform(0.58, 0.68), sides=14))
        if kit.chance(0.5):
            kit.add("flowers", flower.moved(side * reach, level + rise + 0.17), "rose")


def build_flower(kit: Assembly) -> None:
    """A blossom that looks to +Z on a thick stem with two leaves."""
    height = kit.uniform(0.95, 1.1) * kit.stretch
    petals, length = kit.pick([5, 6, 7, 8]), kit.uniform(0.3, 0.36)
    core = kit.uniform(0.2, 0.25)
    stem = smooth_curve([(0.0, 0.0, -0.06), (0.03, height / 2, -0.1), (0.0, height, -0.04)])
    kit.add("leaves", tube(stem, 0.075, sides=12), "accent")
    for side in (-1, 1):
        leaf = ellipsoid(0.3, 0.13, 0.1, segments=16).turned("z", side * kit.uniform(28, 42))
        level = kit.uniform(0.25, 0.4) * height
        kit.add("leaves", leaf.moved(side * 0.26, level, -0.08), "accent")
    width = min(0.26, 2.2 * (core + length / 2) * np.sin(np.pi / petals) / 2 + 0.04)
    for i in range(petals):
        petal = ellipsoid(width, length, 0.13, segments=16).moved(y=core + length * 0.62)
        petal = petal.turned("x", 10).turned("z", 360 * i / petals)
        kit.add("petals", petal.turned("x", -12).moved(y=height))
    center = ellipsoid(core, core, 0.17, segments=20).turned("x", -12)
    kit.add("center", center.moved(y=height, z=0.07), kit.pick(["glow", "gold", "glow"]))
    mound = lathe(np.concatenate([[(0.0, -0.06)], arc((0, -0.05), (0.34, 0.16), 0, 90, 7)]))
    kit.add("soil", mound, "wood")


def build_snowman(kit: Assembly) -> None:
    """Two or three balls with hat, scarf, stick arms and a carrot nose to +Z."""
    base = kit.uniform(0.5, 0.56)
    sizes = [base, base * kit.uniform(0.7, 0.76), base * kit.uniform(0.5, 0.56)]
    if kit.chance(0.3):
        sizes = [base, base * kit.uniform(0.62, 0.7)]
    squash = kit.stretch**0.6
    level = 0.0
    centers: list[float] = []
    for size in sizes:
        level += size * squash * (1.0 if not centers else 0.72)
        centers.append(level)
        kit.add("body", ellipsoid(size, size * squash, size).moved(y=level))
        level += size * squash * 0.84
    head, head_y = sizes[-1], centers[-1]
    top = head_y + head * squash * 0.72
    brim = cylinder(head * 1.25, head * 1.2, 0.09, bevel=0.03)
    kit.add("hat", brim.moved(y=top), "accent")
    tall = kit.uniform(0.3, 0.42)
    kit.add(
        "hat",
        cylinder(head * 0.82, head * kit.uniform(0.72, 0.9), tall, bevel=0.04).moved(y=top),
        "accent",
    )
    scarf = torus(head * 0.78, 0.1).scaled(y=0.9)
    kit.add("scarf", scarf.moved(y=head_y - head * squash * 0.74), "accent")
    nose = cylinder(0.075, 0.015, 0.34, bevel=0.01, segments=14).turned("x", 90)
    kit.add("nose", nose.moved(y=head_y, z=head * 0.9), "beak")
    for side in (-1, 1):
        x, z = head * 0.36, head * 0.88
        kit.add("eyes", ball(0.055, segments=12).moved(side * x, head_y + head * 0.26, z), "dark")
        chest = centers[-2] if len(sizes) == 3 else centers[0] + 0.15
        wide = sizes[-2] * 0.85
        arm = [(side * wide, chest + 0.04, 0.0), (side * (wide + 0.42), chest + 0.3, 0.0)]
        kit.add("arms", tube(arm, 0.055, sides=8), "wood")
    for step in (0.35, 0.0, -0.35):
        body, body_y = sizes[-2], centers[-2]
        z = body * float(np.sqrt(1 - step**2)) + 0.01
        kit.add(
            "buttons", ball(0.055, segments=12).moved(y=body_y + step * body * squash, z=z), "dark"
        )


NATURE: dict[str, Category] = {
    "mushroom": Category(build_mushroom, "stem", "cream"),
    "tree": Category(build_tree, "trunk", "wood", roughness=0.9),
    "cactus": Category(build_cactus, "pot", "clay", roughness=0.8),
    "flower": Category(build_flower, "leaves", "leaf", roughness=0.8),
    "snowman": Category(build_snowman, "hat", "dark", roughness=0.9),
}
