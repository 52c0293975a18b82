"""Contains cars, rockets, boats, airplanes and trains. Noses point to +Z (the rocket's to +Y)."""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Category
from .curves import arc, round_corners, smooth_profile
from .primitives import Solid, ball, box, cylinder, ellipsoid, extrude, lathe, loft, torus


def _side_view(outline: np.ndarray, width: float, bevel: float) -> Solid:
    # An outline of (z, y) extruded across the vehicle's width.
    return extrude(outline, width, bevel=bevel).turned("y", -90)


def _axle(x: float, y: float, z: float, radius: float, width: float) -> Solid:
    wheel = cylinder(radius, radius, width, bevel=0.2 * radius, segments=26).turned("z", -90)
    return wheel.moved(x - width / 2, y, z)


CAR_CABINS = {
    "sedan": [(-0.62, 0.0), (-0.42, 0.46), (0.16, 0.46), (0.5, 0.0)],
    "van": [(-0.93, 0.0), (-0.9, 0.5), (0.3, 0.5), (0.62, 0.0)],
    "pickup": [(-0.16, 0.0), (-0.12, 0.48), (0.28, 0.48), (0.56, 0.0)],
    "beetle": [(-0.8, 0.0), (-0.5, 0.4), (-0.1, 0.5), (0.25, 0.4), (0.5, 0.0)],
}


def build_car(kit: Assembly) -> None:
    """A body with cabin, dark windows, lamps and four wheels."""
    style = kit.pick(list(CAR_CABINS))
    length, width = kit.uniform(0.95, 1.05), kit.uniform(0.82, 0.92)
    rise = kit.uniform(0.95, 1.05) * kit.stretch
    sill, hood = 0.2, 0.2 + 0.36 * rise
    nose = kit.uniform(0.78, 0.95)
    body = [(-1.0, sill), (1.0, sill), (1.0, hood * nose), (0.55, hood), (-1.0, hood)]
    outline = round_corners(np.array(body) * [length, 1.0], 0.13, steps=4)
    kit.add("body", _side_view(outline, width, 0.07))
    cabin = np.array(CAR_CABINS[style]) * [length, rise] + [0.0, hood - 0.03]
    smooth = round_corners(cabin, 0.16, steps=4)
    kit.add("body", _side_view(smooth, width * 0.9, 0.09))
    low = cabin[:, 1].min()
    middle = np.array([cabin[:, 0].mean(), low + (cabin[:, 1].max() - low) * 0.48])
    glass = (smooth - middle) * [0.76, 0.62] + middle
    kit.add("windows", _side_view(glass, width * 0.94, 0.02), "dark")
    pillar = box(width * 0.97, float(np.ptp(cabin[:, 1])) * 0.8, 0.09, bevel=0.02)
    kit.add("body", pillar.moved(y=middle[1], z=float((cabin[0] + cabin[-1])[0] / 2)))
    front = (cabin[-1] + cabin[-2]) / 2
    rear = (cabin[0] + cabin[1]) / 2
    for (z, y), (dz, dy) in ((front, cabin[-2] - cabin[-1]), (rear, cabin[1] - cabin[0])):
        pane = box(width * 0.68, 0.62 * float(np.hypot(dz, dy)), 0.07, bevel=0.03)
        kit.add("windows", pane.turned("x", np.degrees(np.arctan2(dz, dy))).moved(y=y, z=z), "dark")
    radius = kit.uniform(0.24, 0.28)
    for z in (-0.58 * length, 0.6 * length):
        for x in (-1, 1):
            center = (x * (width / 2 - 0.02), radius - 0.03, z)
            kit.add("wheels", _axle(*center, radius, 0.22), "accent")
            kit.add("hubs", _axle(*center, radius * 0.5, 0.27), "metal")
    for x in (-1, 1):
        lamp = ball(0.1, segments=14).scaled(z=0.5)
        kit.add("lamps", lamp.moved(x * width * 0.33, hood * 0.76, length - 0.01), "glow")
        tail = box(0.17, 0.1, 0.08, bevel=0.03)
        kit.add("tails", tail.moved(x * width * 0.33, hood * 0.78, -length), "rose")
    for z in (-length, length):
        kit.add(
            "bumpers", box(width * 0.96, 0.12, 0.12, bevel=0.05).moved(y=sill + 0.06, z=z), "gray"
        )


