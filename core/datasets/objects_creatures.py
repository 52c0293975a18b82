"""Contains birds, fish, robots, rabbits, turtles and ducks. Noses point to +Z."""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Category
from .curves import round_corners, smooth_curve
from .primitives import Solid, ball, box, cylinder, ellipsoid, extrude, lathe, torus, tube


def _add_eyes(kit: Assembly, x: float, y: float, z: float, size: float) -> None:
    # White balls with dark pupils; seen from the front and from both sides.
    kit.mirrored("eyes", ball(size, segments=14).moved(x, y, z), "white")
    pupil = ball(size * 0.62, segments=12)
    kit.mirrored("pupils", pupil.moved(x + size * 0.34, y, z + size * 0.48), "dark")


def _bent(points: list[tuple[float, float, float]], radius: float | np.ndarray) -> Solid:
    path = smooth_curve(points, samples=5)
    radii = np.interp(
        np.linspace(0, 1, len(path)), np.linspace(0, 1, np.size(radius)), np.ravel(radius)
    )
    return tube(path, radii, sides=12)


def build_bird(kit: Assembly) -> None:
    """A sitting songbird: round body, beak to +Z, wings at the sides, tail and two legs."""
    plump = kit.uniform(0.42, 0.48)
    tall = kit.stretch
    body = ellipsoid(plump, 0.46 * tall, 0.6, segments=28).turned("x", -24)
    kit.add("body", body.moved(y=0.72))
    head = kit.uniform(0.32, 0.36)
    head_y, head_z = 0.8 + 0.46 * tall, 0.34
    kit.add("body", ball(head, segments=24).moved(y=head_y, z=head_z))
    beak = cylinder(0.14, 0.012, kit.uniform(0.3, 0.4), bevel=0.02, segments=16)
    kit.add("beak", beak.turned("x", 96).moved(y=head_y - 0.02, z=head_z + head * 0.86), "beak")
    _add_eyes(kit, head * 0.62, head_y + 0.1, head_z + head * 0.62, 0.095)
    outline = [(0.36, 0.2), (0.2, -0.22), (-0.3, -0.36), (-0.72, -0.2), (-0.25, 0.3), (0.2, 0.36)]
    wing = extrude(round_corners(outline, 0.2, steps=4), 0.2, bevel=0.07).turned("y", -90)
    kit.mirrored(
        "wings", wing.scaled(y=tall**0.5).turned("y", -4).moved(plump - 0.02, 0.78, -0.04), "accent"
    )
    tail = box(0.34, 0.14, 0.62, bevel=0.06).turned("x", 24)
    kit.add("tail", tail.moved(y=0.66 - 0.12 * tall, z=-0.72), "accent")
    belly = ellipsoid(plump * 0.72, 0.34 * tall, 0.3, segments=20)
    kit.add("belly", belly.moved(y=0.68, z=0.34), "cream")
    for x in (-0.17, 0.17):
        kit.add("legs", cylinder(0.055, 0.055, 0.36, segments=10).moved(x, 0.0, 0.06), "beak")
        kit.add("legs", box(0.17, 0.08, 0.3, bevel=0.04).moved(x, 0.02, 0.14), "beak")


