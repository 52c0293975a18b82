"""Contains what makes one procedural character differ from another: sizes, outfit, hair, colours.

Lengths are in world units: a character is about 2 high, its soles at y = -1, in A-pose (arms 45
degrees down), facing +Z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .materials import HUE_COLORS, TONES, Color, jitter_color, tint

LowerKind = Literal["trousers", "shorts", "skirt", "long_skirt"]
HairKind = Literal["short", "bob", "long", "ponytail", "twin_tails"]
Place = tuple[float, float, float]

LOWER_KINDS: tuple[LowerKind, ...] = ("trousers", "shorts", "skirt", "long_skirt")
HAIR_KINDS: tuple[HairKind, ...] = ("short", "bob", "long", "ponytail", "twin_tails")
SKINS: tuple[Color, ...] = (
    (0.98, 0.86, 0.77),
    (0.94, 0.77, 0.64),
    (0.80, 0.60, 0.46),
    (0.55, 0.38, 0.28),
)
HAIR_COLORS: tuple[Color, ...] = (
    TONES["dark"],
    HUE_COLORS["brown"],
    (0.93, 0.80, 0.45),
    HUE_COLORS["red"],
    HUE_COLORS["pink"],
    HUE_COLORS["blue"],
    HUE_COLORS["purple"],
    TONES["gray"],
)
SOLE = -1.0
ARM_ANGLE = math.radians(45.0)


@dataclass(frozen=True)
class CharacterStyle:
    """Everything that is drawn at random.

    Attributes:
        width: factor on radii of trunk and limbs.
        head: factor on the size of the head.
        lower: garment of hips and legs.
        sleeve: how far the sleeves reach along the arm, 0 (none) .. 1 (wrist).
        thickness: of the fabric.
        flare: radius of a skirt's hem.
        scarf: whether there is one.
        hair: kind of hair.
        hair_length: how far it falls below the chin.
        skin: sRGB, as all colours.
        eyes: of the irises.
        hair_color: of the hair.
        top: of the upper garment.
        bottom: of the lower garment.
        trim: of scarf and hems.
        shoes: of the shoes, which belong to the body.
    """

    width: float
    head: float
    lower: LowerKind
    sleeve: float
    thickness: float
    flare: float
    scarf: bool
    hair: HairKind
    hair_length: float
    skin: Color
    eyes: Color
    hair_color: Color
    top: Color
    bottom: Color
    trim: Color
    shoes: Color


def draw_style(seed: int) -> CharacterStyle:
    """Style of a seed; the same seed gives the same style."""
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}.")
    rng = np.random.default_rng([seed, 5])
    hues = list(HUE_COLORS.values()) + [TONES["white"], TONES["dark"], TONES["gray"]]

    def some(colors: list[Color] | tuple[Color, ...]) -> Color:
        return jitter_color(colors[int(rng.integers(len(colors)))], rng)

    top = some(hues)
    return CharacterStyle(
        width=float(rng.uniform(0.9, 1.12)),
        head=float(rng.uniform(0.94, 1.06)),
        lower=LOWER_KINDS[int(rng.integers(len(LOWER_KINDS)))],
        sleeve=float(rng.choice([0.25, 0.5, 0.85])),
        thickness=float(rng.uniform(0.036, 0.05)),
        flare=float(rng.uniform(0.24, 0.34)),
        scarf=bool(rng.random() < 0.35),
        hair=HAIR_KINDS[int(rng.integers(len(HAIR_KINDS)))],
        hair_length=float(rng.uniform(0.25, 0.6)),
        skin=some(SKINS),
        eyes=some(hues[:6]),
        hair_color=some(HAIR_COLORS),
        top=top,
        bottom=tint(top, -0.25) if rng.random() < 0.2 else some(hues),
        trim=some(hues),
        shoes=some([TONES["dark"], TONES["white"], HUE_COLORS["brown"], HUE_COLORS["red"]]),
    )


@dataclass(frozen=True)
class CharacterJoints:
    """Places of the joints; those of limbs are of the left side (+X), mirrored for the right."""

    hips: Place
    spine: Place
    chest: Place
    neck: Place
    head: Place
    head_top: Place
    shoulder: Place
    elbow: Place
    wrist: Place
    hand_tip: Place
    hip: Place
    knee: Place
    ankle: Place
    toe: Place


def place_joints(style: CharacterStyle) -> CharacterJoints:
    """Joints of a style."""
    shoulder = (0.165 * style.width, 0.385, 0.0)

    def along_arm(length: float) -> Place:
        x, y = (
            shoulder[0] + length * math.cos(ARM_ANGLE),
            shoulder[1] - length * math.sin(ARM_ANGLE),
        )
        return (x, y, 0.0)

    hip_x = 0.095 * style.width
    return CharacterJoints(
        hips=(0.0, -0.07, 0.0),
        spine=(0.0, 0.1, 0.0),
        chest=(0.0, 0.27, 0.0),
        neck=(0.0, 0.44, 0.0),
        head=(0.0, 0.52, 0.0),
        head_top=(0.0, 0.66 + 0.23 * style.head, 0.0),
        shoulder=shoulder,
        elbow=along_arm(0.26),
        wrist=along_arm(0.49),
        hand_tip=along_arm(0.62),
        hip=(hip_x, -0.13, 0.0),
        knee=(hip_x + 0.005, -0.53, 0.0),
        ankle=(hip_x + 0.01, -0.92, -0.01),
        toe=(hip_x + 0.015, -0.95, 0.12),
    )
