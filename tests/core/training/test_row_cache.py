"""Arrays that are computed once: resuming, beginning anew, and what half precision cannot hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lift3d.core.training.row_cache import cached_rows


class Maker:
    """Rows that hold their index; remembers which it was asked for."""

    def __init__(self, stop_before: int | None = None, scale: float = 1.0) -> None:
        self.stop_before, self.scale = stop_before, scale
        self.asked: list[int] = []

    def __call__(self, rows: range) -> dict[str, torch.Tensor]:
        if self.stop_before is not None and rows.stop > self.stop_before:
            raise KeyboardInterrupt
        self.asked += rows
        values = torch.tensor([float(row) for row in rows]) * self.scale
        return {"one": values[:, None].expand(-1, 3), "two": values[:, None, None] + torch.ones(2)}


def read(folder: Path, maker: Maker, count: int = 5, state: str = "a") -> dict[str, np.ndarray]:
    return cached_rows(folder, "things", state, count, maker, batch=2)


def test_rows_come_back_in_half_precision(tmp_path: Path) -> None:
    arrays = read(tmp_path, Maker())
    assert arrays["one"].dtype == np.float16 and arrays["one"].shape == (5, 3)
    assert arrays["one"][:, 1].tolist() == [0, 1, 2, 3, 4]
    assert arrays["two"][4].tolist() == [[5, 5]]
    assert isinstance(arrays["one"], np.memmap)


def test_a_stopped_computation_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, Maker(stop_before=3))
    maker = Maker()
    arrays = read(tmp_path, maker)
    assert maker.asked == [2, 3, 4]
    assert arrays["one"][:, 0].tolist() == [0, 1, 2, 3, 4]
    again = Maker()
    read(tmp_path, again)
    assert again.asked == []


def test_another_fingerprint_or_a_lost_file_begins_anew(tmp_path: Path) -> None:
    read(tmp_path, Maker())
    maker = Maker(scale=2.0)
    assert read(tmp_path, maker, state="b")["one"][4, 0] == 8
    assert maker.asked == [0, 1, 2, 3, 4]
    (tmp_path / "things_two.npy").unlink()
    maker = Maker()
    read(tmp_path, maker, state="b")
    assert maker.asked == [0, 1, 2, 3, 4]


def test_a_new_computation_that_was_stopped_does_not_pass_for_the_old_one(tmp_path: Path) -> None:
    read(tmp_path, Maker())
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, Maker(stop_before=1), state="b")
    maker = Maker()
    read(tmp_path, maker, state="a")
    assert maker.asked == [0, 1, 2, 3, 4]


def test_values_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="things that are not finite or too large"):
        read(tmp_path, Maker(scale=1e6))
    with pytest.raises(ValueError, match="not finite"):
        read(tmp_path, Maker(scale=float("nan")))
