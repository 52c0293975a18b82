"""Contains how well a coloured mesh keeps to the prompt it was made from: hues and category.

Both are measured on pictures of the final mesh, so that every stage counts. The category is that of
the procedural object whose silhouettes are nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..datasets.captions import ShapeWord
from ..datasets.materials import hue_shares
from ..datasets.procedural_objects import make_object
from ..mesh import Mesh
from ..rendering.mesh import render_mesh
from .render_views import make_named_rig

HUE_VIEWS = 8
HUE_ELEVATION_DEG = 15.0
HUE_PX = 96
SILHOUETTE_VIEWS = 8
SILHOUETTE_PX = 48
LIBRARY_SHAPES: tuple[ShapeWord | None, ...] = (None, None, "tall", "wide")
PRESENT_SHARE = 0.03
"""A hue that covers less than this of the coloured surface counts as absent."""


@dataclass(frozen=True)
class PromptCase:
    """A prompt and what it asks for.

    Attributes:
        prompt: the text.
        category: kind of object.
        hue: colour of its body.
        second_hue: colour of its named part, if any.
    """

    prompt: str
    category: str
    hue: str
    second_hue: str | None = None


@dataclass(frozen=True)
class PromptScore:
    """How well one mesh keeps to its prompt.

    Attributes:
        shares: share of each named hue among the coloured pixels, largest first.
        hue_is_dominant: the first named hue covers more than any other.
        both_present: both named hues are there; None when only one is named.
        nearest_category: of the procedural object with the nearest silhouettes.
        nearest_iou: overlap with that object's silhouettes, 0..1.
        category_is_right: whether it is the category asked for.
    """

    shares: dict[str, float]
    hue_is_dominant: bool
    both_present: bool | None
    nearest_category: str
    nearest_iou: float
    category_is_right: bool


@dataclass(frozen=True)
class SilhouetteLibrary:
    """Silhouettes of many procedural objects.

    Attributes:
        categories: one per object.
        masks: coverage seen by `silhouette_rig`.
    """

    categories: tuple[str, ...]
    masks: Float[Tensor, "object view height width"]

    def first_of_each(self, count: int) -> SilhouetteLibrary:
        """The library with only so many objects per category."""
        seen: dict[str, int] = {}
        kept = []
        for index, name in enumerate(self.categories):
            seen[name] = seen.get(name, 0) + 1
            if seen[name] <= count:
                kept.append(index)
        return SilhouetteLibrary(tuple(self.categories[i] for i in kept), self.masks[kept])


def silhouette_rig() -> ViewRig:
    """Eight directions, at the heights of the bundle's cameras and above."""
    return make_named_rig("orbit", num_views=SILHOUETTE_VIEWS, elevation_deg=12.0)


def mesh_silhouettes(mesh: Mesh) -> Float[Tensor, "view height width"]:
    """Coverage of a centred mesh whose longest side is 1.8."""
    size = SILHOUETTE_PX
    return render_mesh(mesh.normalized(1.8), silhouette_rig(), width=size, height=size).alpha


def make_silhouette_library(
    categories: Sequence[str], *, per_category: int = 40, seed: int = 50_000_000
) -> SilhouetteLibrary:
    """Draw objects of every category, ordinary, tall and wide ones in turn."""
    names, masks = [], []
    for category in categories:
        for index in range(per_category):
            shape = LIBRARY_SHAPES[index % len(LIBRARY_SHAPES)]
            made = make_object(category, seed + index, shape=shape)
            names.append(category)
            masks.append(mesh_silhouettes(made.mesh))
    return SilhouetteLibrary(tuple(names), torch.stack(masks))


def mesh_hue_shares(mesh: Mesh) -> dict[str, float]:
    """Share of each named hue in pictures from all sides, largest first."""
    rig = make_named_rig("orbit", num_views=HUE_VIEWS, elevation_deg=HUE_ELEVATION_DEG)
    drawn = render_mesh(mesh.normalized(1.8), rig, width=HUE_PX, height=HUE_PX, antialias=False)
    colors = drawn.rgb[drawn.face_index >= 0]
    return hue_shares(colors.double().numpy())


def score_prompt(mesh: Mesh, case: PromptCase, library: SilhouetteLibrary) -> PromptScore:
    """Compare a mesh (vertex colours or texture, +Z front) with what was asked for."""
    return score_pictures(mesh_hue_shares(mesh), mesh_silhouettes(mesh), case, library)


def score_pictures(
    shares: dict[str, float],
    masks: Float[Tensor, "view height width"],
    case: PromptCase,
    library: SilhouetteLibrary,
) -> PromptScore:
    """The same of an object of any kind, by what is seen of it.

    Args:
        shares: of the named hues, largest first.
        masks: coverage seen by `silhouette_rig`, the object centred and 1.8 long.
        case: what was asked for.
        library: to compare with.
    """
    both = torch.minimum(masks, library.masks).flatten(1).sum(dim=1)
    either = torch.maximum(masks, library.masks).flatten(1).sum(dim=1)
    overlap = both / either.clamp(min=1e-6)
    best = int(overlap.argmax())
    nearest = library.categories[best]
    present = None
    if case.second_hue is not None:
        present = all(shares.get(name, 0) >= PRESENT_SHARE for name in (case.hue, case.second_hue))
    return PromptScore(
        shares=shares,
        hue_is_dominant=next(iter(shares), None) == case.hue,
        both_present=present,
        nearest_category=nearest,
        nearest_iou=float(overlap[best]),
        category_is_right=nearest == case.category,
    )
