"""Tiny Flux models, datasets and settings that the tests of the Flux trainers share."""

from __future__ import annotations

from pathlib import Path

from lift3d.core.training.bundle_dataset import BundleDatasetParams
from lift3d.core.training.dataset import DatasetParams
from lift3d.core.training.loop import LoopParams


class Stop(Exception):
    """What an interrupted run raises."""


def stop_at(step: int):
    """Progress callback that interrupts training (messages of the loop begin with ``step``)."""

    def tell(progress) -> None:
        if progress.message.startswith("step") and progress.step == step:
            raise Stop

    return tell


def ignore(progress) -> None:
    """Progress callback that does nothing."""


def make_data(folder: Path, count: int = 3) -> DatasetParams:
    """Bundles of mugs and cars, 256 x 128 pixels."""
    procedural = BundleDatasetParams(count, ("mug", "car"), supersampling=1)
    return DatasetParams(folder, procedural=procedural)


def quick_loop(steps: int, **changes) -> LoopParams:
    """A high learning rate and a report after each step."""
    settings = {"learning_rate": 1e-2, "warmup_steps": 3, "report_every": 1, "average": 0.5}
    return LoopParams(steps=steps, **{**settings, **changes})
