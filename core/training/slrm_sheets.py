"""Contains the sample sheets of S-LRM's training: held-out characters beside what the model sees.

A row is one character: its front view, which goes into the model with five others, then classes
and colours of the truth and of the model, from the front and from the back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..camera import ViewRig, make_orbit_rig
from ..datasets.characters import CHARACTER_PARTS, CharacterLabel, character_meshes, make_character
from ..evaluation.contact_sheet import make_contact_sheet
from ..formats.png import write_png
from ..geometry.semantic_parts import part_classes
from ..mesh import Mesh
from ..networks.lrm import LargeReconstructionModel
from ..networks.lrm_cameras import make_camera_vectors
from ..pipelines.character_field import CharacterField, field_to_parts
from ..pipelines.lrm_to_mesh import triplane_to_grid, views_to_triplane
from ..pipelines.merge_parts import merge_parts
from ..rendering.mesh import render_mesh
from ..rendering.semantic_volume import render_classes
from ..rendering.volume import VolumeParams
from ..triplane import Triplane
from .character_dataset import FOV_Y_DEG, RADIUS, CharacterData, TrainingCharacter

LOGGER = logging.getLogger(__name__)

CLASS_COLORS = torch.tensor([
    [0.85, 0.20, 0.20], [0.20, 0.75, 0.80], [0.30, 0.70, 0.30], [0.20, 0.30, 0.85],
])  # fmt: skip
"""StdGEN's colours of labels: hair red, face cyan, skin green, clothes blue."""
SHEET_CHARACTERS = 3
SHEET_PX = 144
COLUMNS = ("input", *(f"{what}, {side}, {whose}" for what in ("class", "colour")
           for side in ("front", "back") for whose in ("truth", "model")))  # fmt: skip


def write_slrm_sheet(
    path: Path,
    model: LargeReconstructionModel,
    data: CharacterData,
    *,
    title: str = "",
    size_px: int = SHEET_PX,
) -> None:
    """Draw held-out characters and write the sheet as PNG; scores go to the log.

    Args:
        path: of the PNG.
        model: of any stage.
        data: characters; without held-out ones the last that are trained on are shown.
        title: above the sheet.
        size_px: side of the drawn pictures.
    """
    count = min(SHEET_CHARACTERS, data.params.held_out or len(data))
    rows, labels = [], []
    for number in range(len(data) - count, len(data)):
        item = data[number]
        triplane = views_to_triplane(model, item.images, make_camera_vectors("stdgen"))
        overlap, right = score_points(model, triplane, item)
        truth = draw_truth(data, number, size_px)
        rows.append(_row(item.images[0], truth, draw_model(model, triplane, size_px)))
        labels.append(f"IoU {overlap:.2f}, classes {100 * right:.0f} %")
    LOGGER.info("%s: %s", path.stem, "; ".join(labels))
    sheet = make_contact_sheet(rows, row_labels=labels, column_labels=COLUMNS, title=title)
    write_png(path, sheet)


def sheet_rig() -> ViewRig:
    """Front and back, as the pictures of the training data are seen."""
    return make_orbit_rig([0.0, 180.0], 0.0, radius=RADIUS, fov_y_deg=FOV_Y_DEG)


def draw_truth(
    data: CharacterData, number: int, size_px: int = SHEET_PX
) -> tuple[Float[Tensor, "view height width 3"], Float[Tensor, "view height width 3"]]:
    """Classes and colours of a character from front and back, on white."""
    character = make_character(data.params.first_seed + number)
    parts = list(character_meshes(character, cell=data.params.cell).values())
    labels = [
        character.body_labels(part.vertices)
        if part.name == "body"
        else torch.full((part.num_vertices,), int(CharacterLabel[part.name.upper()]))
        for part in parts
    ]
    return _draw_parts(parts, labels, size_px)