def build_fish(kit: Assembly) -> None:
    """A flat body along Z with tail, back fin and side fins, big eyes."""
    height, width = kit.uniform(0.46, 0.56) * kit.stretch, kit.uniform(0.26, 0.32)
    body = ellipsoid(width, height, 0.82, segments=28)

    def slim_tail(vertices: np.ndarray) -> np.ndarray:
        t = np.clip((0.25 - vertices[:, 2]) / 1.07, 0, 1)
        vertices[:, 0] *= 1 - 0.45 * t
        vertices[:, 1] *= 1 - 0.35 * t
        return vertices

    kit.add("body", body.deformed(slim_tail))
    fork = kit.uniform(0.08, 0.2)
    tail = [
        (0.06, 0.0),
        (-0.42, 0.48 * kit.stretch),
        (-0.42 + fork, 0.0),
        (-0.42, -0.48 * kit.stretch),
    ]
    blade = extrude(round_corners(tail, 0.1), 0.15, bevel=0.06).turned("y", -90)
    kit.add("fins", blade.moved(z=-0.72), "accent")
    top = [(0.34, -0.12), (0.12, 0.24), (-0.42, 0.3), (-0.3, -0.12)]
    back = extrude(round_corners(top, 0.12), 0.14, bevel=0.06).turned("y", -90)
    kit.add("fins", back.moved(y=height * 0.92, z=-0.04), "accent")
    low = extrude(round_corners([(0.15, 0.1), (-0.24, 0.1), (-0.3, -0.2)], 0.07), 0.13, bevel=0.05)
    kit.add("fins", low.turned("y", -90).moved(y=-height * 0.9, z=-0.1), "accent")
    side = ellipsoid(0.07, 0.14, 0.24, segments=14).turned("x", 28).turned("y", -38)
    kit.mirrored("fins", side.moved(width * 1.0, -height * 0.22, 0.1), "accent")
    for z, role in kit.pick(
        [[], [(0.12, "primary_light")], [(0.22, "primary_light"), (-0.16, "primary_light")]]
    ):
        t = max(0.0, (0.25 - z) / 1.07)
        profile = np.sqrt(1 - (z / 0.82) ** 2)
        hoop = torus(1.0, 0.1, segments=28).turned("x", 90)
        kit.add(
            "bands",
            hoop.scaled(
                width * profile * (1 - 0.45 * t), height * profile * (1 - 0.35 * t), 0.85
            ).moved(z=z),
            role,
        )
    _add_eyes(kit, width * 0.62, height * 0.26, 0.52, 0.13)
    mouth = torus(0.09, 0.045, segments=18, sides=10).turned("x", 90)
    kit.add("mouth", mouth.moved(y=-0.05, z=0.8), "rose")


def build_robot(kit: Assembly) -> None:
    """A box body and head with a dark face screen, jointed arms and sturdy legs."""
    width, height = kit.uniform(0.72, 0.84), kit.uniform(0.68, 0.78) * kit.stretch
    leg = kit.uniform(0.32, 0.4) * kit.stretch
    base = leg + height / 2
    kit.add("body", box(width, height, 0.52, bevel=0.1).moved(y=base))
    head_x, head_y = kit.uniform(0.6, 0.74), kit.uniform(0.46, 0.54)
    level = leg + height + 0.1 + head_y / 2
    if kit.chance(0.65):
        head = box(head_x, head_y, 0.5, bevel=kit.uniform(0.08, 0.2), steps=3)
    else:
        head = ellipsoid(head_x / 2, head_y / 2 * 1.05, 0.29)
    kit.add("head", head.moved(y=level))
    neck = cylinder(0.15, 0.15, 0.18, segments=18)
    kit.add("neck", neck.moved(y=leg + height - 0.03), "gray")
    face = box(head_x * 0.76, head_y * 0.56, 0.16, bevel=0.07, steps=3)
    kit.add("face", face.moved(y=level, z=0.21), "dark")
    for x in (-1, 1):
        eye = ball(0.075, segments=14).scaled(z=0.6)
        kit.add("eyes", eye.moved(x * head_x * 0.19, level + 0.02, 0.29), "glow")
        ear = cylinder(0.1, 0.1, 0.12, bevel=0.03, segments=18).turned("z", -90)
        kit.add("ears", ear.moved(x * (head_x / 2 + 0.01) - 0.06, level), "gray")
        shoulder = ball(0.16, segments=16).moved(x * (width / 2 + 0.06), base + height * 0.3)
        kit.add("arms", shoulder, "accent")
        low = base - height * 0.3
        arm = [
            (x * (width / 2 + 0.12), base + height * 0.26, 0),
            (x * (width / 2 + 0.2), low, 0.06),
        ]
        kit.add("arms", tube(arm, 0.12, sides=14), "accent")
        kit.add(
            "hands", ball(0.15, segments=16).moved(x * (width / 2 + 0.21), low - 0.08, 0.08), "gray"
        )
        limb = box(0.24, leg + 0.1, 0.26, bevel=0.07).moved(x * width * 0.24, leg / 2 + 0.05)
        kit.add("legs", limb, "accent")
        foot = box(0.31, 0.17, 0.46, bevel=0.07)
        kit.add("feet", foot.moved(x * width * 0.25, 0.07, 0.06), "gray")
    panel = box(width * 0.56, height * 0.42, 0.08, bevel=0.03)
    kit.add("panel", panel.moved(y=base + 0.02, z=0.25), "cream")
    for light_x, role in ((-0.13, "rose"), (0.0, "gold"), (0.13, "leaf")):
        kit.add("lights", ball(0.052, segments=12).moved(light_x, base + 0.04, 0.3), role)
    for rod_x in kit.pick([[0.0], [-0.16, 0.16]]):
        rod = cylinder(0.04, 0.04, 0.22, bevel=0.01, segments=10)
        kit.add("antenna", rod.moved(rod_x, level + head_y / 2 - 0.03), "gray")
        kit.add(
            "antenna", ball(0.085, segments=14).moved(rod_x, level + head_y / 2 + 0.22), "accent"
        )


