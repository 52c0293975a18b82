"""Colour tiles of drawn bundles as single views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lift3d.core.training.bundle_tiles import ColorTiles
from lift3d.core.training.picture_shards import PictureRecord, PictureShards, write_shards


def write_bundles(folder: Path, width: int = 32) -> PictureShards:
    """Two bundles whose every tile has a colour of its own."""

    def make(index: int) -> tuple[np.ndarray, PictureRecord]:
        tiles = 10 * np.arange(8, dtype=np.uint8).reshape(2, 4) + 100 * index
        picture = np.kron(tiles, np.ones((8, width // 4), np.uint8))[..., None].repeat(3, axis=2)
        return picture, PictureRecord(f"mug-{index}", ("a red mug", "red mug"), {"hue": "red"})

    write_shards(folder, 2, make)
    return PictureShards(folder)


def test_tiles_are_the_upper_row_of_every_bundle(tmp_path: Path) -> None:
    tiles = ColorTiles(write_bundles(tmp_path))
    assert [tile.shape for tile in tiles] == 8 * [(8, 8, 3)]
    assert [int(tile[0, 0, 0]) for tile in tiles] == [0, 10, 20, 30, 100, 110, 120, 130]
    assert all((tile == tile[0, 0]).all() for tile in tiles)
    assert [int(tile[0, 0, 0]) for tile in tiles[3:5]] == [30, 100]


def test_tiles_keep_the_captions_and_name_the_side(tmp_path: Path) -> None:
    records = ColorTiles(write_bundles(tmp_path)).records
    assert [record.tags["view"] for record in records[:4]] == ["front", "side", "back", "side"]
    assert {record.captions for record in records} == {("a red mug", "red mug")}
    assert records[5].name == "mug-1-90" and records[5].tags["hue"] == "red"
    assert len({record.name for record in records}) == 8


def test_pictures_that_are_no_bundles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice as wide as high, got 16 x 16"):
        ColorTiles(write_bundles(tmp_path, width=16))
