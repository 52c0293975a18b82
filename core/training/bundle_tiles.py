"""Contains the colour tiles of drawn bundles as single views: four more per object, drawn once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..camera import KISS3DGEN_AZIMUTHS_DEG, KISS3DGEN_ELEVATION_DEG
from ..diffusion.view_prompts import name_view
from .picture_shards import PictureRecord, PictureShards

NUM_COLUMNS = len(KISS3DGEN_AZIMUTHS_DEG)


class ColorTiles(Sequence[np.ndarray]):
    """Tiles of the upper rows, bundle by bundle: front, left, rear and right of each object.

    Args:
        bundles: pictures [2 size, 4 size, 3] as `bundle_dataset.draw_bundle_dataset` writes them.

    Attributes:
        records: the captions of each tile's bundle; the tag ``view`` names the side.

    Raises:
        ValueError: pictures that do not split into two rows of four square tiles.
    """

    def __init__(self, bundles: PictureShards) -> None:
        height, width = bundles[0].shape[:2]
        if height % 2 or width != NUM_COLUMNS * (height // 2):
            raise ValueError(f"Bundles are twice as wide as high, got {width} x {height} pixels.")
        self._bundles = bundles
        self._size = height // 2
        self.records = [tile for record in bundles.records for tile in name_tiles(record)]

    def __len__(self) -> int:
        return NUM_COLUMNS * len(self._bundles)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Bytes [size, size, 3]; a slice gives a list."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        bundle, column = divmod(int(index), NUM_COLUMNS)
        first = column * self._size
        return self._bundles[bundle][: self._size, first : first + self._size]


def name_tiles(record: PictureRecord) -> list[PictureRecord]:
    """Records of the four colour tiles of a bundle."""
    return [
        PictureRecord(
            f"{record.name}-{azimuth:.0f}",
            record.captions,
            {
                **record.tags,
                "view": name_view(azimuth),
                "azimuth": f"{azimuth:.1f}",
                "elevation": f"{KISS3DGEN_ELEVATION_DEG:.1f}",
            },
        )
        for azimuth in KISS3DGEN_AZIMUTHS_DEG
    ]