def build_rabbit(kit: Assembly) -> None:
    """A sitting rabbit with long ears in the accent colour and a round tail."""
    tall = kit.stretch
    kit.add("body", ellipsoid(0.44, 0.5 * tall, 0.5, segments=26).moved(y=0.5 * tall))
    head_y, head_z = 0.94 * tall + 0.16, 0.2
    head = kit.uniform(0.35, 0.39)
    kit.add("head", ellipsoid(head, head * 0.9, head, segments=24).moved(y=head_y, z=head_z))
    length, lean = kit.uniform(0.56, 0.72) * tall**0.5, kit.uniform(4, 20)
    for side in (-1, 1):
        ear = ellipsoid(0.13, length / 2, 0.1, segments=18).moved(y=length / 2)
        pose = ear.turned("x", -8).turned("z", -side * lean)
        kit.add("ears", pose.moved(side * 0.16, head_y + head * 0.68, head_z - 0.05), "accent")
        foot = ellipsoid(0.15, 0.11, 0.28, segments=16)
        kit.add("feet", foot.moved(side * 0.24, 0.09, 0.38), "primary_light")
        haunch = ellipsoid(0.2, 0.28, 0.32, segments=18)
        kit.add("body", haunch.moved(side * 0.3, 0.28, 0.06))
        paw = _bent([(side * 0.22, 0.62 * tall, 0.34), (side * 0.14, 0.42 * tall, 0.5)], 0.1)
        kit.add("paws", paw, "primary_light")
        cheek = ball(0.13, segments=14)
        kit.add("cheeks", cheek.moved(side * 0.09, head_y - 0.12, head_z + head * 0.82), "cream")
    _add_eyes(kit, head * 0.52, head_y + 0.09, head_z + head * 0.74, 0.085)
    kit.add(
        "nose",
        ellipsoid(0.075, 0.055, 0.06, segments=12).moved(y=head_y - 0.03, z=head_z + head * 1.04),
        "rose",
    )
    kit.add("tail", ball(0.19, segments=18).moved(y=0.26, z=-0.52), "cream")