def build_rocket(kit: Assembly) -> None:
    """A pointed hull with nose cap and fins in the accent colour, a porthole at +Z."""
    height = kit.uniform(1.5, 1.7) * kit.stretch
    radius = kit.uniform(0.32, 0.38)
    waist = kit.uniform(0.68, 0.85)
    points = [(radius * waist, 0.0), (radius, 0.36), (radius * 0.86, 0.66), (0.0, 1.0)]
    curve = smooth_profile(points, samples=10)
    split = kit.uniform(0.7, 0.76)
    lower, upper = curve[curve[:, 1] < split], curve[curve[:, 1] >= split]
    r = float(np.interp(split, curve[:, 1], curve[:, 0]))
    hull = np.concatenate([[(0.0, 0.0)], lower, [(r, split), (0.0, split)]]) * [1.0, height]
    cap = np.concatenate([[(0.0, split), (r, split)], upper]) * [1.0, height]
    kit.add("hull", lathe(hull, segments=32))
    kit.add("nose", lathe(cap, segments=32), "accent")
    ring = torus(r + 0.0, 0.045).moved(y=split * height)
    kit.add("ring", ring, "metal")
    nozzle = cylinder(radius * 0.72, radius * 0.5, 0.2, bevel=0.03).moved(y=-0.15)
    kit.add("nozzle", nozzle, "gray")
    window = torus(0.15, 0.05, segments=22).turned("x", 90)
    y = 0.54 * height
    z = float(np.interp(0.54, curve[:, 1], curve[:, 0]))
    kit.add("window", window.moved(y=y, z=z - 0.01), "metal")
    kit.add("glass", ball(0.15, segments=16).scaled(z=0.45).moved(y=y, z=z - 0.01), "glass")
    span, swept = kit.uniform(0.36, 0.46), kit.uniform(0.12, 0.3)
    fin = [
        (radius * 0.6, 0.5),
        (radius + span, 0.05),
        (radius + span, -swept),
        (radius * 0.6, 0.06),
    ]
    outline = round_corners(np.array(fin), 0.12, steps=4)
    blade = extrude(outline, 0.12, bevel=0.04)
    for quarter in range(4):
        kit.add("fins", blade.turned("y", 90 * quarter), "accent")


HULL_SECTION = ((1.0, 1.0), (0.95, 0.68), (0.7, 0.2), (0.25, 0.0))
RAIL_SECTION = ((1.0, 1.06), (1.07, 0.96), (1.07, 0.86), (0.9, 0.8))


def _hull(
    half: float, beam: float, depth: float, section: tuple[tuple[float, float], ...]
) -> Solid:
    # Cross-sections (share of beam, share of depth) from the stern to the pointed, rising bow.
    rings = []
    for station in np.linspace(-1, 1, 17):
        bow = max(station, 0.0)
        width = beam * max(1.0 - bow**2.2, 0.03) * (1.0 - 0.22 * max(-station, 0.0) ** 3)
        keel = depth * (0.6 * bow**2 + 0.12 * max(-station, 0.0) ** 3)
        deck = depth + 0.2 * bow**2 + 0.06 * station**2
        side = [(x * width, keel + y * (deck - keel)) for x, y in section]
        side += [(-x, y) for x, y in reversed(side)]
        rings.append([(x, y, station * half) for x, y in side])
    return loft(np.array(rings))


