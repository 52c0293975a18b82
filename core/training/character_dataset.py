"""Contains the data that reconstruction models of characters are trained on, kept in a folder.

Each procedural character gives the six views that go into the model, points in space with distance,
class and colour, and pictures of its three levels from random directions. One file per character;
a stopped run goes on where it was.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..camera import ViewRig, make_orbit_rig, make_stdgen_rig
from ..datasets.characters import (
    CHARACTER_PARTS,
    LOWER,
    UPPER,
    CharacterLabel,
    ProceduralCharacter,
    character_meshes,
    make_character,
)
from ..formats.atomic import atomic_write
from ..geometry.transforms import normalize
from ..mesh import Mesh, merge_meshes
from ..pipelines.character_levels import LEVELS, parts_of_level
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.mesh import render_mesh

LOGGER = logging.getLogger(__name__)

RADIUS, FOV_Y_DEG = 4.4785, 30.0
"""Cameras of the pictures; at the origin they show 2.4 world units."""
NO_LABEL = 255
NEAR_SPREAD = 0.03


@dataclass(frozen=True)
class CharacterDataParams:
    """What is drawn.

    Attributes:
        folder: where the files are kept.
        characters: how many.
        first_seed: seed of the first one.
        held_out: last ones, which are not trained on.
        image_px: side of the six views that go into the model.
        points: per character; half of them near the surface.
        level_views: random directions of the pictures of each level; 0 for none.
        render_px: side of these pictures.
        cell: spacing of the samples that meshes are made from.
    """

    folder: Path
    characters: int = 2000
    first_seed: int = 0
    held_out: int = 24
    image_px: int = 64
    points: int = 8192
    level_views: int = 0
    render_px: int = 64
    cell: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < self.characters:
            raise ValueError(
                f"held_out must be smaller than characters, got {self.held_out} of "
                f"{self.characters}."
            )
        if min(self.image_px, self.render_px, self.points) < 2 or self.level_views < 0:
            raise ValueError(
                "image_px, render_px and points must be at least 2 and level_views not negative, "
                f"got {self.image_px}, {self.render_px}, {self.points} and {self.level_views}."
            )


@dataclass(frozen=True)
class LevelTruth:
    """Pictures of one level; distances in world units.

    Attributes:
        rgb: over white.
        alpha: coverage.
        labels: class of each pixel, 255 on the background.
        normals_world: unit, 0 on the background.
        depth: along the viewing direction, 0 on the background.
    """

    rgb: Float[Tensor, "view height width 3"]
    alpha: Float[Tensor, "view height width"]
    labels: Int64[Tensor, "view height width"]
    normals_world: Float[Tensor, "view height width 3"]
    depth: Float[Tensor, "view height width"]


@dataclass(frozen=True)
class TrainingCharacter:
    """One character as training sees it, in the world frame.

    Attributes:
        images: what goes into the model, six views on white.
        points: places in space.
        sdf: distance of the whole there, negative inside.
        labels: class there.
        colors: colour there; it counts near the surface.
        rig: cameras of the pictures; None without any.
        levels: pictures of each level by name.
    """

    images: Float[Tensor, "view height width 3"]
    points: Float[Tensor, "point 3"]
    sdf: Float[Tensor, " point"]
    labels: Int64[Tensor, " point"]
    colors: Float[Tensor, "point 3"]
    rig: ViewRig | None
    levels: dict[str, LevelTruth]


class CharacterData:
    """Characters of a folder, by number.

    Args:
        params: what was drawn; see `draw_characters`.
    """

    def __init__(self, params: CharacterDataParams) -> None:
        self.params = params
        missing = [n for n in range(params.characters) if not _file(params, n).is_file()]
        if missing:
            raise ValueError(
                f"{params.folder} lacks {len(missing)} of {params.characters} characters, such as "
                f"{_file(params, missing[0]).name}; draw them first."
            )

    def __len__(self) -> int:
        return self.params.characters

    @property
    def num_trained(self) -> int:
        """Characters that are trained on; those after them are held out."""
        return self.params.characters - self.params.held_out

    def __getitem__(self, number: int) -> TrainingCharacter:
        with np.load(_file(self.params, number)) as stored:
            arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
        if arrays["images"].shape[1] != self.params.image_px:
            raise ValueError(
                f"{_file(self.params, number)} has views of {arrays['images'].shape[1]} pixels, "
                f"but image_px is {self.params.image_px}; name another folder."
            )
        rig, levels = None, {}
        if self.params.level_views:
            rig = _random_rig(self.params, number)
            levels = {name: _read_level(arrays, name) for name in LEVELS}
        return TrainingCharacter(
            images=arrays["images"].float() / 255,
            points=arrays["points"].float(),
            sdf=arrays["sdf"].float(),
            labels=arrays["labels"].long(),
            colors=arrays["colors"].float() / 255,
            rig=rig,
            levels=levels,
        )


def draw_characters(
    params: CharacterDataParams, on_progress: ProgressCallback = ignore_progress
) -> CharacterData:
    """Draw what the folder lacks, and open it."""
    params.folder.mkdir(parents=True, exist_ok=True)
    for number in range(params.characters):
        path = _file(params, number)
        if not path.is_file():
            arrays = _draw(params, number)
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        on_progress(Progress(number + 1, params.characters, f"drew character {number + 1}"))
    return CharacterData(params)


def _file(params: CharacterDataParams, number: int) -> Path:
    return params.folder / f"{params.first_seed + number:06}.npz"


def _random_rig(params: CharacterDataParams, number: int) -> ViewRig:
    """Cameras of a character's pictures; the same for the same number."""
    rng = np.random.default_rng([params.first_seed + number, 11])
    azimuths = rng.uniform(0, 360, params.level_views)
    elevations = rng.uniform(-20, 30, params.level_views)
    return make_orbit_rig(
        azimuths.tolist(), elevations.tolist(), radius=RADIUS, fov_y_deg=FOV_Y_DEG
    )


