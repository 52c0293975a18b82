"""Contains the procedural objects: recognisable, colourful things made from a seed, with captions.

The same category, seed and options give the same mesh, bit for bit, on one machine and library
version. Nothing is read from disk.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ..mesh import Material, Mesh
from .assembly import Assembly, Category, Part
from .captions import SHAPE_WORDS, ShapeWord, make_vocabulary, write_captions
from .materials import HUES, ColorScheme, make_scheme
from .objects_buildings import BUILDINGS
from .objects_creatures import CREATURES
from .objects_furniture import FURNITURE
from .objects_nature import NATURE
from .objects_tableware import TABLEWARE
from .objects_treasures import TREASURES
from .objects_vehicles import VEHICLES

CATEGORY_TABLE: dict[str, Category] = {
    **FURNITURE,
    **TABLEWARE,
    **NATURE,
    **VEHICLES,
    **CREATURES,
    **BUILDINGS,
    **TREASURES,
}
CATEGORIES: tuple[str, ...] = tuple(CATEGORY_TABLE)
ACCENT_PARTS: dict[str, str] = {name: kind.accent_part for name, kind in CATEGORY_TABLE.items()}
VOCABULARY: tuple[str, ...] = make_vocabulary(CATEGORIES, ACCENT_PARTS.values())

LONGEST_SIDE = 1.8
STRETCH_RANGES: dict[str | None, tuple[float, float]] = {
    None: (0.93, 1.07),
    "tall": (1.4, 1.6),
    "wide": (0.62, 0.72),
}
SECOND_HUE_SHARE = 0.55
SHAPE_SHARE = 0.17


@dataclass(frozen=True)
class ProceduralObject:
    """A made object: its mesh, what it is and how it may be described.

    Attributes:
        mesh: closed shells, one for each part or piece of a part, with vertex colours; centred,
            longest side 1.8, +Y up, front +Z. Vertices are not shared between shells.
        category: one of `CATEGORIES`.
        seed: what it was made from.
        hue: name of the body's colour.
        second_hue: name of the accent part's colour, None when it is not mentioned.
        shape: "tall", "wide" or None.
        captions: several wordings; the first is the canonical one.
        part_names: names of the parts; ``part_labels`` point into them.
        part_labels: part of each face.
        shell_labels: shell of each face: faces of one shell form a closed surface.
    """

    mesh: Mesh
    category: str
    seed: int
    hue: str
    second_hue: str | None
    shape: ShapeWord | None
    captions: tuple[str, ...]
    part_names: tuple[str, ...]
    part_labels: Int64[Tensor, " face"]
    shell_labels: Int64[Tensor, " face"]

    @property
    def caption(self) -> str:
        """The canonical caption."""
        return self.captions[0]

    @property
    def accent_part(self) -> str:
        """Name of the part that may have the second hue."""
        return ACCENT_PARTS[self.category]


def make_object(
    category: str,
    seed: int,
    *,
    hue: str | None = None,
    second_hue: str | None = None,
    shape: ShapeWord | None = None,
) -> ProceduralObject:
    """Make one object of a category.

    Args:
        category: one of `CATEGORIES`.
        seed: any integer >= 0; varies proportions, details and the exact tint.
        hue: colour of the body, one of `HUES`; None draws one.
        second_hue: colour of the accent part (`ACCENT_PARTS`); None leaves its natural colour.
        shape: "tall" or "wide" proportions; None for ordinary ones.

    Raises:
        ValueError: an unknown category, hue or shape, or a negative seed.
    """
    _require_known(category, seed, shape)
    kind = CATEGORY_TABLE[category]
    shape_rng, color_rng = (
        np.random.default_rng([seed, zlib.crc32(category.encode()), stream]) for stream in (0, 1)
    )
    drawn_hue = HUES[int(color_rng.integers(len(HUES)))]
    hue = drawn_hue if hue is None else hue
    scheme = make_scheme(hue, second_hue, kind.default_accent, color_rng)
    kit = Assembly(shape_rng, float(shape_rng.uniform(*STRETCH_RANGES[shape])))
    kind.build(kit)
    part_names = tuple(dict.fromkeys(part.name for part in kit.parts))
    mesh, part_labels, shell_labels = _join(kit.parts, part_names, scheme, kind, category)
    return ProceduralObject(
        mesh=mesh,
        category=category,
        seed=seed,
        hue=hue,
        second_hue=second_hue,
        shape=shape,
        captions=write_captions(
            category, hue, kind.accent_part if second_hue else None, second_hue, shape
        ),
        part_names=part_names,
        part_labels=part_labels,
        shell_labels=shell_labels,
    )


def make_random_object(seed: int, *, category: str | None = None) -> ProceduralObject:
    """Make an object whose category, hues and proportions follow from the seed.

    55 % have a second named hue, 17 % are tall and 17 % wide.
    """
    _require_known(category or CATEGORIES[0], seed, None)
    rng = np.random.default_rng([seed, zlib.crc32(b"random object")])
    drawn = CATEGORIES[int(rng.integers(len(CATEGORIES)))]
    first, second = rng.permutation(len(HUES))[:2]
    has_second = rng.random() < SECOND_HUE_SHARE
    draw = rng.random()
    shape = SHAPE_WORDS[int(draw / SHAPE_SHARE)] if draw < 2 * SHAPE_SHARE else None
    return make_object(
        category or drawn,
        seed,
        hue=HUES[first],
        second_hue=HUES[second] if has_second else None,
        shape=shape,
    )


def _require_known(category: str, seed: int, shape: str | None) -> None:
    if category not in CATEGORY_TABLE:
        raise ValueError(f"Unknown category {category!r}; choose one of {', '.join(CATEGORIES)}.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    if shape is not None and shape not in SHAPE_WORDS:
        raise ValueError(f"Unknown shape {shape!r}; choose one of {', '.join(SHAPE_WORDS)}.")


def _join(
    parts: list[Part],
    part_names: tuple[str, ...],
    scheme: ColorScheme,
    kind: Category,
    name: str,
) -> tuple[Mesh, Tensor, Tensor]:
    vertices, faces, colors, part_labels, shell_labels = [], [], [], [], []
    offset = 0
    for shell, part in enumerate(parts):
        solid = part.solid
        vertices.append(solid.vertices)
        faces.append(solid.faces + offset)
        colors.append(np.tile(np.array(scheme.color(part.role)), (len(solid.vertices), 1)))
        part_labels.append(np.full(len(solid.faces), part_names.index(part.name)))
        shell_labels.append(np.full(len(solid.faces), shell))
        offset += len(solid.vertices)
    placed = np.concatenate(vertices)
    low, high = placed.min(axis=0), placed.max(axis=0)
    placed = (placed - (low + high) / 2) * (LONGEST_SIDE / (high - low).max())
    mesh = Mesh(
        vertices=torch.from_numpy(placed).float(),
        faces=torch.from_numpy(np.concatenate(faces).astype(np.int64)),
        vertex_colors=torch.from_numpy(np.concatenate(colors)).float().clamp(0, 1),
        material=Material(metallic=kind.metallic, roughness=kind.roughness),
        name=name,
    )
    return (
        mesh,
        torch.from_numpy(np.concatenate(part_labels).astype(np.int64)),
        torch.from_numpy(np.concatenate(shell_labels).astype(np.int64)),
    )
