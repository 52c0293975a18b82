"""Contains the character field: what S-LRM says of a character, read once, cut into any parts.

Reference: He et al. 2025, "StdGEN", Sec. 3.3.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..geometry.semantic_parts import CHARACTER_PARTS, PartForm, part_classes, part_sdf
from ..mesh import Mesh
from ..networks.lrm import LargeReconstructionModel
from ..networks.lrm_cameras import make_camera_vectors
from ..progress import Progress, ProgressCallback, ignore_progress, share_progress
from .character_framing import pad_to_square
from .lrm_to_mesh import LrmGrid, LrmToMeshParams, grid_to_mesh, triplane_to_grid, views_to_triplane

LOGGER = logging.getLogger(__name__)

WHITE = 0.98
VIEW_NAMES = ("front", "front right", "right", "back", "left", "front left")
NUM_VIEWS = len(VIEW_NAMES)


@dataclass(frozen=True)
class CharacterField:
    """A character as the model sees it.

    Attributes:
        model: reads colours and weights where parts need them.
        grid: distance and classes at every corner of the model's grid.
        warnings: lines for people, such as a view that shows nothing.
    """

    model: LargeReconstructionModel
    grid: LrmGrid
    warnings: tuple[str, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.model.params.label_names

    def probabilities(self) -> Float[Tensor, "x y z label"]:
        """Of the classes at the corners of the grid, in the frame of the model."""
        logits = self.grid.logits
        assert logits is not None  # `views_to_field` makes no other
        return logits.softmax(dim=-1)

    @torch.no_grad()
    def labels_at(self, points: Float[Tensor, "point 3"]) -> Int64[Tensor, " point"]:
        """Most likely class at points in the world."""
        places = self.model.from_world(points.to(self.grid.triplane.planes))
        features = self.model.features(self.grid.triplane, places)
        return self.model.decoder.semantic_logits(features).argmax(dim=-1)

    def to(self, device: torch.device | str) -> CharacterField:
        """Copy with the grid on ``device``; the model, which other values share, stays."""
        grid = self.grid
        logits = None if grid.logits is None else grid.logits.to(device)
        moved = LrmGrid(
            grid.triplane.to(device), grid.sdf.to(device), grid.vertices.to(device), logits
        )
        return replace(self, grid=moved)


@torch.no_grad()
def views_to_field(
    model: LargeReconstructionModel,
    views: Float[Tensor, "view height width 3"],
    *,
    params: LrmToMeshParams | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> CharacterField:
    """Read a character off its six views; everything but the surfaces is evaluated here, once.

    Args:
        model: of the "mesh" stage, with semantic classes.
        views: pictures on white from azimuths 0, 45, 90, 180, 270 and 315 (StdGEN's rig);
            portraits are padded to squares.
        params: sizes of chunks.
        on_progress: called after each layer and each chunk.

    Raises:
        ValueError: the views do not fit, all of them are empty, or the model has no classes.
    """
    require_semantic(model)
    if len(views) != NUM_VIEWS:
        raise ValueError(
            f"A character needs {NUM_VIEWS} views ({', '.join(VIEW_NAMES)}), got {len(views)}."
        )
    warnings = _empty_views(views)
    views = pad_to_square(views)
    triplane = views_to_triplane(
        model,
        views,
        make_camera_vectors("stdgen"),
        on_progress=share_progress(on_progress, 0, 50),
    )
    grid = triplane_to_grid(
        model, triplane, params=params, on_progress=share_progress(on_progress, 50, 100)
    )
    return CharacterField(model, grid, tuple(warnings))


def require_semantic(model: LargeReconstructionModel) -> None:
    """Raise ValueError unless the model can tell the parts of a character."""
    decoder = model.params.decoder
    if not decoder.num_labels:
        raise ValueError("This model has no semantic classes; load one that has (S-LRM).")
    if decoder.stage != "mesh":
        raise ValueError(
            f"This model is of the '{decoder.stage}' stage, which has no surface; load one of the "
            "'mesh' stage."
        )


def _empty_views(views: Tensor) -> list[str]:
    empty = [bool((view > WHITE).all()) for view in views]
    if all(empty):
        raise ValueError("All views are white; give six views that show the character.")
    warnings = [
        f"The view '{name}' is empty; what only it would show is invented."
        for name, is_empty in zip(VIEW_NAMES, empty, strict=True)
        if is_empty
    ]
    for line in warnings:
        LOGGER.warning(line)
    return warnings


@dataclass(frozen=True)
class CharacterParts:
    """Parts of a character.

    Attributes:
        meshes: one per part that was asked for, named after it, in the world frame; a part that is
            nowhere is an empty mesh.
        warnings: one line per empty part.
    """

    meshes: tuple[Mesh, ...]
    warnings: tuple[str, ...] = ()


@torch.no_grad()
def field_to_parts(
    field: CharacterField,
    parts: Sequence[str] = CHARACTER_PARTS,
    *,
    form: PartForm = "paper",
    params: LrmToMeshParams | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> CharacterParts:
    """Surfaces of parts, with vertex colours.

    Args:
        field: see `views_to_field`.
        parts: names as `geometry.semantic_parts.part_classes` understands them.
        form: Eq. 10 alone, or with the released program's thickening of single classes.
        params: sizes of chunks.
        on_progress: called after each chunk.

    Raises:
        ValueError: no part is named, one twice, or one that the model does not know.
    """
    names = [name.strip() for name in parts if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Name at least one part, and each only once; got {list(parts)}.")
    kept = [part_classes(name, field.label_names) for name in names]
    probabilities = field.probabilities()
    meshes, warnings = [], []
    for index, (name, classes) in enumerate(zip(names, kept, strict=True)):
        mesh = grid_to_mesh(
            field.model,
            field.grid,
            sdf=part_sdf(field.grid.sdf, probabilities, classes, form),
            name=name,
            params=params,
            on_progress=share_progress(
                on_progress, 100 * index // len(names), 100 * (index + 1) // len(names)
            ),
        )
        meshes.append(mesh)
        if mesh.is_empty:
            warnings.append(f"The character has no part '{name}'.")
            LOGGER.warning(warnings[-1])
    on_progress(Progress(100, 100, f"{len(names)} parts"))
    return CharacterParts(tuple(meshes), tuple(warnings))