@torch.no_grad()
def _draw(params: CharacterDataParams, number: int) -> dict[str, np.ndarray]:
    character = make_character(params.first_seed + number)
    parts = list(character_meshes(character, cell=params.cell).values())
    whole = merge_meshes(parts)
    size = params.image_px
    views = render_mesh(whole, make_stdgen_rig(), width=size, height=size)
    points = _draw_points(params, whole, number)
    sdf, labels = character.solid(points)
    arrays = {
        "images": _to_bytes(views.rgb),
        "points": points.numpy().astype(np.float32),
        "sdf": sdf.numpy().astype(np.float32),
        "labels": labels.numpy().astype(np.uint8),
        "colors": _to_bytes(character.colors(points, labels)),
    }
    if params.level_views:
        rig = _random_rig(params, number)
        for level in LEVELS:
            shown = parts_of_level(parts, level)
            for name, values in _draw_level(character, shown, rig, params.render_px).items():
                arrays[f"{level}_{name}"] = values
    return arrays


def _draw_points(params: CharacterDataParams, whole: Mesh, number: int) -> Float[Tensor, "point 3"]:
    """Half of the points near the surface, half anywhere in the box."""
    generator = torch.Generator().manual_seed(params.first_seed + number)
    near = params.points // 2
    corners = whole.vertices[whole.faces]
    face = torch.randint(len(corners), (near,), generator=generator)
    weights = torch.rand(near, 3, generator=generator) + 1e-3
    weights = weights / weights.sum(dim=1, keepdim=True)
    on_surface = (corners[face] * weights[..., None]).sum(dim=1)
    on_surface = on_surface + NEAR_SPREAD * torch.randn(near, 3, generator=generator)
    low, high = torch.tensor(LOWER), torch.tensor(UPPER)
    anywhere = low + (high - low) * torch.rand(params.points - near, 3, generator=generator)
    return torch.cat([on_surface, anywhere])


def _draw_level(
    character: ProceduralCharacter, parts: list[Mesh], rig: ViewRig, size: int
) -> dict[str, np.ndarray]:
    mesh = merge_meshes(parts)
    drawn = render_mesh(mesh, rig, width=size, height=size)
    face_labels = torch.cat([_face_labels(character, part) for part in parts])
    covered = drawn.face_index >= 0
    labels = torch.where(covered, face_labels[drawn.face_index.clamp(min=0)], NO_LABEL)
    return {
        "rgb": _to_bytes(drawn.rgb),
        "alpha": _to_bytes(drawn.alpha),
        "labels": labels.numpy().astype(np.uint8),
        "normals": _to_bytes((drawn.normals_world + 1) / 2),
        "depth": drawn.depth.numpy().astype(np.float16),
    }


def _face_labels(character: ProceduralCharacter, part: Mesh) -> Int64[Tensor, " face"]:
    """Class of each face: that of its part; on the body face or skin."""
    if part.name == CHARACTER_PARTS[0]:
        return character.body_labels(part.vertices[part.faces].mean(dim=1))
    label = CharacterLabel.CLOTHES if part.name == "clothes" else CharacterLabel.HAIR
    return torch.full((part.num_faces,), int(label))


def _read_level(arrays: dict[str, Tensor], level: str) -> LevelTruth:
    labels = arrays[f"{level}_labels"].long()
    covered = (labels != NO_LABEL)[..., None]
    normals = normalize(arrays[f"{level}_normals"].float() / 127.5 - 1)
    return LevelTruth(
        rgb=arrays[f"{level}_rgb"].float() / 255,
        alpha=arrays[f"{level}_alpha"].float() / 255,
        labels=labels,
        normals_world=torch.where(covered, normals, 0.0),
        depth=arrays[f"{level}_depth"].float(),
    )


def _to_bytes(values: Tensor) -> np.ndarray:
    return (values.clamp(0, 1) * 255).round().byte().numpy()
