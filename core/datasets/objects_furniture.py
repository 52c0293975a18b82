"""Contains chairs, tables, lamps and sofas. They stand on y = 0 and face +Z."""

from __future__ import annotations

from .assembly import Assembly, Category
from .curves import round_corners, smooth_profile
from .primitives import Solid, box, cylinder, extrude, lathe, tube


def _add_four_legs(
    kit: Assembly, half_x: float, half_z: float, height: float, thickness: float, round_legs: bool
) -> None:
    for x in (-half_x, half_x):
        for z in (-half_z, half_z):
            if round_legs:
                leg = cylinder(0.42 * thickness, 0.58 * thickness, height, segments=16)
            else:
                leg = box(thickness, height, thickness).moved(y=height / 2)
            kit.add("legs", leg.moved(x=x, z=z), "accent")


def build_chair(kit: Assembly) -> None:
    """Seat and back in the body hue on four legs; the back is a board, slats or rungs."""
    width, depth = kit.uniform(0.85, 1.0), kit.uniform(0.82, 0.95)
    leg_height = kit.uniform(0.62, 0.72) * kit.stretch
    seat, thickness = kit.uniform(0.16, 0.2), kit.uniform(0.13, 0.16)
    _add_four_legs(
        kit, width / 2 - 0.1, depth / 2 - 0.1, leg_height + 0.05, thickness, kit.chance(0.5)
    )
    kit.add("seat", box(width, seat, depth, bevel=0.06).moved(y=leg_height + seat / 2))
    back_height = kit.uniform(0.85, 1.0) * kit.stretch
    for solid in _chair_back(kit, width, back_height):
        kit.add("back", solid.moved(y=leg_height + seat * 0.5, z=-depth / 2 + 0.08))


def _chair_back(kit: Assembly, width: float, height: float) -> list[Solid]:
    # Stands on y = 0 in the plane z = 0.
    style = kit.pick(["board", "board", "slats", "rungs"])
    if style == "board":
        top = width / 2 * kit.uniform(0.84, 1.04)
        corners = [(-width / 2, 0), (width / 2, 0), (top, height), (-top, height)]
        outline = round_corners(corners, kit.uniform(0.1, 0.3), steps=5)
        return [extrude(outline, 0.15).turned("x", -4)]
    post = box(0.15, height, 0.15).moved(y=height / 2)
    solids = [post.moved(x=x) for x in (0.08 - width / 2, width / 2 - 0.08)]
    solids.append(box(width, 0.22, 0.15, bevel=0.05).moved(y=height - 0.09))
    if style == "slats":
        slat = box(0.14, height, 0.11).moved(y=height / 2)
        return solids + [slat.moved(x=x) for x in (-width / 6, width / 6)]
    rung = box(width - 0.1, 0.15, 0.11)
    return solids + [rung.moved(y=t * height) for t in (0.28, 0.6)]


def build_table(kit: Assembly) -> None:
    """A thick top with apron: rectangular on four legs or round on a column."""
    height = kit.uniform(0.72, 0.85) * kit.stretch
    top = kit.uniform(0.17, 0.21)
    if kit.chance(0.65):
        width, depth = kit.uniform(1.5, 1.8), kit.uniform(0.95, 1.15)
        kit.add("top", box(width, top, depth, bevel=0.06).moved(y=height))
        apron = box(width - 0.2, 0.2, depth - 0.2, bevel=0.03)
        kit.add("apron", apron.moved(y=height - top / 2 - 0.08), "primary_dark")
        _add_four_legs(
            kit,
            width / 2 - 0.17,
            depth / 2 - 0.17,
            height,
            kit.uniform(0.15, 0.19),
            kit.chance(0.5),
        )
        return
    radius = kit.uniform(0.75, 0.9)
    kit.add("top", cylinder(radius, radius, top, bevel=0.07, segments=40).moved(y=height))
    ring = cylinder(radius * 0.82, radius * 0.88, 0.17, bevel=0.03, segments=40)
    kit.add("apron", ring.moved(y=height - 0.14), "primary_dark")
    column = [(0, 0), (0.46, 0), (0.44, 0.1), (0.16, 0.2), (0.12, 0.5), (0.2, 1.0), (0, 1.0)]
    profile = round_corners(column, 0.06, closed=False)
    kit.add("legs", lathe(profile).scaled(y=height), "accent")


