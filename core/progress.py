"""Contains the progress report that every long pipeline sends to its caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """One report: ``step`` of ``total`` is done.

    Attributes:
        step: number of finished steps, 0..total.
        total: number of steps of the whole run.
        message: one line for people, such as the current stage and its loss.
        preview: picture of the present state, [height, width, 3] in 0..1, or None.
    """

    step: int
    total: int
    message: str = ""
    preview: Float[Tensor, "height width 3"] | None = None


ProgressCallback = Callable[[Progress], None]
"""Called by pipelines after each step; it may raise to interrupt them, and they let it pass."""


def ignore_progress(progress: Progress) -> None:
    """The callback of callers that do not care."""
