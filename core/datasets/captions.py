"""Contains the captions of procedural objects: several wordings from one closed vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .materials import HUES

ShapeWord = Literal["tall", "wide"]
SHAPE_WORDS: tuple[ShapeWord, ...] = ("tall", "wide")
FUNCTION_WORDS = ("a", "an", "the", "with", "and", "in", "of", "its", "is", "model", "toy")


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def canonical_caption(
    category: str,
    hue: str,
    accent_part: str | None = None,
    second_hue: str | None = None,
    shape: ShapeWord | None = None,
) -> str:
    """The caption by which an object is asked for: ``a tall red mug with blue handle``."""
    thing = _article(" ".join(word for word in (shape, hue, category) if word))
    return f"{thing} with {second_hue} {accent_part}" if second_hue else thing


def write_captions(
    category: str,
    hue: str,
    accent_part: str | None = None,
    second_hue: str | None = None,
    shape: ShapeWord | None = None,
) -> tuple[str, ...]:
    """All wordings of one object; the canonical one comes first.

    Args:
        category: what it is.
        hue: colour of the body.
        accent_part: name of the part of the second colour; needed with ``second_hue``.
        second_hue: colour of that part.
        shape: proportion worth mentioning.
    """
    if (second_hue is None) != (accent_part is None):
        raise ValueError(
            "Name the part and its hue together, got "
            f"accent_part={accent_part!r}, second_hue={second_hue!r}."
        )
    shaped = f"{shape} {category}" if shape else category
    thing = f"{shape} {hue} {category}" if shape else f"{hue} {category}"
    listed = [shape, category, hue]
    captions = [canonical_caption(category, hue, accent_part, second_hue, shape)]
    if second_hue is None:
        captions += [
            thing,
            f"{_article(shaped)} in {hue}",
            ", ".join(word for word in listed if word),
            f"the {shaped} is {hue}",
            f"{_article(thing)} model",
            f"{_article(thing)} toy",
        ]
    else:
        part = f"{second_hue} {accent_part}"
        captions += [
            f"{thing} with {part}",
            f"{_article(thing)} and its {part}",
            ", ".join(word for word in (*listed, part) if word),
            f"{_article(shaped)} in {hue} with {part}",
            f"{_article(thing)} with the {accent_part} in {second_hue}",
            f"{_article(thing)} toy with {part}",
        ]
    return tuple(captions)


def make_vocabulary(categories: Iterable[str], accent_parts: Iterable[str]) -> tuple[str, ...]:
    """Every word that a caption may hold, sorted."""
    return tuple(sorted({*categories, *accent_parts, *HUES, *SHAPE_WORDS, *FUNCTION_WORDS}))


def caption_words(caption: str) -> list[str]:
    """Lower-case words of a caption without punctuation."""
    return caption.lower().replace(",", " ").replace(".", " ").split()
