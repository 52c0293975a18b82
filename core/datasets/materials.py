"""Contains the palette: named hues with their jitter, neutral tones, and naming of seen colours.

Colours are display-referred sRGB, 0..1.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Color = tuple[float, float, float]

HUE_COLORS: dict[str, Color] = {
    "red": (0.85, 0.16, 0.16),
    "orange": (0.97, 0.52, 0.10),
    "yellow": (0.98, 0.83, 0.18),
    "green": (0.27, 0.66, 0.27),
    "teal": (0.08, 0.64, 0.64),
    "blue": (0.17, 0.38, 0.86),
    "purple": (0.50, 0.25, 0.74),
    "pink": (0.97, 0.52, 0.72),
    "brown": (0.46, 0.28, 0.17),
}
HUES: tuple[str, ...] = tuple(HUE_COLORS)

TONES: dict[str, Color] = {
    "dark": (0.17, 0.17, 0.20),
    "gray": (0.47, 0.48, 0.52),
    "metal": (0.68, 0.70, 0.73),
    "white": (0.93, 0.93, 0.91),
    "cream": (0.94, 0.89, 0.78),
    "wood": (0.52, 0.35, 0.22),
    "clay": (0.72, 0.40, 0.26),
    "leaf": (0.33, 0.60, 0.26),
    "glass": (0.70, 0.82, 0.90),
    "glow": (0.99, 0.90, 0.56),
    "gold": (0.93, 0.73, 0.24),
    "beak": (0.96, 0.58, 0.13),
    "rose": (0.93, 0.62, 0.66),
}
"""Colours of unnamed details: they complete an object without being mentioned in its caption."""


@dataclass(frozen=True)
class ColorScheme:
    """The colours of one object by role.

    Attributes:
        primary: the body, in the hue that the caption names first.
        accent: the named part.
        tones: neutral details.
    """

    primary: Color
    accent: Color
    tones: dict[str, Color]

    def color(self, role: str) -> Color:
        """Colour of a role: ``primary``, ``accent``, either with ``_light``/``_dark``, or a tone.

        Raises:
            ValueError: the role is unknown.
        """
        base, _, shade = role.partition("_")
        if base in ("primary", "accent"):
            color = self.primary if base == "primary" else self.accent
            return {"": color, "light": tint(color, 0.22), "dark": tint(color, -0.25)}[shade]
        if role not in self.tones:
            raise ValueError(f"Unknown colour role {role!r}; tones are {', '.join(self.tones)}.")
        return self.tones[role]


def tint(color: Color, amount: float) -> Color:
    """Colour mixed with white (amount > 0) or black (amount < 0), same hue."""
    target = 1.0 if amount > 0 else 0.0
    mixed = [value + abs(amount) * (target - value) for value in color]
    return mixed[0], mixed[1], mixed[2]


def jitter_color(color: Color, rng: np.random.Generator, amount: float = 1.0) -> Color:
    """Colour with a slightly different hue (4 degrees), saturation and value (4 %)."""
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    hue = (hue + amount * rng.uniform(-1, 1) * 4 / 360) % 1.0
    saturation = float(np.clip(saturation * (1 + amount * rng.uniform(-0.06, 0.04)), 0, 1))
    value = float(np.clip(value * (1 + amount * rng.uniform(-0.06, 0.04)), 0, 1))
    return colorsys.hsv_to_rgb(hue, saturation, value)


def make_scheme(
    hue: str, second_hue: str | None, default_accent: str, rng: np.random.Generator
) -> ColorScheme:
    """Colours of one object.

    Args:
        hue: name of the body's hue.
        second_hue: name of the accent's hue; None takes ``default_accent``.
        default_accent: a tone, or ``primary_light``/``primary_dark``.
        rng: source of the jitter.
    """
    for name in (hue, second_hue):
        if name is not None and name not in HUE_COLORS:
            raise ValueError(f"Unknown hue {name!r}; choose one of {', '.join(HUES)}.")
    primary = jitter_color(HUE_COLORS[hue], rng)
    accent_base = HUE_COLORS[second_hue or hue]
    accent = jitter_color(accent_base, rng)
    tones = {name: jitter_color(color, rng, 0.5) for name, color in TONES.items()}
    if second_hue is None:
        accent = ColorScheme(primary, primary, tones).color(default_accent)
    return ColorScheme(primary, accent, tones)


def srgb_to_oklab(colors: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Display sRGB to OKLab (lightness, green-red, blue-yellow).

    Reference: Ottosson 2020, A perceptual color space for image processing.
    """
    colors = np.clip(np.asarray(colors, dtype=np.float64), 0, 1)
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    to_cone = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.array(to_cone).T) @ np.array(to_lab).T


SHADES = (1.0, 0.87, 0.74, 0.62)
NEUTRAL_CHROMA = 0.055
LIGHTNESS_WEIGHT = 0.6


def name_hues(colors: Float[np.ndarray, "color 3"]) -> np.ndarray:
    """Index into `HUES` of the nearest named hue of each colour, -1 for greys.

    The palette is compared at several brightnesses, so that shaded surfaces keep their name.
    Orange in deep shade and brown differ by saturation only; flat colours never fail.
    """
    lab = srgb_to_oklab(colors)
    palette = np.array([HUE_COLORS[name] for name in HUES])
    shaded = srgb_to_oklab(np.stack([palette * shade for shade in SHADES]))  # [shade, hue, 3]
    difference = lab[:, None, None] - shaded[None]
    difference[..., 0] *= LIGHTNESS_WEIGHT
    distance = np.linalg.norm(difference, axis=-1).min(axis=1)
    names = distance.argmin(axis=1)
    names[np.linalg.norm(lab[:, 1:], axis=1) < NEUTRAL_CHROMA] = -1
    return names


def hue_shares(colors: Float[np.ndarray, "color 3"]) -> dict[str, float]:
    """Share of each named hue among the coloured entries, largest first; empty for greys only."""
    names = name_hues(colors)
    counts = np.bincount(names[names >= 0], minlength=len(HUES))
    total = max(int(counts.sum()), 1)
    order = np.argsort(-counts, kind="stable")
    return {HUES[i]: float(counts[i] / total) for i in order if counts[i]}