def build_lamp(kit: Assembly) -> None:
    """A shade in the body hue over a foot with a stem or a vase-shaped base."""
    height = kit.uniform(0.85, 1.0) * kit.stretch
    shade_height = kit.uniform(0.55, 0.68)
    bottom = kit.uniform(0.5, 0.6)
    top = bottom * kit.uniform(0.45, 0.75)
    if kit.chance(0.5):
        kit.add("base", cylinder(0.36, 0.3, 0.13, bevel=0.05), "accent")
        kit.add("base", cylinder(0.11, 0.1, height + 0.1, segments=18), "accent")
        if kit.chance(0.5):
            knob = cylinder(0.18, 0.18, 0.17, bevel=0.07, segments=20)
            kit.add("base", knob.moved(y=height * 0.5), "accent")
    else:
        belly = kit.uniform(0.26, 0.34)
        points = [(0, 0), (0.26, 0), (belly * 0.8, 0.1), (belly, 0.38), (0.14, 0.75), (0.11, 1.0)]
        profile = smooth_profile(points[1:], samples=5)
        profile[:, 1] *= height + 0.08
        kit.add("base", lathe([(0.0, 0.0), *profile]), "accent")
    wall = 0.05
    shade = round_corners(
        [
            (0, shade_height),
            (top, shade_height),
            (bottom, 0),
            (bottom - wall, 0),
            (top - wall, shade_height - wall),
            (0, shade_height - wall),
        ],
        0.04,
        closed=False,
    )
    kit.add("shade", lathe(shade, segments=36).moved(y=height))
    band = [
        (bottom - 0.03, 0.0),
        (bottom + 0.025, 0.0),
        (bottom + 0.01, 0.07),
        (bottom - 0.05, 0.07),
    ]
    trim = lathe([(0, 0.0), *band[1:3], (0, 0.07)], segments=36) if kit.chance(0.4) else None
    if trim is not None:
        kit.add("trim", trim.moved(y=height), "primary_light")
    finial = cylinder(0.06, 0.045, 0.1, bevel=0.03, segments=14)
    kit.add("finial", finial.moved(y=height + shade_height - 0.02), "accent")
    bulb = tube([(0, height - 0.02, 0), (0, height + 0.2, 0)], 0.11)
    kit.add("bulb", bulb, "glow")


def build_sofa(kit: Assembly) -> None:
    """A padded seat with arms and back; two cushions lie on it."""
    width = kit.uniform(1.6, 1.9) * kit.stretch**-0.4
    depth, arm = kit.uniform(0.8, 0.9), kit.uniform(0.2, 0.27)
    back_height = kit.uniform(0.72, 0.85) * kit.stretch
    arm_height = back_height * kit.uniform(0.62, 0.72)
    kit.add("seat", box(width, 0.34, depth, bevel=0.09, steps=3).moved(y=0.3))
    back = box(width, back_height, 0.26, bevel=0.12, steps=3)
    kit.add("back", back.moved(y=0.14 + back_height / 2, z=-depth / 2 + 0.1))
    for x in (-1, 1):
        side = box(arm, arm_height, depth, bevel=min(0.1, arm / 2), steps=3)
        kit.add("arms", side.moved(x=x * (width - arm) / 2, y=0.14 + arm_height / 2, z=0.03))
    count = kit.pick([2, 2, 3])
    inner = width - 2 * arm
    for i in range(count):
        middle = (i + 0.5) / count * inner - inner / 2
        pad = box(inner / count - 0.03, 0.18, depth - 0.2, bevel=0.08, steps=3)
        kit.add("pads", pad.moved(x=middle, y=0.52, z=0.08), "primary_light")
    size = kit.uniform(0.42, 0.5)
    for x in (-1, 1):
        cushion = box(size, min(size, back_height * 0.7), 0.22, bevel=0.1, steps=3)
        pose = cushion.turned("x", -16).turned("z", -6 * x)
        kit.add(
            "cushions", pose.moved(x=x * (inner / 2 - 0.26), y=0.58 + size / 2, z=-0.06), "accent"
        )
    for x in (-1, 1):
        for z in (-1, 1):
            foot = cylinder(0.07, 0.09, 0.18, segments=14)
            kit.add("feet", foot.moved(x=x * (width / 2 - 0.14), z=z * (depth / 2 - 0.14)), "wood")


FURNITURE: dict[str, Category] = {
    "chair": Category(build_chair, "legs", "wood"),
    "table": Category(build_table, "legs", "wood"),
    "lamp": Category(build_lamp, "base", "metal", roughness=0.5),
    "sofa": Category(build_sofa, "cushions", "cream", roughness=0.9),
}
