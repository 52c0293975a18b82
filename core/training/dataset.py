"""Contains the datasets that a configuration can name: one folder of bundles with captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..progress import ProgressCallback, ignore_progress
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
    """

    folder: Path
    assets: AssetDatasetParams | None = None
    procedural: BundleDatasetParams | None = None
    limit: int | None = None

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
    open_dataset(params, on_progress)
    return sorted(path for path in params.folder.iterdir() if path.is_file())
