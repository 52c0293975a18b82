"""Contains a folder of pictures with their captions: written in shards, so that it can be resumed.

``pictures_00000.npy`` holds bytes [picture, height, width, 3]; ``records_00000.json`` one record
per picture; ``skipped_00000.json`` what could not be drawn, if anything. The records come last: a
shard with records is complete.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..formats.atomic import atomic_write
from ..progress import Progress, ProgressCallback, ignore_progress

LOGGER = logging.getLogger(__name__)

SHARD_SIZE = 250
MAX_SHARD_BYTES = 2**28


class UnusablePictureError(Exception):
    """A picture that cannot be drawn; the message says why. The folder goes on without it."""


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


@dataclass(frozen=True)
class SkippedPicture:
    """A picture that a folder lacks, and why.

    Attributes:
        index: which one it would have been.
        reason: for people.
    """

    index: int
    reason: str


MakePicture = Callable[[int], tuple[np.ndarray, PictureRecord]]
"""index -> (bytes [height, width, 3], record); may raise `UnusablePictureError`."""


def shard_size_for(picture_bytes: int) -> int:
    """Pictures per file, so that a file of big pictures still fits into memory."""
    return max(1, min(SHARD_SIZE, MAX_SHARD_BYTES // picture_bytes))


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
        if not _is_complete(folder, shard, size):
            _write_shard(folder, shard, range(first, first + size), count, make, on_progress)


def _write_shard(
    folder: Path,
    shard: int,
    indices: range,
    count: int,
    make: MakePicture,
    on_progress: ProgressCallback,
) -> None:
    made: list[tuple[np.ndarray, PictureRecord]] = []
    skipped: list[SkippedPicture] = []
    for index in indices:
        try:
            made.append(make(index))
        except UnusablePictureError as error:
            skipped.append(SkippedPicture(index, str(error)))
            LOGGER.warning("Skipped: %s", error)
        on_progress(Progress(index + 1, count, f"drew picture {index + 1} of {count}"))
    pictures = [picture for picture, _ in made]
    for kind in ("records", "skipped"):  # of an earlier, shorter shard
        _shard_file(folder, kind, shard).unlink(missing_ok=True)
    with atomic_write(_shard_file(folder, "pictures", shard)) as temporary:
        np.save(temporary, np.stack(pictures) if pictures else np.zeros((0, 0, 0, 3), np.uint8))
    if skipped:
        _write_json(_shard_file(folder, "skipped", shard), skipped)
    _write_json(_shard_file(folder, "records", shard), [record for _, record in made])


def read_skipped(folder: Path) -> list[SkippedPicture]:
    """What a folder lacks, in order."""
    files = sorted(Path(folder).glob("skipped_*.json"))
    return [SkippedPicture(int(s["index"]), str(s["reason"])) for f in files for s in _read_json(f)]


def discard_shards(folder: Path, is_stale: Callable[[SkippedPicture, float], bool]) -> None:
    """Mark shards as incomplete where a skipped picture may be drawable by now.

    Args:
        folder: of the shards.
        is_stale: (skipped picture, time of its report in seconds of the epoch) -> draw again.
    """
    for path in sorted(Path(folder).glob("skipped_*.json")):
        time = path.stat().st_mtime
        skipped = [SkippedPicture(int(s["index"]), str(s["reason"])) for s in _read_json(path)]
        if any(is_stale(item, time) for item in skipped):
            path.with_name(path.name.replace("skipped", "records")).unlink(missing_ok=True)


def update_records(folder: Path, change: Callable[[PictureRecord], PictureRecord]) -> None:
    """Change what is known of pictures without drawing them again."""
    for path in sorted(Path(folder).glob("records_*.json")):
        old = _parse_records(path)
        new = [change(record) for record in old]
        if new != old:
            _write_json(path, new)


class PictureShards(Sequence[np.ndarray]):
    """Pictures of a folder, read from disk when asked for.

    Attributes:
        records: one per picture.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        """Open a folder; ``limit`` keeps its first pictures only."""
        files = sorted(Path(folder).glob("pictures_*.npy"))
        files = [path for path in files if _records_file(path).is_file() and _num_pictures(path)]
        if not files:
            raise ValueError(f"{folder} holds no pictures; draw the dataset first.")
        self._pictures = [np.load(path, mmap_mode="r", allow_pickle=False) for path in files]
        self.records = [r for path in files for r in _parse_records(_records_file(path))]
        lengths = [len(pictures) for pictures in self._pictures]
        if sum(lengths) != len(self.records):
            raise ValueError(
                f"{folder} holds {sum(lengths)} pictures but {len(self.records)} records; "
                "remove the shards without records and draw them again."
            )
        shapes = sorted({pictures.shape[1:] for pictures in self._pictures})
        if len(shapes) > 1:
            raise ValueError(f"{folder} holds pictures of different sizes: {shapes}.")
        self._ends = np.cumsum(lengths)
        if limit is not None:
            self.records = self.records[:limit]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        return np.array(self.mapped(index))

    def mapped(self, index: int) -> np.ndarray:
        """The picture as it lies on disk; only the parts that are looked at are read."""
        if not 0 <= index < len(self):
            raise IndexError(f"Picture {index} of {len(self)}.")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        start = 0 if shard == 0 else int(self._ends[shard - 1])
        return self._pictures[shard][index - start]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))


class JoinedPictures(Sequence[np.ndarray]):
    """The pictures of several folders one after the other; they have one size."""

    def __init__(self, parts: Sequence[Sequence[np.ndarray]]) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"Picture {index} of {len(self)}.")
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part][index - (int(self._ends[part - 1]) if part else 0)]


def _shard_file(folder: Path, kind: str, shard: int) -> Path:
    return Path(folder) / f"{kind}_{shard:05}{'.npy' if kind == 'pictures' else '.json'}"


def _is_complete(folder: Path, shard: int, size: int) -> bool:
    pictures, records = (_shard_file(folder, kind, shard) for kind in ("pictures", "records"))
    if not (records.is_file() and pictures.is_file()):
        return False
    skipped = _shard_file(folder, "skipped", shard)
    num_skipped = len(_read_json(skipped)) if skipped.is_file() else 0
    return _num_pictures(pictures) + num_skipped >= size


def _num_pictures(path: Path) -> int:
    return len(np.load(path, mmap_mode="r", allow_pickle=False))


def _write_json(path: Path, items: Sequence[PictureRecord | SkippedPicture]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps([asdict(item) for item in items]), encoding="utf-8")


def _read_json(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8")))


def _parse_records(path: Path) -> list[PictureRecord]:
    return [
        PictureRecord(str(line["name"]), tuple(map(str, line["captions"])), dict(line["tags"]))
        for line in _read_json(path)
    ]


def _records_file(pictures_file: Path) -> Path:
    return pictures_file.with_name(pictures_file.stem.replace("pictures", "records") + ".json")
