"""Contains the training pictures of an object from all round: colours, coverage and depth.

The views of one object are one picture of bytes, a *sheet*: a row of tiles per view, colours on
white at the left, and at the right coverage (first channel) and depth in 16 bits (second channel
high, third low; 0 is background). So they are kept in the shards of all other datasets.

The first views are a regular orbit at one elevation; free views, if there are any, follow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig, make_orbit_rig
from ..diffusion.diffusers_files import read_json
from ..diffusion.orbit_conditioning import OrbitPoses
from ..formats.atomic import atomic_write
from .picture_shards import PictureRecord, PictureShards

FACTS_FILE = "orbits.json"
DEPTH_REACH = 1.75
"""Depths are kept within this distance of the orbit's centre."""
DEPTH_STEPS = 65_534


@dataclass(frozen=True)
class OrbitViews:
    """Pictures of an object.

    Attributes:
        rgb: colours 0..1 on white.
        alpha: coverage 0..1.
        depth: along the viewing direction; 0 on the background.
    """

    rgb: Float[Tensor, "view height width 3"]
    alpha: Float[Tensor, "view height width"]
    depth: Float[Tensor, "view height width"]


@dataclass(frozen=True)
class OrbitFolderFacts:
    """What holds for all objects of a folder.

    Attributes:
        num_views: of the regular orbit of an object.
        num_free_views: further views from any height.
        size_px: side of a view.
        radius: distance of the cameras.
        fov_y_deg: their vertical field of view.
        elevation_deg: lowest and highest orbit.
    """

    num_views: int
    num_free_views: int
    size_px: int
    radius: float
    fov_y_deg: float
    elevation_deg: tuple[float, float]


def pack_views(views: OrbitViews, radius: float) -> np.ndarray:
    """Sheet of bytes [view * height, 2 * width, 3]."""
    depth = (views.depth - radius + DEPTH_REACH) / (2 * DEPTH_REACH)
    code = (depth.clamp(0, 1) * DEPTH_STEPS).round() + 1
    code = torch.where(views.depth > 0, code, torch.zeros_like(code)).long()
    coverage = (views.alpha * 255).round().long()
    right = torch.stack([coverage, code // 256, code % 256], dim=-1).byte()
    left = (views.rgb.clamp(0, 1) * 255).round().byte()
    return torch.cat([left, right], dim=2).flatten(0, 1).cpu().numpy()


def unpack_views(tiles: np.ndarray, radius: float) -> OrbitViews:
    """Views of tiles [view, height, 2 * width, 3] of a sheet."""
    values = torch.from_numpy(np.ascontiguousarray(tiles))
    left, right = values.chunk(2, dim=2)
    code = right[..., 1].float() * 256 + right[..., 2].float()
    depth = (code - 1) / DEPTH_STEPS * 2 * DEPTH_REACH + radius - DEPTH_REACH
    return OrbitViews(
        rgb=left.float() / 255,
        alpha=right[..., 0].float() / 255,
        depth=torch.where(code > 0, depth, torch.zeros_like(depth)),
    )


def write_facts(folder: Path, facts: OrbitFolderFacts) -> None:
    """Note what holds for a folder.

    Raises:
        ValueError: it was drawn with other settings.
    """
    path = folder / FACTS_FILE
    content = json.dumps(asdict(facts), indent=1)
    if path.is_file() and path.read_text(encoding="utf-8") != content:
        raise ValueError(
            f"{folder} was drawn with other settings ({path.name}); name another folder or remove "
            "that one."
        )
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def read_facts(folder: Path) -> OrbitFolderFacts:
    """What holds for a folder; FileNotFoundError if nothing was drawn."""
    found = read_json(folder / FACTS_FILE, f"{folder} holds no orbits; draw them first")
    low, high = found.numbers("elevation_deg", 2)
    return OrbitFolderFacts(
        num_views=found.integer("num_views"),
        num_free_views=found.integer("num_free_views"),
        size_px=found.integer("size_px"),
        radius=found.number("radius"),
        fov_y_deg=found.number("fov_y_deg"),
        elevation_deg=(low, high),
    )


def write_poses(azimuths: Sequence[float], elevations: Sequence[float]) -> dict[str, str]:
    """Poses of all views as tags of a record."""
    return {
        "azimuths": " ".join(f"{value:.3f}" for value in azimuths),
        "elevations": " ".join(f"{value:.3f}" for value in elevations),
    }


class TrainingOrbits:
    """The objects of a folder with their views.

    Attributes:
        facts: what holds for all of them.
        records: one per object.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        """Open a folder; ``limit`` keeps its first objects only."""
        self.facts = read_facts(folder)
        self._sheets = PictureShards(folder, limit)
        self.records: list[PictureRecord] = self._sheets.records
        self._azimuths = [_numbers(record, "azimuths") for record in self.records]
        self._elevations = [_numbers(record, "elevations") for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def views_per_object(self) -> int:
        """Regular and free views."""
        return self.facts.num_views + self.facts.num_free_views

    def views(self, index: int, chosen: Sequence[int]) -> OrbitViews:
        """Some views of an object."""
        sheet, size = self._sheets.mapped(index), self.facts.size_px
        tiles = np.stack([sheet[view * size : (view + 1) * size] for view in chosen])
        return unpack_views(tiles, self.facts.radius)

    def poses(self, index: int, chosen: Sequence[int], start: int) -> OrbitPoses:
        """Poses of some views, with view ``start`` as the given picture."""
        first = self._azimuths[index][start]
        return OrbitPoses(
            tuple((self._azimuths[index][view] - first) % 360.0 for view in chosen),
            tuple(self._elevations[index][view] for view in chosen),
        )

    def rig(self, index: int, chosen: Sequence[int], start: int) -> ViewRig:
        """Cameras of some views; view ``start`` sees the front."""
        first = self._azimuths[index][start]
        return make_orbit_rig(
            [(self._azimuths[index][view] - first) % 360.0 for view in chosen],
            [self._elevations[index][view] for view in chosen],
            radius=self.facts.radius,
            fov_y_deg=self.facts.fov_y_deg,
        )


def input_views(num_views: int, num_frames: int, start: int) -> list[int]:
    """Views of a regular orbit that are given to the network, at even intervals from ``start``.

    GSV3D takes 16 of 84, which is no whole interval: the nearest view counts.
    """
    if not 2 <= num_frames <= num_views:
        raise ValueError(f"num_frames must lie within 2..{num_views}, got {num_frames}.")
    return [(start + round(i * num_views / num_frames)) % num_views for i in range(num_frames)]


def _numbers(record: PictureRecord, tag: str) -> tuple[float, ...]:
    return tuple(float(part) for part in record.tags[tag].split())