@torch.no_grad()
def draw_model(
    model: LargeReconstructionModel, triplane: Triplane, size_px: int = SHEET_PX
) -> tuple[Float[Tensor, "view height width 3"], Float[Tensor, "view height width 3"]]:
    """Classes and colours as the model sees a character; a surface that is nowhere stays white.

    A model of a "nerf" stage has no surface: its densities are drawn, each pixel in the colour of
    its most likely class.
    """
    if model.params.decoder.stage == "nerf":
        return _draw_density(model, triplane, size_px)
    field = CharacterField(model, triplane_to_grid(model, triplane))
    names = [name for name in CHARACTER_PARTS if _has_part(name, field.label_names)]
    parts = [part for part in field_to_parts(field, names).meshes if not part.is_empty]
    if not parts:
        white = torch.ones(len(sheet_rig()), size_px, size_px, 3)
        return white, white
    labels = [_most_likely(field, part).cpu() for part in parts]
    return _draw_parts([part.to("cpu") for part in parts], labels, size_px)


@torch.no_grad()
def score_points(
    model: LargeReconstructionModel, triplane: Triplane, truth: TrainingCharacter
) -> tuple[float, float]:
    """Overlap of the insides at the points of a character, and share of right classes inside.

    A model of a "nerf" stage counts as solid where a length of 0.01 absorbs half of the light.
    """
    features = model.features(triplane, model.from_world(truth.points.to(model.device)))
    if model.params.decoder.stage == "nerf":
        density, _ = model.decoder.density_rgb(features)
        solid = 1 - torch.exp(-0.01 * density) > 0.5
    else:
        solid = model.decoder.sdf(features) < 0
    inside: Bool[Tensor, " point"] = truth.sdf < 0
    solid = solid.reshape(-1).cpu()
    labels = model.decoder.semantic_logits(features).argmax(dim=-1).cpu()
    union = (solid | inside).sum().clamp(min=1)
    right = (labels == truth.labels)[inside].float()
    return float((solid & inside).sum() / union), float(right.mean())


def _has_part(name: str, label_names: Sequence[str]) -> bool:
    return name == "body" or name in label_names


def _most_likely(field: CharacterField, part: Mesh) -> Int64[Tensor, " vertex"]:
    """Most likely of the part's own classes at each vertex; on its border others are as likely."""
    places = field.model.from_world(part.vertices.to(field.model.device))
    scores = field.model.decoder.semantic_logits(field.model.features(field.grid.triplane, places))
    own = sorted(part_classes(part.name, field.label_names))
    return torch.tensor(own)[scores[:, own].argmax(dim=-1).cpu()]


def _draw_parts(
    parts: Sequence[Mesh], labels: Sequence[Tensor], size_px: int
) -> tuple[Tensor, Tensor]:
    flat = [
        replace(part, vertex_colors=CLASS_COLORS[label % len(CLASS_COLORS)])
        for part, label in zip(parts, labels, strict=True)
    ]
    rig, whole = sheet_rig(), merge_parts(parts)
    classes = render_mesh(
        merge_parts(flat), rig, width=size_px, height=size_px, shading="headlight"
    )
    return classes.rgb, render_mesh(whole, rig, width=size_px, height=size_px).rgb


def _draw_density(
    model: LargeReconstructionModel, triplane: Triplane, size_px: int
) -> tuple[Tensor, Tensor]:
    drawn = render_classes(
        model.semantic_density_field(triplane),
        sheet_rig().to(model.device),
        width=size_px,
        height=size_px,
        params=VolumeParams(num_samples=96, bound=1.05),
    )
    labels = drawn.semantics.argmax(dim=-1).cpu()
    alpha = drawn.alpha[..., None].cpu().clamp(0, 1)
    classes = CLASS_COLORS[labels % len(CLASS_COLORS)]
    return alpha * classes + (1 - alpha), drawn.rgb.cpu().clamp(0, 1)


def _row(front: Tensor, truth: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Tiles in the order of `COLUMNS`."""
    pairs = zip(truth, model, strict=True)
    return [front, *(tile for t, m in pairs for side in (0, 1) for tile in (t[side], m[side]))]
