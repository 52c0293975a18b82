"""Contains the drawing of training bundles from a folder of meshes with captions.

The list of files is kept in ``assets.json`` beside the shards: files that are added to the folder
later are drawn behind the others, so that a stopped or grown dataset goes on where it was.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..bundle_image import BUNDLE_COLUMNS, BundleImage, join_bundle
from ..formats.atomic import atomic_write
from ..formats.mesh_files import MESH_SUFFIXES, read_mesh
from ..mesh import Mesh
from ..pipelines.merge_parts import merge_parts
from ..pipelines.mesh_to_bundle import render_bundle
from ..progress import ProgressCallback, ignore_progress
from .asset_captions import CaptionSources, read_caption_table, sidecar_file
from .captioner import CaptionerParams, load_captioner
from .picture_shards import (
    PictureRecord,
    UnusablePictureError,
    discard_shards,
    read_skipped,
    shard_size_for,
    update_records,
    write_shards,
)

LOGGER = logging.getLogger(__name__)

LIST_FILE = "assets.json"
REPORT_FILE = "skipped.txt"
UP_AXES: dict[str, tuple[tuple[float, ...], ...]] = {
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
}


@dataclass(frozen=True)
class AssetDatasetParams:
    """Which meshes are drawn, and how.

    Attributes:
        folder: of the meshes, folders in it included; fronts must look to +Z (after `up_axis`).
        captions: CSV with the columns ``file`` and ``caption``.
        captioner: image-to-text model for meshes without a caption of their own.
        tile_px: side of a tile; 512 is the published size.
        supersampling: samples per pixel and axis.
        shading: colours as they are, or lit from the camera.
        up_axis: "y" as in glTF, or "z": then -Y is the front.
    """

    folder: Path
    captions: Path | None = None
    captioner: CaptionerParams | None = None
    tile_px: int = 512
    supersampling: int = 2
    shading: Literal["flat_color", "headlight"] = "flat_color"
    up_axis: Literal["y", "z"] = "y"


def draw_asset_dataset(
    folder: Path, params: AssetDatasetParams, on_progress: ProgressCallback = ignore_progress
) -> None:
    """Draw the bundles of a folder of meshes; a stopped run goes on where it was.

    Files that cannot be used are left out and listed with the reason in ``skipped.txt``; they are
    tried again once they have changed. Captions that people write may be edited at any time.

    Args:
        folder: of the dataset.
        params: meshes and settings.
        on_progress: called after each mesh.

    Raises:
        FileNotFoundError: no such folder of meshes, table or captioner.
        ValueError: no mesh in the folder, none usable, or a dataset of other settings is there.
    """
    names = _list_assets(folder, params)
    table = {} if params.captions is None else read_caption_table(params.captions)
    captioner = None if params.captioner is None else load_captioner(params.captioner)
    sources = CaptionSources(table, captioner)
    discard_shards(folder, lambda item, time: _has_changed(names[item.index], params, time))
    picture_bytes = 2 * BUNDLE_COLUMNS * 3 * params.tile_px**2
    write_shards(
        folder,
        len(names),
        lambda index: draw_asset(names[index], params, sources),
        shard_size=shard_size_for(picture_bytes),
        on_progress=on_progress,
    )
    update_records(folder, lambda record: _with_written_captions(record, params, sources))
    skipped = [item.reason for item in read_skipped(folder)]
    with atomic_write(folder / REPORT_FILE) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in skipped), encoding="utf-8")
    if len(skipped) == len(names):
        raise ValueError(
            f"None of the {len(names)} meshes in {params.folder} could be used; the first: "
            f"{skipped[0]} All reasons are in {folder / REPORT_FILE}."
        )


def draw_asset(
    name: str, params: AssetDatasetParams, sources: CaptionSources
) -> tuple[np.ndarray, PictureRecord]:
    """Bundle of one file as bytes [2 tiles, 4 tiles, 3], and its record.

    Raises:
        UnusablePictureError: the mesh is damaged or empty, or has no caption.
    """
    try:
        mesh = read_asset(params.folder / name, params.up_axis)
        bundle, _, _ = render_bundle(
            mesh,
            tile_px=params.tile_px,
            shading=params.shading,
            supersampling=params.supersampling,
        )
        captions = sources.find(params.folder, name, bundle.rgb_views[0])
    except (ValueError, OSError) as error:
        raise UnusablePictureError(f"{name}: {error}") from error
    return bundle_bytes(bundle), PictureRecord(name, captions)


def _with_written_captions(
    record: PictureRecord, params: AssetDatasetParams, sources: CaptionSources
) -> PictureRecord:
    """Captions that were edited after the picture was drawn count at once."""
    try:
        written = sources.written(params.folder, record.name)
    except ValueError as error:
        LOGGER.warning("%s keeps its old caption: %s", record.name, error)
        return record
    return replace(record, captions=written or record.captions)


def _has_changed(name: str, params: AssetDatasetParams, time: float) -> bool:
    """Whether what is needed to draw a file is newer than ``time``."""
    files = [params.folder / name, sidecar_file(params.folder, name), params.captions]
    return any(path.stat().st_mtime > time for path in files if path is not None and path.is_file())


def bundle_bytes(bundle: BundleImage) -> np.ndarray:
    """A bundle as bytes [2 tiles, 4 tiles, 3]."""
    return join_bundle(bundle).mul(255).round().byte().cpu().numpy()


def read_asset(path: Path, up_axis: str) -> Mesh:
    """All parts of a mesh file as one mesh with +Y up; empty if there are none."""
    mesh = merge_parts([part for part in read_mesh(path) if not part.is_empty] or [_empty()])
    if up_axis == "y":
        return mesh
    turn = torch.tensor(UP_AXES[up_axis], dtype=mesh.vertices.dtype)
    normals = mesh.vertex_normals
    return replace(
        mesh,
        vertices=mesh.vertices @ turn.T,
        vertex_normals=None if normals is None else normals @ turn.T,
    )


def _empty() -> Mesh:
    return Mesh(vertices=torch.zeros(0, 3), faces=torch.zeros(0, 3, dtype=torch.int64))


def _list_assets(folder: Path, params: AssetDatasetParams) -> list[str]:
    """Names of all files, those of an earlier run first; written down beside the shards."""
    if not params.folder.is_dir():
        raise FileNotFoundError(f"{params.folder} is no folder; name the folder of your meshes.")
    found = sorted(
        path.relative_to(params.folder).as_posix()
        for path in params.folder.rglob("*")
        if path.suffix.lower() in MESH_SUFFIXES
    )
    if not found:
        raise ValueError(f"{params.folder} holds no mesh ({', '.join(MESH_SUFFIXES)}).")
    settings = {
        name: getattr(params, name) for name in ("tile_px", "supersampling", "shading", "up_axis")
    }
    known = _known_assets(folder, settings)
    names = [*known, *sorted(set(found) - set(known))]
    with atomic_write(folder / LIST_FILE) as temporary:
        content = {"settings": settings, "files": names}
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return names


def _known_assets(folder: Path, settings: dict[str, Any]) -> Sequence[str]:
    path = folder / LIST_FILE
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["settings"] != settings:
        raise ValueError(
            f"{folder} was drawn with {content['settings']}, now {settings} are asked for; name "
            "another folder or remove that one."
        )
    return [str(name) for name in content["files"]]
