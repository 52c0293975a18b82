"""Contains the widgets that nodes of several themes share: one declaration, one set of limits.

Ranges are part of the stored workflows' contract, so they stand here once; tooltips say what the
value means for the node at hand.
"""

from __future__ import annotations

from typing import Any

from ..core.bundle_image import MAX_TILE_PX, MIN_TILE_PX
from ..core.camera import KISS3DGEN_RADIUS
from .host import io

MAX_SEED = 0xFFFFFFFF
NORMAL_ENCODING_TOOLTIP = (
    "Colours of the normals: 'bundle' in the frame of each camera as in the bundle image, 'world' "
    "as (n + 1) / 2 in world axes."
)
BUNDLE_RADII = "4.5 for bundles of this pack, 4.15 for pictures of Kiss3DGen's model."


def seed_input(tooltip: str, *, default: int = 0, **options: Any) -> Any:
    """Seed of a random choice, with the editor's choice of what follows a run."""
    return io.Int.Input(
        "seed",
        default=default,
        min=0,
        max=MAX_SEED,
        control_after_generate=True,
        tooltip=tooltip,
        **options,
    )


def steps_input(
    id: str, default: int, tooltip: str, *, least: int = 0, most: int = 100_000, **options: Any
) -> Any:
    """Number of steps of an optimisation or of sampling."""
    return io.Int.Input(id, default=default, min=least, max=most, tooltip=tooltip, **options)


def bundle_radius_input(tooltip: str, *, default: float = KISS3DGEN_RADIUS, **options: Any) -> Any:
    """Distance of the cameras of a bundle image, in world units."""
    return io.Float.Input(
        "radius", default=default, min=1.0, max=100.0, step=0.05, tooltip=tooltip, **options
    )


def tile_input(
    tooltip: str, *, default: int = 512, least: int = MIN_TILE_PX, **options: Any
) -> Any:
    """Side of a bundle's tile; ``least`` 0 where 0 stands for the model's own size."""
    return io.Int.Input(
        "tile_px", default=default, min=least, max=MAX_TILE_PX, step=8, tooltip=tooltip, **options
    )


def texture_size_input(id: str, tooltip: str) -> Any:
    """Side of a square texture in pixels."""
    return io.Int.Input(id, default=1024, min=64, max=8192, step=64, tooltip=tooltip)


def normal_encoding_input(**options: Any) -> Any:
    """Which colours normal maps have."""
    return io.Combo.Input(
        "normal_encoding",
        options=["bundle", "world"],
        default="bundle",
        tooltip=NORMAL_ENCODING_TOOLTIP,
        **options,
    )


def share_input(id: str, default: float, tooltip: str) -> Any:
    """A part of a whole, 0..1."""
    return io.Float.Input(id, default=default, min=0.0, max=1.0, step=0.05, tooltip=tooltip)


def number(id: str, default: float, low: float, high: float, tooltip: str, **options: Any) -> Any:
    """A float widget, in steps of 0.01 unless ``step`` says otherwise."""
    step = options.pop("step", 0.01)
    return io.Float.Input(
        id, default=default, min=low, max=high, step=step, tooltip=tooltip, **options
    )


def whole(id: str, default: int, low: int, high: int, tooltip: str, **options: Any) -> Any:
    """An integer widget."""
    return io.Int.Input(id, default=default, min=low, max=high, tooltip=tooltip, **options)


def choice(id: str, options: list[str], default: str, tooltip: str, **extra: Any) -> Any:
    """A list to choose from."""
    return io.Combo.Input(id, options=options, default=default, tooltip=tooltip, **extra)
