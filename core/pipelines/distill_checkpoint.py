"""Contains the checkpoint of a distillation: one safetensors file, written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..formats.atomic import atomic_write
from ..networks.weights import read_weights

FORMAT_VERSION = 1
FINGERPRINT_BYTES = 16
NAME_LETTERS = 10


def fingerprint(*parts: Any) -> str:
    """Short text that differs for runs with other settings or another start.

    Tensors count by their bytes, everything else by its ``repr``.
    """
    digest = hashlib.sha256(f"distillation {FORMAT_VERSION}".encode())
    for part in parts:
        if isinstance(part, Mapping):
            for name in sorted(part):
                digest.update(fingerprint(name, part[name]).encode())
        elif isinstance(part, Tensor):
            digest.update(str((tuple(part.shape), part.dtype)).encode())
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[: 2 * FINGERPRINT_BYTES]


@dataclass(frozen=True)
class CheckpointFile:
    """Where and how often a run saves its state.

    Attributes:
        path: of the file; it is replaced whole.
        every: iterations between two; 0 saves only when the run ends or is interrupted.
        resume: go on from the file if it is there.
        keep: leave the file when the run is done; it stays after an interruption in any case.
        per_run: put the run's fingerprint into the file's name, so that no other run meets it.
    """

    path: Path
    every: int = 50
    resume: bool = True
    keep: bool = True
    per_run: bool = False

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"every must not be negative, got {self.every}.")
        if self.path.suffix != ".safetensors":
            raise ValueError(f"A checkpoint must end in .safetensors, got '{self.path.name}'.")

    def of_run(self, run: str) -> CheckpointFile:
        """The file of the run with this fingerprint."""
        if not self.per_run:
            return self
        path = self.path.with_name(f"{self.path.stem}_{run[:NAME_LETTERS]}{self.path.suffix}")
        return replace(self, path=path, per_run=False)

    def save(self, state: Mapping[str, Tensor], run: str) -> None:
        """Write the state of the run with this fingerprint; the old file stays until then."""
        from safetensors.torch import save_file

        content = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        content["fingerprint"] = torch.tensor(list(bytes.fromhex(run)), dtype=torch.uint8)
        with atomic_write(self.path) as temporary:
            save_file(content, temporary)

    def load(self, run: str) -> dict[str, Tensor] | None:
        """State of the run with this fingerprint; None without a file, or when not resuming.

        Raises:
            ValueError: the file is damaged, cut short, or belongs to another run.
        """
        if not self.resume or not self.path.is_file():
            return None
        state = read_weights(self.path)
        found = state.pop("fingerprint", torch.zeros(0, dtype=torch.uint8))
        if bytes(found.tolist()).hex() != run:
            raise ValueError(
                f"{self.path.name} is the checkpoint of another run: the prompt, the model, the "
                "start or a setting differs. Name another file, remove this one, or do not resume."
            )
        return state
