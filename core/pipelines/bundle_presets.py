"""Contains the published settings of ControlNets on bundles, read from ``configs/bundle.yaml``."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .control_images import CONTROL_KINDS, ControlKind

PRESET_NAMES = ("image", "image_app", "mesh")
CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "bundle.yaml"


@dataclass(frozen=True)
class ControlPreset:
    """One row of the table.

    Attributes:
        mode: kind of the condition picture.
        scale: strength of the ControlNet.
        start: share of the run before which it is off.
        end: share of the run after which it is off.
        strength: denoise strength that goes with it.
        image_strength: strength of the image prompt that goes with it; 0 for none.
    """

    mode: ControlKind
    scale: float
    start: float
    end: float
    strength: float
    image_strength: float

    def __post_init__(self) -> None:
        if self.mode not in CONTROL_KINDS:
            raise ValueError(f"mode must be one of {', '.join(CONTROL_KINDS)}, got '{self.mode}'.")


@functools.cache
def load_control_presets() -> dict[str, ControlPreset]:
    """All presets by name, in the order of the file."""
    from omegaconf import OmegaConf

    table = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONFIG_FILE)))
    return {name: ControlPreset(**row) for name, row in table.items()}


def load_control_preset(name: str) -> ControlPreset:
    """A preset by its name.

    Raises:
        ValueError: there is none of that name.
    """
    presets = load_control_presets()
    if name not in presets:
        raise ValueError(f"Unknown control preset '{name}'; choose {', '.join(presets)}.")
    return presets[name]
