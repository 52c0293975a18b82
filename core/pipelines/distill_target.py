"""Contains what a distillation optimises, seen the same way whatever its representation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig

State = Mapping[str, Tensor]
"""Everything that the next steps depend on, as tensors by name."""


@dataclass(frozen=True)
class Drawn:
    """Pictures of a target with gradients to its parameters.

    Attributes:
        rgb: over the backgrounds.
        alpha: 0..1.
        depth: camera z; 0 where nothing is.
        penalty: the target's own regularisation.
    """

    rgb: Float[Tensor, "view height width 3"]
    alpha: Float[Tensor, "view height width"]
    depth: Float[Tensor, "view height width"]
    penalty: Float[Tensor, ""]


@runtime_checkable
class DistillationTarget(Protocol):
    """A 3D representation under optimisation.

    One iteration is ``draw``, ``backward()`` of some loss, then ``update`` or ``discard``.
    """

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        ...

    @property
    def collapses(self) -> int:
        """How often nothing would have been left of it; grows during ``update``."""
        ...

    @property
    def is_presentable(self) -> bool:
        """False while it recovers from a planned disturbance, such as lowered opacities."""
        ...

    def draw(
        self,
        rig: ViewRig,
        size_px: int,
        backgrounds: Float[Tensor, "view 3"],
        generator: torch.Generator,
    ) -> Drawn:
        """Square pictures with gradients; the generator serves augmentations."""
        ...

    def update(self) -> bool:
        """Take a step after ``backward()``; False, and no step, if a gradient is not finite."""
        ...

    def discard(self) -> None:
        """Forget the gradients of this iteration."""
        ...

    def look(self, rig: ViewRig, size_px: int) -> Float[Tensor, "view height width 3"]:
        """Pictures on white without gradients or augmentation."""
        ...

    def describe(self) -> str:
        """A few words about its present size."""
        ...

    def state(self) -> State:
        """Copy of all that the next steps depend on."""
        ...

    def restore(self, state: State, *, keep_clock: bool = False) -> None:
        """Go on from a copy that ``state`` made; ``keep_clock`` keeps the number of steps done."""
        ...


def total_variation(pictures: Float[Tensor, "view height width channel"]) -> Float[Tensor, ""]:
    """Twice the mean squared difference of neighbours, vertical plus horizontal.

    Reference: the regulariser of GE3D's released code (factor 2, mean over channels and area).
    """
    down = (pictures[:, 1:] - pictures[:, :-1]).square().mean()
    right = (pictures[:, :, 1:] - pictures[:, :, :-1]).square().mean()
    return 2 * (down + right)


def relative_disparity(
    depth: Float[Tensor, "view height width"], alpha: Float[Tensor, "view height width"]
) -> Float[Tensor, "view height width"]:
    """Inverse depth of each view, scaled to 0..1 between its own extremes; 0 where nothing is."""
    covered = depth > 0
    inverse = torch.where(covered, 1 / torch.where(covered, depth, 1.0), 0.0)
    near = inverse.detach().flatten(1).amax(dim=1)
    masked = torch.where(covered, inverse.detach(), torch.inf)
    far = masked.flatten(1).amin(dim=1)
    far = torch.where(torch.isfinite(far), far, 0.0)
    span = (near - far).clamp(min=1e-6)
    scaled = (inverse - far[:, None, None]) / span[:, None, None]
    return torch.where(covered, scaled, 0.0) * alpha
