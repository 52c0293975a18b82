"""Contains semantic-equivalent distances: where the surface of some classes of a field lies.

Symbols: f is a signed distance (negative inside), p_s the probability of class s, P the classes
that are kept. The distance of P is max(f, max over the rest of p - max over P of p): negative
exactly inside the object where a class of P is the most likely one.

Reference: He et al. 2025, "StdGEN", Eq. 3 and 10.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PartForm = Literal["paper", "reference"]
"""How a part is cut out: by Eq. 10 alone, or with the released program's thickening of shells."""


class StdgenLabel(IntEnum):
    """Classes of S-LRM in the order of its checkpoint; which skin class is the face is unknown."""

    HAIR = 0
    SKIN_1 = 1
    SKIN_2 = 2
    CLOTHES = 3


class StdgenPart(IntEnum):
    """What can be extracted; the numbers are the codes of the released program."""

    WHOLE = 0
    WITHOUT_HAIR = 1
    BODY = 2
    CLOTHES = 3
    HAIR = 4


_KEPT = {
    StdgenPart.WHOLE: frozenset(StdgenLabel),
    StdgenPart.WITHOUT_HAIR: frozenset(StdgenLabel) - {StdgenLabel.HAIR},
    StdgenPart.BODY: frozenset({StdgenLabel.SKIN_1, StdgenLabel.SKIN_2}),
    StdgenPart.CLOTHES: frozenset({StdgenLabel.CLOTHES}),
    StdgenPart.HAIR: frozenset({StdgenLabel.HAIR}),
}

CHARACTER_PARTS = ("body", "clothes", "hair")
"""The parts of a character, from the inside out."""


def part_classes(part: str, label_names: Sequence[str]) -> frozenset[int]:
    """Classes of a part of a character.

    Args:
        part: ``whole``, ``without_hair``, ``body``, ``clothes``, ``hair``, or names of classes
            joined by ``+``, such as ``hair+clothes``.
        label_names: of the classes of a model, in its order.

    Raises:
        ValueError: the model has no such class; the message lists those it has.
    """
    everything = frozenset(range(len(label_names)))
    sums = {
        "whole": everything,
        "without_hair": everything - _named("hair", label_names),
        "body": everything - _named("hair", label_names) - _named("clothes", label_names),
    }
    if part in sums and part not in label_names:
        kept = sums[part]
    else:
        names = [name.strip() for name in part.split("+")]
        unknown = [name for name in names if name not in label_names]
        if unknown:
            raise ValueError(
                f"There is no part or class '{unknown[0]}'; this model has the classes "
                f"{', '.join(label_names)}. Parts are {', '.join(sums)}, or classes joined by '+'."
            )
        kept = frozenset().union(*(_named(name, label_names) for name in names))
    if not kept:
        raise ValueError(
            f"The part '{part}' has no class; this model has only {', '.join(label_names)}."
        )
    return kept


def _named(name: str, label_names: Sequence[str]) -> frozenset[int]:
    return frozenset(index for index, label in enumerate(label_names) if label == name)


def labels_sdf(
    sdf: Float[Tensor, "*point"],
    probabilities: Float[Tensor, "*point label"],
    kept: Collection[int],
) -> Float[Tensor, "*point"]:
    """Signed distance of the classes in ``kept`` (Eq. 10; with a single class Eq. 3)."""
    num_labels = probabilities.shape[-1]
    inside = sorted({int(label) for label in kept})
    if not inside or inside[0] < 0 or inside[-1] >= num_labels:
        raise ValueError(f"kept must name classes 0..{num_labels - 1}, got {inside}.")
    outside = [label for label in range(num_labels) if label not in inside]
    if not outside:
        return sdf
    margin = probabilities[..., outside].amax(dim=-1) - probabilities[..., inside].amax(dim=-1)
    return torch.maximum(sdf, margin)


def part_sdf(
    sdf: Float[Tensor, "x y z"],
    probabilities: Float[Tensor, "x y z label"],
    kept: Collection[int],
    form: PartForm = "paper",
) -> Float[Tensor, "x y z"]:
    """Signed distance of any set of classes on a grid.

    In the form of the released program a part of a single class keeps the object's own distance on
    the grid points of that class and on the neighbours of those, so that thin shells do not tear.
    """
    if form not in ("paper", "reference"):
        raise ValueError(f"form must be 'paper' or 'reference', got {form!r}.")
    field = labels_sdf(sdf, probabilities, kept)
    if form == "paper" or len(set(kept)) != 1 or probabilities.shape[-1] == 1:
        return field
    (label,) = set(kept)
    return torch.where(_with_face_neighbours(probabilities.argmax(dim=-1) == label), sdf, field)


def stdgen_part_sdf(
    sdf: Float[Tensor, "x y z"],
    probabilities: Float[Tensor, "x y z label=4"],
    part: StdgenPart,
) -> Float[Tensor, "x y z"]:
    """Signed distance of a part as the released program computes it."""
    return part_sdf(sdf, probabilities, _KEPT[part], "reference")


def _with_face_neighbours(mask: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """The mask grown by one step along each axis."""
    grown = mask.clone()
    for axis in range(3):
        size = mask.shape[axis]
        grown.narrow(axis, 1, size - 1).logical_or_(mask.narrow(axis, 0, size - 1))
        grown.narrow(axis, 0, size - 1).logical_or_(mask.narrow(axis, 1, size - 1))
    return grown
