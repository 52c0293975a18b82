"""Contains the triplane: three axis-aligned feature planes over a cube."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ._checks import require_finite, require_floating, require_shape


@dataclass(frozen=True)
class Triplane:
    """Feature planes that cover the cube [-bound, bound]^3.

    Attributes:
        planes: plane 0 spans (x, y), plane 1 (x, z), plane 2 (z, y); the first coordinate runs
            along the width axis.
        bound: half side of the cube, in the frame of the network that made the planes.
    """

    planes: Float[Tensor, "batch plane=3 channel height width"]
    bound: float = 1.0

    def __post_init__(self) -> None:
        require_shape("planes", self.planes, None, 3, None, None, None)
        require_floating("planes", self.planes)
        require_finite("planes", self.planes)
        if not self.bound > 0:
            raise ValueError(f"bound must be positive, got {self.bound}.")

    @property
    def num_channels(self) -> int:
        """Features per plane."""
        return int(self.planes.shape[2])

    def to(self, device: torch.device | str) -> Triplane:
        """Copy with the planes on ``device``."""
        return replace(self, planes=self.planes.to(device))
