"""Contains what a distillation remembers of itself: counters, the running mean, the clock."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

import torch
from torch import Tensor

MEMORY = 0.95
PACE_WINDOW = 20


@dataclass
class RunTrack:
    """Counters of a run; part of its checkpoint.

    Attributes:
        iteration: number of finished iterations, failed ones included.
        skipped: failed iterations.
        failures_in_a_row: up to now.
        restored: how often the last good state was taken.
        mean_sum: running sum of the disagreement ...
        mean_weight: ... and its weight.
        lowest: lowest running mean.
        lowest_at: iteration at which it was reached.
    """

    iteration: int = 0
    skipped: int = 0
    failures_in_a_row: int = 0
    restored: int = 0
    mean_sum: float = 0.0
    mean_weight: float = 0.0
    lowest: float = math.inf
    lowest_at: int = 0

    @property
    def disagreement(self) -> float:
        """Running mean over about twenty iterations; NaN before the first."""
        return self.mean_sum / self.mean_weight if self.mean_weight else math.nan

    def add(self, disagreement: float) -> None:
        """Count a successful iteration."""
        self.iteration += 1
        self.failures_in_a_row = 0
        self.mean_sum = MEMORY * self.mean_sum + (1 - MEMORY) * disagreement
        self.mean_weight = MEMORY * self.mean_weight + (1 - MEMORY)

    def fail(self) -> None:
        """Count a failed iteration."""
        self.iteration += 1
        self.skipped += 1
        self.failures_in_a_row += 1

    def notice_gain(self, tolerance: float) -> None:
        """Remember this iteration if the running mean fell by the share ``tolerance``."""
        if self.disagreement < self.lowest * (1 - tolerance):
            self.lowest, self.lowest_at = self.disagreement, self.iteration

    @property
    def iterations_without_gain(self) -> int:
        """Iterations since the running mean last fell."""
        return self.iteration - self.lowest_at

    def as_tensor(self) -> Tensor:
        """All counters, exactly."""
        return torch.tensor([float(value) for value in astuple(self)], dtype=torch.float64)

    @classmethod
    def from_tensor(cls, values: Tensor) -> RunTrack:
        """Inverse of `as_tensor`.

        Raises:
            ValueError: a wrong number of values.
        """
        names = fields(cls)
        if values.numel() != len(names):
            raise ValueError(f"The saved counters hold {values.numel()} values, not {len(names)}.")
        track = cls()
        for item, value in zip(names, values.tolist(), strict=True):
            setattr(track, item.name, int(value) if item.type == "int" else value)
        return track


class Stopwatch:
    """Seconds per part of an iteration, and the pace of the last iterations."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._marks: deque[tuple[int, float]] = deque(maxlen=PACE_WINDOW)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Block whose time is added to ``name``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def pace(self, iteration: int) -> float:
        """Iterations per second over the last twenty; 0 at the first call."""
        self._marks.append((iteration, time.perf_counter()))
        (first, began), (last, now) = self._marks[0], self._marks[-1]
        return (last - first) / max(now - began, 1e-9) if last > first else 0.0
