"""Contains a folder of pictures with their captions: written in shards, so that it can be resumed.

``pictures_00000.npy`` holds bytes [picture, height, width, 3]; ``records_00000.json`` one record
per picture. A shard appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ..formats.atomic import atomic_write
from ..progress import Progress, ProgressCallback, ignore_progress

SHARD_SIZE = 250


@dataclass(frozen=True)
class PictureRecord:
    """What is known of one picture.

    Attributes:
        name: unique within the folder; a seed or a file name.
        captions: wordings of one description, at least one.
        tags: facts by name, such as category and hue.
    """

    name: str
    captions: tuple[str, ...]
    tags: dict[str, str] = field(default_factory=dict)


MakePicture = Callable[[int], tuple[np.ndarray, PictureRecord]]
"""index -> (bytes [height, width, 3], record)."""


def write_shards(
    folder: Path,
    count: int,
    make: MakePicture,
    *,
    shard_size: int = SHARD_SIZE,
    on_progress: ProgressCallback = ignore_progress,
) -> None:
    """Make the pictures 0..count-1 of a folder; shards that are there already are kept.

    Args:
        folder: made when missing.
        count: pictures in all.
        make: draws one picture; must depend on its index only.
        shard_size: pictures per file; must not change between runs.
        on_progress: called after each picture; may raise to interrupt.
    """
    if count < 1 or shard_size < 1:
        raise ValueError(f"count and shard_size must be positive, got {count}, {shard_size}.")
    for shard, first in enumerate(range(0, count, shard_size)):
        size = min(shard_size, count - first)
        pictures_file, records_file = _shard_files(folder, shard)
        if records_file.is_file() and _shard_length(pictures_file) >= size:
            continue
        made = []
        for index in range(first, first + size):
            made.append(make(index))
            on_progress(Progress(index + 1, count, f"drew picture {index + 1} of {count}"))
        with atomic_write(pictures_file) as temporary:
            np.save(temporary, np.stack([picture for picture, _ in made]))
        with atomic_write(records_file) as temporary:
            lines = [asdict(record) for _, record in made]
            temporary.write_text(json.dumps(lines), encoding="utf-8")


class PictureShards(Sequence[np.ndarray]):
    """Pictures of a folder, read from disk when asked for.

    Attributes:
        records: one per picture.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        """Open a folder; ``limit`` keeps its first pictures only."""
        files = sorted(Path(folder).glob("pictures_*.npy"))
        if not files:
            raise ValueError(f"{folder} holds no pictures; draw the dataset first.")
        self._pictures = [np.load(path, mmap_mode="r", allow_pickle=False) for path in files]
        self.records = [record for path in files for record in _read_records(path)]
        lengths = [len(pictures) for pictures in self._pictures]
        if sum(lengths) != len(self.records):
            raise ValueError(
                f"{folder} holds {sum(lengths)} pictures but {len(self.records)} records; "
                "remove the shards without records and draw them again."
            )
        self._ends = np.cumsum(lengths)
        if limit is not None:
            self.records = self.records[:limit]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"Picture {index} of {len(self)}.")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        start = 0 if shard == 0 else int(self._ends[shard - 1])
        return np.array(self._pictures[shard][index - start])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))


def _shard_files(folder: Path, shard: int) -> tuple[Path, Path]:
    return folder / f"pictures_{shard:05}.npy", folder / f"records_{shard:05}.json"


def _shard_length(path: Path) -> int:
    return len(np.load(path, mmap_mode="r", allow_pickle=False)) if path.is_file() else 0


def _read_records(pictures_file: Path) -> list[PictureRecord]:
    path = pictures_file.with_name(pictures_file.stem.replace("pictures", "records") + ".json")
    lines = json.loads(path.read_text(encoding="utf-8"))
    return [
        PictureRecord(str(line["name"]), tuple(map(str, line["captions"])), dict(line["tags"]))
        for line in lines
    ]
