"""Contains the drawing of training bundles: procedural objects as bundle images with captions."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bundle_image import join_bundle
from ..camera import ViewRig
from ..datasets.captions import SHAPE_WORDS
from ..datasets.materials import HUES
from ..datasets.procedural_objects import (
    CATEGORIES,
    SHAPE_SHARE,
    ProceduralObject,
    make_object,
)
from ..pipelines.mesh_to_bundle import render_bundle
from ..pipelines.render_views import make_bundle_rig, make_named_rig
from ..progress import ProgressCallback, ignore_progress
from .picture_shards import PictureRecord, write_shards

HELD_OUT_STEPS = (1, 5)


@dataclass(frozen=True)
class BundleDatasetParams:
    """Which procedural bundles are drawn.

    Attributes:
        count: bundles in all.
        categories: kinds of objects.
        seed: first seed of the objects; another dataset takes another range.
        tile_px: side of a tile.
        supersampling: samples per pixel and axis.
        second_hue_share: share of objects with a second named hue.
        hold_out: leave out the pairs of `held_out_pairs`, which measure composition.
        free_views: draw from random azimuths and elevations instead of the published four.
    """

    count: int
    categories: tuple[str, ...] = CATEGORIES
    seed: int = 1_000_000
    tile_px: int = 64
    supersampling: int = 3
    second_hue_share: float = 0.55
    hold_out: bool = True
    free_views: bool = False


def held_out_pairs(categories: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(category, hue) pairs that training never shows: two hues of every category."""
    return tuple(
        (category, HUES[(2 * index + step) % len(HUES)])
        for index, category in enumerate(categories)
        for step in HELD_OUT_STEPS
    )


def draw_training_object(index: int, params: BundleDatasetParams) -> ProceduralObject:
    """Object number ``index`` of a dataset."""
    seed = params.seed + index
    rng = np.random.default_rng([seed, zlib.crc32(b"bundle dataset")])
    category = params.categories[int(rng.integers(len(params.categories)))]
    banned = {hue for kind, hue in held_out_pairs(params.categories) if kind == category}
    allowed = [hue for hue in HUES if not (params.hold_out and hue in banned)]
    hue = allowed[int(rng.integers(len(allowed)))]
    others = [name for name in HUES if name != hue]
    second = others[int(rng.integers(len(others)))]
    has_second = rng.random() < params.second_hue_share
    draw = rng.random()
    shape = SHAPE_WORDS[int(draw / SHAPE_SHARE)] if draw < 2 * SHAPE_SHARE else None
    return make_object(
        category, seed, hue=hue, second_hue=second if has_second else None, shape=shape
    )


def draw_training_bundle(
    index: int, params: BundleDatasetParams
) -> tuple[np.ndarray, PictureRecord]:
    """Bundle number ``index`` as bytes [2 tiles, 4 tiles, 3], and its record."""
    made = draw_training_object(index, params)
    rig = _free_rig(params.seed + index) if params.free_views else make_bundle_rig(4)
    bundle, _, _ = render_bundle(
        made.mesh,
        tile_px=params.tile_px,
        rig=rig,
        normalize=False,
        supersampling=params.supersampling,
    )
    pixels = join_bundle(bundle).mul(255).round().byte().numpy()
    tags = {
        "category": made.category,
        "hue": made.hue,
        "second_hue": made.second_hue or "",
        "shape": made.shape or "",
    }
    return pixels, PictureRecord(f"{made.category}-{made.seed}", made.captions, tags)


def draw_bundle_dataset(
    folder: Path,
    params: BundleDatasetParams,
    on_progress: ProgressCallback = ignore_progress,
) -> None:
    """Draw a whole dataset into a folder; a stopped run goes on where it was."""
    write_shards(
        folder,
        params.count,
        lambda index: draw_training_bundle(index, params),
        on_progress=on_progress,
    )


def _free_rig(seed: int) -> ViewRig:
    rng = np.random.default_rng([seed, zlib.crc32(b"free views")])
    return make_named_rig(
        "orbit",
        num_views=4,
        first_azimuth_deg=float(rng.uniform(0, 360)),
        elevation_deg=float(rng.uniform(-15, 45)),
        radius=float(rng.uniform(4.3, 5.2)),
    )
