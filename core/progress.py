"""Contains the progress report that every long pipeline sends to its caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


class StopEarly(Exception):
    """Raised by a callback to end a run now and keep what there is.

    Only optimisations that say so understand it; for other pipelines it is an interruption.
    """


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


def share_progress(on_progress: ProgressCallback, first: int, last: int) -> ProgressCallback:
    """Callback for a stage that fills the percentages from ``first`` to ``last`` of a run."""

    def report(progress: Progress) -> None:
        percent = first + (last - first) * progress.step // max(progress.total, 1)
        on_progress(Progress(percent, 100, progress.message, progress.preview))

    return report
