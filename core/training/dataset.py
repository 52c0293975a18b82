"""Contains the datasets that a configuration can name: one folder of bundles with captions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from ..formats.atomic import atomic_write
from ..formats.png import write_png
from ..pipelines.bundle_prompt import BundlePrompt
from ..progress import Progress, ProgressCallback, ignore_progress
from .asset_dataset import AssetDatasetParams, draw_asset_dataset
from .bundle_dataset import BundleDatasetParams, draw_bundle_dataset
from .picture_shards import PictureShards


@dataclass(frozen=True)
class DatasetParams:
    """A folder of bundles, and what to draw into it first.

    Attributes:
        folder: of the dataset.
        assets: draw a folder of meshes.
        procedural: draw objects of the built-in generator.
        limit: use the first pictures only; None for all.
        export: folder for the same pictures as PNG with their captions as TXT, to look at and for
            other trainers.
    """

    folder: Path
    assets: AssetDatasetParams | None = None
    procedural: BundleDatasetParams | None = None
    limit: int | None = None
    export: Path | None = None

    def __post_init__(self) -> None:
        if self.assets is not None and self.procedural is not None:
            raise ValueError("name either 'assets' or 'procedural', not both.")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}.")


def open_dataset(
    params: DatasetParams, on_progress: ProgressCallback = ignore_progress
) -> PictureShards:
    """Draw what is missing of a dataset, and open it.

    Raises:
        ValueError: the folder is empty and nothing was to be drawn; see also the two drawers.
    """
    if params.assets is not None:
        draw_asset_dataset(params.folder, params.assets, on_progress)
    if params.procedural is not None:
        draw_bundle_dataset(params.folder, params.procedural, on_progress)
    return PictureShards(params.folder, params.limit)


def draw_dataset(params: DatasetParams, on_progress: ProgressCallback) -> list[Path]:
    """The trainer ``bundle-dataset``: draw only, and name the files."""
    if params.assets is None and params.procedural is None:
        raise ValueError("name 'assets' (a folder of meshes) or 'procedural' to draw something.")
    pictures = open_dataset(params, on_progress)
    files = sorted(path for path in params.folder.iterdir() if path.is_file())
    if params.export is not None:
        files += export_pictures(pictures, params.export, on_progress)
    return files


def export_pictures(
    pictures: PictureShards, folder: Path, on_progress: ProgressCallback = ignore_progress
) -> list[Path]:
    """Write ``00000_name.png`` with ``00000_name.txt``: what other LoRA trainers read.

    The text is the bundle prefix with the first caption; see `bundle_prompt` for which encoder
    gets which part.
    """
    files = []
    for index, record in enumerate(pictures.records):
        name = re.sub(r"[^A-Za-z0-9-]+", "_", PurePosixPath(record.name).stem)[:60]
        picture = folder / f"{index:05}_{name}.png"
        write_png(picture, torch.from_numpy(pictures[index]).float() / 255)
        text = picture.with_suffix(".txt")
        with atomic_write(text) as temporary:
            prompt = BundlePrompt(record.captions[0])
            temporary.write_text(prompt.full_text + "\n", encoding="utf-8")
        files += [picture, text]
        on_progress(Progress(index + 1, len(pictures), f"wrote {picture.name}"))
    return files