def build_boat(kit: Assembly) -> None:
    """A hull with its bow to +Z, a mast and one or two thick triangular sails."""
    half, depth = kit.uniform(0.92, 1.02), kit.uniform(0.44, 0.52)
    beam = kit.uniform(0.38, 0.45)
    kit.add("hull", _hull(half, beam, depth, HULL_SECTION))
    kit.add("rail", _hull(half * 1.02, beam, depth, RAIL_SECTION), "primary_light")
    mast = kit.uniform(1.2, 1.35) * kit.stretch**0.75
    pole = cylinder(0.075, 0.055, mast + 0.08, segments=12)
    kit.add("mast", pole.moved(y=depth * 0.8, z=0.1), "wood")
    foot, top = depth + 0.22, depth * 0.8 + mast
    lean = kit.uniform(0.7, 0.86) * half
    main = [(0.02, foot), (-lean, foot + kit.uniform(0.0, 0.1)), (0.02, top)]
    jib = [(0.2, foot + 0.04), (0.82 * half, foot + 0.14), (0.2, top * kit.uniform(0.74, 0.9))]
    for sail in (main, jib) if kit.chance(0.7) else (main,):
        kit.add("sail", _side_view(round_corners(sail, 0.07), 0.15, 0.06), "accent")
    if kit.chance(0.5):
        kit.add("flag", box(0.05, 0.12, 0.24, bevel=0.02).moved(y=top + 0.04, z=-0.04), "rose")
    crate = box(beam * 0.9, 0.22, 0.36, bevel=0.04)
    kit.add("cabin", crate.moved(y=depth + 0.08, z=-half * 0.55), "primary_light")


def build_airplane(kit: Assembly) -> None:
    """A fuselage along Z with wings, tail and a propeller or two engines."""
    length, radius = kit.uniform(0.92, 1.02), kit.uniform(0.23, 0.28)
    rise = kit.stretch**0.6
    shape = smooth_profile(
        [(0.05, -1.0), (0.6, -0.5), (1.0, 0.1), (0.95, 0.6), (0.6, 0.9), (0.0, 1.0)]
    )
    profile = shape * [radius, length]
    hull = lathe(np.concatenate([[(0.0, profile[0, 1])], profile]), segments=28)
    kit.add("hull", hull.turned("x", 90).scaled(y=rise))
    span, chord = kit.uniform(0.88, 1.0), kit.uniform(0.2, 0.26)
    sweep = kit.uniform(0.0, 0.3)
    high = kit.chance(0.3)
    wing = [
        (0.0, chord),
        (span, chord * 0.6 - sweep),
        (span, -chord * 0.5 - sweep),
        (0.0, -chord * 1.1),
    ]
    outline = round_corners(np.array(wing), 0.13, steps=4)
    plate = extrude(outline, 0.16, bevel=0.06).turned("x", 90)
    level = (0.7 if high else -0.25) * radius * rise
    kit.mirrored("wings", plate.moved(y=level, z=0.15), "accent")
    small = plate.scaled(0.42, 0.85, 0.6)
    kit.mirrored("wings", small.moved(y=0.03, z=-length * 0.84), "accent")
    fin = round_corners([(-0.26, 0.0), (0.2, 0.0), (-0.12, 0.5 * rise), (-0.34, 0.5 * rise)], 0.07)
    kit.add("wings", _side_view(fin, 0.14, 0.05).moved(z=-length * 0.74, y=0.05), "accent")
    canopy = ellipsoid(radius * 0.72, radius * 0.62, 0.26, segments=18)
    kit.add("canopy", canopy.moved(y=radius * 0.62 * rise, z=0.42), "dark")
    for side in (-1, 1):
        for z in (0.1, -0.12, -0.34):
            pane = ball(0.055, segments=10).scaled(x=0.5)
            kit.add(
                "windows", pane.moved(side * radius * (0.99 + 0.28 * min(z, 0)), 0.06, z), "dark"
            )
    if kit.chance(0.6):
        kit.add("spinner", ball(0.09, segments=14).moved(z=length), "gray")
        blade = box(0.74, 0.13, 0.06, bevel=0.03).turned("z", kit.uniform(-40, 40))
        kit.add("propeller", blade.moved(z=length + 0.03), "gray")
    else:
        engine = cylinder(0.11, 0.14, 0.4, bevel=0.04, segments=20).turned("x", 90)
        kit.mirrored("engines", engine.moved(span * 0.42, level - 0.14, 0.0 - sweep * 0.3), "gray")


