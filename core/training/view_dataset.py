"""Contains the drawing of training views: procedural objects, each seen once, on any background."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..camera import KISS3DGEN_FOV_Y_DEG, ViewRig, make_orbit_rig
from ..datasets.procedural_objects import CATEGORIES
from ..diffusion.view_prompts import name_view
from ..mesh import Mesh
from ..progress import ProgressCallback, ignore_progress
from ..rendering.mesh import render_mesh
from .bundle_dataset import BundleDatasetParams, draw_training_object
from .picture_shards import PictureRecord, write_shards


@dataclass(frozen=True)
class ViewDatasetParams:
    """Which single views are drawn.

    Attributes:
        count: pictures in all, each of another object.
        categories: kinds of objects.
        seed: first seed of the objects; another dataset takes another range.
        size_px: width and height.
        supersampling: samples per pixel and axis.
        second_hue_share: share of objects with a second named hue.
        hold_out: leave out the pairs of category and hue that measure composition.
        elevation_deg: lowest and highest camera.
        radius: nearest and farthest camera.
        white_share: share of white backgrounds.
        black_share: share of black ones; the rest have a random colour.
    """

    count: int
    categories: tuple[str, ...] = CATEGORIES
    seed: int = 5_000_000
    size_px: int = 64
    supersampling: int = 3
    second_hue_share: float = 0.4
    hold_out: bool = True
    elevation_deg: tuple[float, float] = (-5.0, 35.0)
    radius: tuple[float, float] = (4.3, 4.8)
    white_share: float = 0.6
    black_share: float = 0.15

    def __post_init__(self) -> None:
        if self.white_share < 0 or self.black_share < 0 or self.white_share + self.black_share > 1:
            raise ValueError(
                "Shares of backgrounds must not be negative and sum to at most 1, got "
                f"{self.white_share} and {self.black_share}."
            )


def draw_training_view(index: int, params: ViewDatasetParams) -> tuple[np.ndarray, PictureRecord]:
    """View number ``index`` as bytes [size, size, 3], and its record.

    The captions do not name the view; the tag ``view`` does (front, side or back).
    """
    objects = BundleDatasetParams(
        count=params.count,
        categories=params.categories,
        seed=params.seed,
        second_hue_share=params.second_hue_share,
        hold_out=params.hold_out,
    )
    made = draw_training_object(index, objects)
    rng = np.random.default_rng([params.seed + index, zlib.crc32(b"single view")])
    azimuth = float(rng.uniform(-180, 180))
    elevation = float(rng.uniform(*params.elevation_deg))
    rig = make_orbit_rig(
        [azimuth], elevation, radius=float(rng.uniform(*params.radius)),
        fov_y_deg=KISS3DGEN_FOV_Y_DEG,
    )  # fmt: skip
    picture = _draw(made.mesh, rig, params, _draw_background(params, rng))
    tags = {
        "category": made.category,
        "hue": made.hue,
        "second_hue": made.second_hue or "",
        "shape": made.shape or "",
        "view": name_view(azimuth),
        "azimuth": f"{azimuth:.1f}",
        "elevation": f"{elevation:.1f}",
    }
    record = PictureRecord(f"{made.category}-{made.seed}", made.captions, tags)
    return picture.mul(255).round().byte().numpy(), record


def draw_view_dataset(
    folder: Path, params: ViewDatasetParams, on_progress: ProgressCallback = ignore_progress
) -> None:
    """Draw a whole dataset into a folder; a stopped run goes on where it was."""
    write_shards(
        folder,
        params.count,
        lambda index: draw_training_view(index, params),
        on_progress=on_progress,
    )


def _draw_background(params: ViewDatasetParams, rng: np.random.Generator) -> Tensor:
    draw = float(rng.random())
    if draw < params.white_share:
        return torch.ones(3)
    if draw < params.white_share + params.black_share:
        return torch.zeros(3)
    return torch.from_numpy(rng.random(3)).float()


def _draw(mesh: Mesh, rig: ViewRig, params: ViewDatasetParams, background: Tensor) -> Tensor:
    """One picture [size, size, 3] with smooth silhouettes."""
    size = params.size_px * params.supersampling
    with torch.no_grad():
        drawn = render_mesh(
            mesh, rig, width=size, height=size, background=background, antialias=False
        )
    channels_first = drawn.rgb.permute(0, 3, 1, 2)
    small = torch.nn.functional.avg_pool2d(channels_first, params.supersampling)
    return small[0].permute(1, 2, 0).clamp(0, 1)
