"""Contains arrays that are computed once, row by row, and kept on disk in half precision.

Encoded pictures and texts of a dataset may be larger than the memory. A stopped computation goes on
where it was; another model or other data begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..formats.atomic import atomic_write
from ..progress import Progress, ProgressCallback, ignore_progress

MakeRows = Callable[[range], Mapping[str, Tensor]]
"""Indices -> tensors [row, ...] by name, always the same names and row shapes."""


def cached_rows(
    folder: Path,
    name: str,
    fingerprint: str,
    count: int,
    make: MakeRows,
    *,
    batch: int = 8,
    on_progress: ProgressCallback = ignore_progress,
) -> dict[str, np.ndarray]:
    """Rows 0..count-1 of one or several arrays, half precision, mapped from disk.

    Args:
        folder: where the arrays are kept.
        name: of the group of arrays.
        fingerprint: of everything that the rows depend on.
        count: number of rows.
        make: computes some rows.
        batch: rows per call.
        on_progress: called after each call.

    Raises:
        ValueError: a row does not fit into half precision.
    """
    done = _done_rows(folder, name, fingerprint, count)
    if not done:  # what follows overwrites the arrays that the old state speaks of
        (folder / f"{name}.json").unlink(missing_ok=True)
    for first in range(done, count, batch):
        rows = range(first, min(first + batch, count))
        made = {key: _half(name, value) for key, value in make(rows).items()}
        for key, values in made.items():
            array = _open(folder / f"{name}_{key}.npy", first == 0, (count, *values.shape[1:]))
            array[rows.start : rows.stop] = values
            array.flush()
        _write_state(folder, name, fingerprint, rows.stop, list(made))
        on_progress(Progress(rows.stop, count, f"encoded {rows.stop} of {count} {name}"))
    keys = _read_state(folder, name)["arrays"]
    return {
        key: np.load(folder / f"{name}_{key}.npy", mmap_mode="r", allow_pickle=False)
        for key in keys
    }


def _half(name: str, values: Tensor) -> np.ndarray:
    half = values.detach().to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise ValueError(f"The model gave {name} that are not finite or too large to be kept.")
    return half.cpu().numpy()


def _open(path: Path, is_new: bool, shape: Sequence[int]) -> np.memmap:
    if is_new:
        path.parent.mkdir(parents=True, exist_ok=True)
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=tuple(shape))
    return np.lib.format.open_memmap(path, mode="r+")


def _done_rows(folder: Path, name: str, fingerprint: str, count: int) -> int:
    if not (folder / f"{name}.json").is_file():
        return 0
    state = _read_state(folder, name)
    files = [folder / f"{name}_{key}.npy" for key in state["arrays"]]
    is_same = state["fingerprint"] == fingerprint and all(path.is_file() for path in files)
    return min(int(state["done"]), count) if is_same else 0


def _read_state(folder: Path, name: str) -> dict:
    return dict(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def _write_state(folder: Path, name: str, fingerprint: str, done: int, arrays: list[str]) -> None:
    with atomic_write(folder / f"{name}.json") as temporary:
        state = {"fingerprint": fingerprint, "done": done, "arrays": arrays}
        temporary.write_text(json.dumps(state), encoding="utf-8")