def build_train(kit: Assembly) -> None:
    """A steam engine: boiler to +Z with chimney, cab behind, wheels along both sides."""
    length = kit.uniform(0.95, 1.05)
    radius = kit.uniform(0.34, 0.38)
    rise = kit.stretch
    kit.add("frame", box(0.66, 0.14, 2 * length, bevel=0.04).moved(y=0.36), "gray")
    axis = 0.4 + radius * rise
    boiler = cylinder(radius, radius, 1.2 * length, bevel=0.06, segments=30).turned("x", 90)
    kit.add("boiler", boiler.scaled(y=rise).moved(y=axis, z=-0.32 * length))
    face = cylinder(radius * 0.72, radius * 0.66, 0.08, bevel=0.03).turned("x", 90)
    kit.add("face", face.moved(y=axis, z=0.87 * length), "dark")
    kit.add("lamp", ball(0.11, segments=14).moved(y=axis, z=0.95 * length), "glow")
    for z in (0.05, 0.55):
        hoop = torus(radius, 0.04, segments=26).turned("x", 90).scaled(y=rise)
        kit.add("bands", hoop.moved(y=axis, z=z * length), "gold")
    top = axis + radius * rise
    funnel = round_corners(
        [(0, 0), (0.11, 0), (0.1, 0.22), (0.2, 0.4), (0, 0.4)], 0.03, closed=False
    )
    kit.add("chimney", lathe(funnel, segments=22).moved(y=top - 0.06, z=0.62 * length), "dark")
    kit.add("dome", ball(0.15, segments=18).moved(y=top, z=0.18 * length), "gold")
    cab = 0.95 * rise * kit.uniform(0.95, 1.1)
    kit.add("cab", box(0.8, cab, 0.62, bevel=0.05).moved(y=0.4 + cab / 2, z=-0.62 * length))
    roof = extrude(arc((0, 0), (0.5, 0.2), 0, 180, 14), 0.8, bevel=0.04)
    kit.add("roof", roof.moved(y=0.38 + cab, z=-0.62 * length), "primary_dark")
    pane = box(0.84, 0.3 * rise, 0.3, bevel=0.03).moved(y=0.4 + 0.68 * cab, z=-0.62 * length)
    kit.add("windows", pane, "cream")
    for x in (-1, 1):
        big = 0.3
        kit.add("wheels", _axle(x * 0.36, big, -0.6 * length, big, 0.14), "accent")
        kit.add("hubs", _axle(x * 0.38, big, -0.6 * length, 0.1, 0.16), "metal")
        for z in (-0.02, 0.38, 0.76):
            kit.add("wheels", _axle(x * 0.36, 0.22, z * length, 0.2, 0.14), "accent")
            kit.add("hubs", _axle(x * 0.38, 0.22, z * length, 0.07, 0.16), "metal")
    wedge = round_corners([(0.0, 0.0), (0.3, 0.0), (0.0, 0.3)], 0.03)
    kit.add("wedge", _side_view(wedge, 0.56, 0.04).moved(y=0.08, z=0.96 * length), "accent")


VEHICLES: dict[str, Category] = {
    "car": Category(build_car, "wheels", "dark", metallic=0.1, roughness=0.35),
    "rocket": Category(build_rocket, "fins", "primary_dark", metallic=0.2, roughness=0.4),
    "boat": Category(build_boat, "sail", "cream"),
    "airplane": Category(build_airplane, "wings", "primary_light", roughness=0.4),
    "train": Category(build_train, "wheels", "dark", metallic=0.1, roughness=0.4),
}
