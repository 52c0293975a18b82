"""Contains the processes that train together, one per graphics card, started by ``accelerate``.

    accelerate launch --num_processes 4 run.py train bundle-lora CONFIG

Every process has its own batches; gradients are averaged before each step, so that all of them
have the same weights. Without ``accelerate launch`` there is one process, and accelerate is not
needed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from ..progress import ProgressCallback, ignore_progress

# Others wait that long while the first process draws pictures or encodes them.
LONGEST_WAIT = timedelta(days=2)


@dataclass(frozen=True)
class Workers:
    """This process among those that train together.

    Attributes:
        index: of this process, from 0.
        count: number of processes.
        device: where this process computes.
        state: accelerate's handle, None for a single process.
    """

    index: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")
    state: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.index == 0

    def told(self, on_progress: ProgressCallback) -> ProgressCallback:
        """The callback in the first process; the others keep silent."""
        return on_progress if self.is_first else ignore_progress

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all processes."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        joined = torch.cat([tensor.flatten().float() for tensor in tensors])
        mean = reduce(joined, "mean")
        for tensor, part in zip(tensors, mean.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    @contextlib.contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """Block that the first process runs before the others; for files that all of them read."""
        if self.state is None:
            yield
            return
        with self.state.main_process_first():
            yield


def find_workers(device: str = "") -> Workers:
    """This process as ``accelerate launch`` started it, or a single one.

    Args:
        device: such as "cpu" or "cuda"; empty for a graphics card if there is one.

    Raises:
        ImportError: several processes without accelerate.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count <= 1:
        found = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return Workers(device=torch.device(found))
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError(
            "Training in several processes needs accelerate: python -m pip install accelerate"
        ) from error
    state = PartialState(cpu=device == "cpu", timeout=LONGEST_WAIT)
    return Workers(state.process_index, state.num_processes, state.device, state)
