"""Contains the sRGB transfer curve (IEC 61966-2-1) on arrays."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def srgb_to_linear(srgb: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Display-referred sRGB 0..1 to linear light 0..1 (values outside are clipped)."""
    srgb = np.clip(srgb, 0.0, 1.0)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Linear light 0..1 to display-referred sRGB 0..1 (values outside are clipped)."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1 - 1.055 * (1 - linear ** (1 / 2.4)))
