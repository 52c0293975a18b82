"""Contains the semantic field: a signed distance, class logits and colour sampled on a grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ._checks import require_finite, require_floating, require_same_device, require_shape


@dataclass(frozen=True)
class SemanticField:
    """Values at the corners of a regular grid in the world frame.

    Attributes:
        sdf: negative inside, zero on the surface; not necessarily metric.
        logits: class scores before the softmax.
        label_names: one name per class, in the order of ``logits``.
        lower: corner of the grid with the smallest coordinates.
        upper: corner with the largest coordinates.
        rgb: colour, display-referred sRGB 0..1, or None.
    """

    sdf: Float[Tensor, "x y z"]
    logits: Float[Tensor, "x y z label"]
    label_names: tuple[str, ...]
    lower: tuple[float, float, float] = (-1.0, -1.0, -1.0)
    upper: tuple[float, float, float] = (1.0, 1.0, 1.0)
    rgb: Float[Tensor, "x y z 3"] | None = None

    def __post_init__(self) -> None:
        require_shape("sdf", self.sdf, None, None, None)
        if min(self.sdf.shape) < 2:
            raise ValueError(f"sdf needs at least 2 samples per axis, got {list(self.sdf.shape)}.")
        require_shape("logits", self.logits, *self.sdf.shape, len(self.label_names))
        if self.rgb is not None:
            require_shape("rgb", self.rgb, *self.sdf.shape, 3)
            require_finite("rgb", self.rgb)
        if len(set(self.label_names)) != len(self.label_names):
            raise ValueError(f"label_names must differ, got {list(self.label_names)}.")
        for name, value in (("sdf", self.sdf), ("logits", self.logits)):
            require_floating(name, value)
            require_finite(name, value)
        require_same_device(sdf=self.sdf, logits=self.logits, rgb=self.rgb)
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"lower {self.lower} must be below upper {self.upper} on every axis.")

    @property
    def labels(self) -> Tensor:
        """Most likely class at every grid corner, [x, y, z] int64."""
        return self.logits.argmax(dim=-1)

    def label_index(self, name: str) -> int:
        """Position of a class by its name."""
        if name not in self.label_names:
            raise ValueError(f"No class '{name}' in this field; it has {list(self.label_names)}.")
        return self.label_names.index(name)

    def to(self, device: torch.device | str) -> SemanticField:
        """Copy with every tensor on ``device``."""
        rgb = None if self.rgb is None else self.rgb.to(device)
        return replace(self, sdf=self.sdf.to(device), logits=self.logits.to(device), rgb=rgb)
