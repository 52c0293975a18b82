"""Folders of pictures: resuming, skipping, and shards that are whole or not there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lift3d.core.training.picture_shards import (
    PictureRecord,
    PictureShards,
    UnusablePictureError,
    discard_shards,
    read_skipped,
    shard_size_for,
    update_records,
    write_shards,
)


class Painter:
    """Pictures whose pixels are their index; remembers what it was asked for."""

    def __init__(self, bad: tuple[int, ...] = (), stop_before: int | None = None) -> None:
        self.bad, self.stop_before = bad, stop_before
        self.asked: list[int] = []

    def __call__(self, index: int) -> tuple[np.ndarray, PictureRecord]:
        if index == self.stop_before:
            raise KeyboardInterrupt
        self.asked.append(index)
        if index in self.bad:
            raise UnusablePictureError(f"number {index} is broken")
        picture = np.full((2, 4, 3), index, np.uint8)
        return picture, PictureRecord(f"p{index}", (f"caption {index}",), {"half": str(index // 2)})


def values(folder: Path) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in PictureShards(folder)]


def test_pictures_and_records_come_back_as_they_were(tmp_path: Path) -> None:
    write_shards(tmp_path, 5, Painter(), shard_size=2)
    shards = PictureShards(tmp_path)
    assert values(tmp_path) == [0, 1, 2, 3, 4]
    assert shards.records[3] == PictureRecord("p3", ("caption 3",), {"half": "1"})
    assert len(PictureShards(tmp_path, limit=3)) == 3
    with pytest.raises(IndexError):
        shards[5]


def test_a_stopped_run_draws_only_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, 6, Painter(stop_before=3), shard_size=2)
    assert values(tmp_path) == [0, 1]
    painter = Painter()
    write_shards(tmp_path, 6, painter, shard_size=2)
    assert painter.asked == [2, 3, 4, 5]
    assert values(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_bad_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    write_shards(tmp_path, 6, Painter(bad=(1, 4, 5)), shard_size=2)
    assert values(tmp_path) == [0, 2, 3]
    assert [(item.index, item.reason) for item in read_skipped(tmp_path)] == [
        (1, "number 1 is broken"), (4, "number 4 is broken"), (5, "number 5 is broken"),
    ]  # fmt: skip
    painter = Painter()
    write_shards(tmp_path, 6, painter, shard_size=2)
    assert painter.asked == []


def test_a_shard_with_a_repaired_picture_is_drawn_again(tmp_path: Path) -> None:
    write_shards(tmp_path, 6, Painter(bad=(1, 4)), shard_size=2)
    discard_shards(tmp_path, lambda item, time: item.index == 4)
    painter = Painter(bad=(1,))
    write_shards(tmp_path, 6, painter, shard_size=2)
    assert painter.asked == [4, 5]
    assert values(tmp_path) == [0, 2, 3, 4, 5]
    assert [item.index for item in read_skipped(tmp_path)] == [1]


def test_a_grown_dataset_draws_its_last_shard_again_and_goes_on(tmp_path: Path) -> None:
    write_shards(tmp_path, 3, Painter(), shard_size=2)
    painter = Painter()
    write_shards(tmp_path, 5, painter, shard_size=2)
    assert painter.asked == [2, 3, 4]
    assert values(tmp_path) == [0, 1, 2, 3, 4]


def test_pictures_whose_records_were_not_written_do_not_count(tmp_path: Path) -> None:
    write_shards(tmp_path, 4, Painter(), shard_size=2)
    os.remove(tmp_path / "records_00001.json")
    assert values(tmp_path) == [0, 1]
    painter = Painter()
    write_shards(tmp_path, 4, painter, shard_size=2)
    assert painter.asked == [2, 3]


def test_records_change_without_drawing(tmp_path: Path) -> None:
    write_shards(tmp_path, 3, Painter(), shard_size=2)
    update_records(tmp_path, lambda record: replace(record, captions=(record.name, "b")))
    assert [record.captions for record in PictureShards(tmp_path).records] == [
        ("p0", "b"), ("p1", "b"), ("p2", "b"),
    ]  # fmt: skip


def test_shards_of_big_pictures_hold_few(tmp_path: Path) -> None:
    assert shard_size_for(2 * 4 * 64 * 64 * 3) == 250
    assert shard_size_for(2048 * 1024 * 3) == 42
    assert shard_size_for(2**40) == 1


def test_an_empty_folder_and_mixed_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no pictures"):
        PictureShards(tmp_path)
    with pytest.raises(ValueError, match="must be positive"):
        write_shards(tmp_path, 0, Painter())
    write_shards(tmp_path, 2, Painter(), shard_size=1)
    np.save(tmp_path / "pictures_00001.npy", np.zeros((1, 4, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="different sizes"):
        PictureShards(tmp_path)