def build_turtle(kit: Assembly) -> None:
    """A domed shell in the body hue with raised plates; head and legs in the accent colour."""
    radius = kit.uniform(0.72, 0.8)
    dome = kit.uniform(0.54, 0.64) * kit.stretch
    angles = np.linspace(0, np.pi / 2, 12)
    arch = np.stack([radius * np.cos(angles), 0.3 + dome * np.sin(angles)], axis=1)
    arch[-1, 0] = 0.0
    shell = lathe([(0.0, 0.22), (radius * 0.8, 0.2), (radius * 0.97, 0.25), *arch], segments=40)
    kit.add("shell", shell.scaled(z=1.14))
    rim = torus(radius * 0.98, 0.075, segments=40).scaled(y=0.8, z=1.14)
    kit.add("rim", rim.moved(y=0.29), "primary_dark")
    plates = [(90.0, 0.0)] + [(44.0, 60.0 * i + 30) for i in range(6)]
    for elevation, azimuth in plates:
        e, a = np.radians(elevation), np.radians(azimuth)
        plate = cylinder(0.2, 0.14, 0.09, bevel=0.03, segments=6).turned(
            "x", 90 - elevation * (1 if dome > 0.4 else 1.15)
        )
        place = (
            radius * np.cos(e) * np.sin(a),
            0.27 + dome * np.sin(e),
            1.14 * radius * np.cos(e) * np.cos(a),
        )
        kit.add("plates", plate.turned("y", azimuth).moved(*place), "primary_dark")
    head_y = kit.uniform(0.42, 0.56)
    neck = _bent(
        [(0, 0.3, 0.6), (0, head_y - 0.08, 0.92), (0, head_y, 1.08)], np.array([0.18, 0.15, 0.16])
    )
    kit.add("head", neck, "accent")
    kit.add(
        "head", ellipsoid(0.23, 0.21, 0.26, segments=20).moved(y=head_y + 0.03, z=1.14), "accent"
    )
    _add_eyes(kit, 0.15, head_y + 0.12, 1.24, 0.075)
    for side in (-1, 1):
        for z in (-0.52, 0.54):
            limb = _bent([(side * 0.42, 0.26, z * 0.9), (side * 0.64, 0.1, z * 1.15)], 0.16)
            kit.add("legs", limb, "accent")
    tail = cylinder(0.1, 0.02, 0.3, bevel=0.02, segments=12).turned("x", -100)
    kit.add("tail", tail.moved(y=0.24, z=-0.8), "accent")


def build_duck(kit: Assembly) -> None:
    """A bath duck: a bowl of a body with upturned tail, round head, broad bill to +Z."""
    body = ellipsoid(0.58, 0.42 * kit.stretch, 0.76, segments=30)

    def lift_tail(vertices: np.ndarray) -> np.ndarray:
        back = np.clip(-vertices[:, 2] - 0.2, 0, None)
        vertices[:, 1] += 1.1 * back**2
        vertices[:, 0] *= 1 - 0.55 * np.clip(back, 0, 0.6)
        return vertices

    kit.add("body", body.deformed(lift_tail).moved(y=0.42 * kit.stretch))
    head = kit.uniform(0.36, 0.42)
    head_y, head_z = 0.72 * kit.stretch + head * 0.72, 0.36
    kit.add("head", ball(head, segments=26).moved(y=head_y, z=head_z))
    bill = ellipsoid(0.2, 0.075, 0.24, segments=18)
    kit.add("bill", bill.moved(y=head_y - 0.02, z=head_z + head + 0.05), "beak")
    lower = ellipsoid(0.16, 0.06, 0.18, segments=16).turned("x", 14)
    kit.add("bill", lower.moved(y=head_y - 0.1, z=head_z + head), "beak")
    _add_eyes(kit, head * 0.6, head_y + 0.12, head_z + head * 0.64, 0.09)
    wing = ellipsoid(0.11, 0.25 * kit.stretch**0.5, 0.44, segments=20).turned("x", 14)
    kit.mirrored("wings", wing.moved(0.52, 0.5 * kit.stretch, -0.1), "accent")


CREATURES: dict[str, Category] = {
    "bird": Category(build_bird, "wings", "primary_dark", roughness=0.8),
    "fish": Category(build_fish, "fins", "primary_dark", roughness=0.4),
    "robot": Category(build_robot, "arms", "gray", metallic=0.3, roughness=0.4),
    "rabbit": Category(build_rabbit, "ears", "primary_dark", roughness=0.9),
    "turtle": Category(build_turtle, "legs", "leaf"),
    "duck": Category(build_duck, "wings", "primary_dark", roughness=0.5),
}
