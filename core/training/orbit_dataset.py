"""Contains the drawing of orbits for training: procedural objects, or a folder of meshes.

Reference: Tao et al. 2025, "GSV3D", Sec. 4.1: 84 views at even azimuths, one elevation per object
between -5 and 30 degrees, colours and depths.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..camera import KISS3DGEN_FOV_Y_DEG, KISS3DGEN_RADIUS, ViewRig, make_orbit_rig
from ..datasets.procedural_objects import CATEGORIES
from ..formats.mesh_files import MESH_SUFFIXES
from ..mesh import Mesh
from ..pipelines.mesh_to_bundle import BUNDLE_LONGEST_SIDE
from ..progress import ProgressCallback, ignore_progress
from ..rendering.mesh import render_mesh
from .asset_dataset import read_asset
from .bundle_dataset import BundleDatasetParams, draw_training_object
from .orbit_sheets import (
    OrbitFolderFacts,
    OrbitViews,
    TrainingOrbits,
    pack_views,
    write_facts,
    write_poses,
)
from .picture_shards import PictureRecord, UnusablePictureError, shard_size_for, write_shards

LOGGER = logging.getLogger(__name__)
VIEWS_AT_A_TIME = 8
SOLID = 0.5


@dataclass(frozen=True)
class OrbitAssets:
    """A folder of meshes.

    Attributes:
        folder: searched with the folders in it.
        up_axis: "y" as in glTF, or "z".
    """

    folder: Path
    up_axis: Literal["y", "z"] = "y"


@dataclass(frozen=True)
class OrbitDatasetParams:
    """Which orbits are drawn, and where they are kept.

    Attributes:
        folder: of the dataset.
        count: procedural objects; with ``assets`` the first so many meshes, 0 for all.
        assets: meshes to draw instead of procedural objects.
        categories: kinds of procedural objects.
        seed: first seed of the objects; another dataset takes another range.
        num_views: of the orbit.
        num_free_views: further views from any height, for supervision only.
        size_px: side of a view.
        supersampling: samples per pixel and axis.
        elevation_deg: lowest and highest orbit.
        free_elevation_deg: lowest and highest free view.
        any_front: the orbit begins at any azimuth; else at the object's front.
        radius: distance of the cameras; objects have a longest side of 1.8.
        fov_y_deg: vertical field of view.
        hold_out: leave out the pairs of category and hue that measure composition.
        draw: draw what is missing; else the folder must be complete.
    """

    folder: Path
    count: int = 0
    assets: OrbitAssets | None = None
    categories: tuple[str, ...] = CATEGORIES
    seed: int = 8_000_000
    num_views: int = 84
    num_free_views: int = 0
    size_px: int = 512
    supersampling: int = 2
    elevation_deg: tuple[float, float] = (-5.0, 30.0)
    free_elevation_deg: tuple[float, float] = (-30.0, 70.0)
    any_front: bool = True
    radius: float = KISS3DGEN_RADIUS
    fov_y_deg: float = KISS3DGEN_FOV_Y_DEG
    hold_out: bool = True
    draw: bool = True

    def __post_init__(self) -> None:
        if self.num_views < 2 or self.num_free_views < 0 or self.count < 0:
            raise ValueError(
                "num_views must be at least 2, num_free_views and count not negative, got "
                f"{self.num_views}, {self.num_free_views} and {self.count}."
            )
        if self.count == 0 and self.assets is None:
            raise ValueError("name the number of procedural objects in 'count', or 'assets'.")
        for low, high in (self.elevation_deg, self.free_elevation_deg):
            if not -90 <= low <= high <= 90:
                raise ValueError(f"elevations must rise within -90..90, got {low}, {high}.")

    def facts(self) -> OrbitFolderFacts:
        """What holds for all objects."""
        return OrbitFolderFacts(
            self.num_views, self.num_free_views, self.size_px, self.radius, self.fov_y_deg,
            self.elevation_deg,
        )  # fmt: skip


def open_orbits(
    params: OrbitDatasetParams, on_progress: ProgressCallback = ignore_progress
) -> TrainingOrbits:
    """Draw what is missing of a dataset, and open it; a stopped run goes on where it was.

    Raises:
        FileNotFoundError: no such folder of meshes.
        ValueError: it holds no meshes, none is usable, or the dataset has other settings.
    """
    if params.draw:
        files = [] if params.assets is None else _mesh_files(params.assets)
        count = min(params.count or len(files), len(files)) if files else params.count
        params.folder.mkdir(parents=True, exist_ok=True)
        write_facts(params.folder, params.facts())
        sheet_bytes = (params.num_views + params.num_free_views) * 6 * params.size_px**2
        write_shards(
            params.folder,
            count,
            lambda index: draw_orbit(index, params, files),
            shard_size=min(shard_size_for(sheet_bytes), max(count // 4, 1)),
            on_progress=on_progress,
        )
    return TrainingOrbits(params.folder, params.count or None)


def draw_orbit(
    index: int, params: OrbitDatasetParams, files: list[Path]
) -> tuple[np.ndarray, PictureRecord]:
    """Sheet of object number ``index``, and its record.

    Raises:
        UnusablePictureError: a mesh file cannot be used.
    """
    mesh, name, tags = _object(index, params, files)
    rng = np.random.default_rng([params.seed + index, zlib.crc32(b"orbit")])
    first = float(rng.uniform(0, 360)) if params.any_front else 0.0
    height = float(rng.uniform(*params.elevation_deg))
    azimuths = [(first + 360 * i / params.num_views) % 360 for i in range(params.num_views)]
    azimuths += rng.uniform(0, 360, params.num_free_views).tolist()
    elevations = [height] * params.num_views
    elevations += rng.uniform(*params.free_elevation_deg, params.num_free_views).tolist()
    rig = make_orbit_rig(azimuths, elevations, radius=params.radius, fov_y_deg=params.fov_y_deg)
    views = draw_views(mesh, rig, params.size_px, params.supersampling)
    record = PictureRecord(name, (name,), {**tags, **write_poses(azimuths, elevations)})
    return pack_views(views, params.radius), record


@torch.no_grad()
def draw_views(mesh: Mesh, rig: ViewRig, size_px: int, supersampling: int) -> OrbitViews:
    """Colours, coverage and depth with smooth silhouettes.

    The depth of a pixel is the mean over the samples that hit the object; pixels that are covered
    by less than one half have none.
    """
    parts = []
    for first in range(0, len(rig), VIEWS_AT_A_TIME):
        some = rig.select(range(first, min(first + VIEWS_AT_A_TIME, len(rig))))
        side = size_px * supersampling
        drawn = render_mesh(mesh, some, width=side, height=side, antialias=False)
        covered = (drawn.face_index >= 0).to(drawn.rgb)
        layers = torch.cat(
            [drawn.rgb, covered[..., None], (drawn.depth * covered)[..., None]], dim=-1
        )
        parts.append(functional.avg_pool2d(layers.permute(0, 3, 1, 2), supersampling))
    small: Tensor = torch.cat(parts).permute(0, 2, 3, 1)
    alpha = small[..., 3]
    depth = torch.where(alpha >= SOLID, small[..., 4] / alpha.clamp(min=SOLID), 0.0)
    return OrbitViews(small[..., :3].clamp(0, 1), alpha, depth)


def _object(
    index: int, params: OrbitDatasetParams, files: list[Path]
) -> tuple[Mesh, str, dict[str, str]]:
    if not files:
        objects = BundleDatasetParams(
            count=params.count,
            categories=params.categories,
            seed=params.seed,
            hold_out=params.hold_out,
        )
        made = draw_training_object(index, objects)
        tags = {"category": made.category, "hue": made.hue}
        return made.mesh, f"{made.category}-{made.seed}", tags
    assert params.assets is not None
    path = files[index]
    try:
        mesh = read_asset(path, params.assets.up_axis)
    except (ValueError, OSError) as error:
        raise UnusablePictureError(f"{path.name}: {error}") from error
    if mesh.is_empty:
        raise UnusablePictureError(f"{path.name} holds no faces.")
    return mesh.normalized(BUNDLE_LONGEST_SIDE), path.name, {}


def _mesh_files(assets: OrbitAssets) -> list[Path]:
    if not assets.folder.is_dir():
        raise FileNotFoundError(f"{assets.folder} is no folder; name the folder of your meshes.")
    found = sorted(
        path for path in assets.folder.rglob("*") if path.suffix.lower() in MESH_SUFFIXES
    )
    if not found:
        raise ValueError(f"{assets.folder} holds no mesh ({', '.join(MESH_SUFFIXES)}).")
    return found
