"""Contains the presets of text to Gaussians in ``configs/ge3d.yaml``."""

from __future__ import annotations

import dataclasses
import functools
import typing
from pathlib import Path
from typing import Any, Literal

from .text_to_splat import TextToSplatParams

Preset = Literal["paper", "reference", "small"]
PRESETS: tuple[Preset, ...] = typing.get_args(Preset)
CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "ge3d.yaml"


@functools.cache
def load_ge3d_params(preset: Preset = "paper") -> TextToSplatParams:
    """Settings of a preset: the paper's, changed where the preset says so.

    Raises:
        ValueError: there is no such preset.
    """
    from omegaconf import OmegaConf

    config: Any = OmegaConf.load(CONFIG_FILE)
    if preset not in config:
        raise ValueError(f"Unknown preset '{preset}'; choose {', '.join(map(str, config))}.")
    values = OmegaConf.to_container(OmegaConf.merge(config["paper"], config[preset]))
    return typing.cast(TextToSplatParams, _filled(TextToSplatParams, values))


def _filled(kind: Any, values: Any) -> Any:
    """Dataclass of plain values; lists become tuples."""
    hints = typing.get_type_hints(kind)
    given = {}
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"{CONFIG_FILE.name}: {kind.__name__} has no field '{name}'.")
        if dataclasses.is_dataclass(hints[name]):
            given[name] = _filled(hints[name], value)
        else:
            given[name] = tuple(value) if isinstance(value, list) else value
    return kind(**given)
