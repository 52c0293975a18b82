"""Contains the settings of a layer's refinement and their presets in the configuration file.

The file is ``configs/character_refinement.yaml``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..geometry.collision import CollisionForm
from ..geometry.layer_dilation import DilationParams
from .isomer_params import IsomerParams, isomer_params_from

LayerPreset = Literal["fast", "published"]
LayerLoss = Literal["paper", "reference"]
"""Mask term over the whole picture (Eq. 12), or over the target's background (released program)."""

CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "character_refinement.yaml"
LAYER_KINDS = ("body", "clothes", "hair", "whole")


@dataclass(frozen=True)
class LayerParams:
    """How one layer is refined.

    Attributes:
        isomer: both stages: against the normal maps, then against an explicit target.
        remesh_interval: steps of the first stage between two remeshings.
        loss: form of the image terms.
        collision_weight: of Eq. 13.
        collision_form: which vertices Eq. 13 counts.
        hair_inside_weight: of what hair shows inside the hair mask, front view.
        hair_outside_weight: of hair that shows outside of it.
        dilation: of an outer layer before and after; None leaves it out.
        smoothing_rounds: Taubin rounds at the end.
        min_part_area: pieces with less of the layer's area are dropped.
        color_view_weights: how much each view counts for colours, used when their number fits.
    """

    isomer: IsomerParams
    remesh_interval: int = 30
    loss: LayerLoss = "paper"
    collision_weight: float = 100.0
    collision_form: CollisionForm = "paper"
    hair_inside_weight: float = 1.0
    hair_outside_weight: float = 10.0
    dilation: DilationParams | None = DilationParams()
    smoothing_rounds: int = 2
    min_part_area: float = 0.003
    color_view_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.remesh_interval < 1 or self.smoothing_rounds < 0:
            raise ValueError(
                "remesh_interval must be at least 1 and smoothing_rounds not negative, got "
                f"{self.remesh_interval} and {self.smoothing_rounds}."
            )
        if self.loss not in ("paper", "reference"):
            raise ValueError(f"loss must be 'paper' or 'reference', got {self.loss!r}.")
        weights = (self.collision_weight, self.hair_inside_weight, self.hair_outside_weight)
        if min(weights) < 0:
            raise ValueError(f"Loss weights must not be negative, got {weights}.")

    def with_steps(self, coarse: int, fine: int) -> LayerParams:
        """Copy with other numbers of steps."""
        isomer = replace(
            self.isomer,
            coarse=replace(self.isomer.coarse, steps=coarse),
            fine=replace(self.isomer.fine, steps=fine),
        )
        return replace(self, isomer=isomer)


@functools.cache
def load_layer_params(layer: str, preset: LayerPreset = "fast") -> LayerParams:
    """Settings of a kind of layer; names that are none of `LAYER_KINDS` are treated as clothes."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.load(CONFIG_FILE)
    if preset not in config:
        raise ValueError(f"Unknown preset '{preset}'; choose {', '.join(map(str, config))}.")
    kind = layer if layer in LAYER_KINDS else "clothes"
    published = config.published
    merged = OmegaConf.merge(
        published.common, published[kind], {} if preset == "published" else config[preset].common
    )
    values: Any = OmegaConf.to_container(merged, resolve=True)
    interval, margin = values.pop("remesh_interval"), values.pop("dilation_margin")
    weights = tuple(values.pop("color_view_weights"))
    return LayerParams(
        isomer=isomer_params_from(values),
        remesh_interval=interval,
        dilation=DilationParams(margin=margin),
        color_view_weights=weights,
    )
