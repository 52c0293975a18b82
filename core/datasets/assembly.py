"""Contains the builder in which a category adds its parts, and the description of a category."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .primitives import Solid

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Part:
    """One closed shell of an object: its name, its surface and the role of its colour."""

    name: str
    solid: Solid
    role: str


class Assembly:
    """Parts of one object under construction, with its random numbers and proportions.

    Attributes:
        rng: the object's source of randomness.
        stretch: factor for heights: 1 normal, above 1.3 tall, below 0.75 wide.
        parts: what was added so far.
    """

    def __init__(self, rng: np.random.Generator, stretch: float) -> None:
        self.rng = rng
        self.stretch = stretch
        self.parts: list[Part] = []

    def add(self, name: str, solid: Solid, role: str = "primary") -> None:
        """Add a shell; parts of one name may be many and need not touch."""
        self.parts.append(Part(name, solid, role))

    def mirrored(self, name: str, solid: Solid, role: str = "primary") -> None:
        """Add a shell and its mirror image in x = 0."""
        self.add(name, solid, role)
        self.add(name, solid.scaled(x=-1.0), role)

    def uniform(self, low: float, high: float) -> float:
        """A random number in [low, high)."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[Choice]) -> Choice:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]


@dataclass(frozen=True)
class Category:
    """How to build one kind of object.

    Attributes:
        build: adds the parts to an assembly.
        accent_part: the part that may have a second named hue.
        default_accent: colour role of that part when no second hue is named.
        metallic: 0..1, for the whole object.
        roughness: 0..1, for the whole object.
    """

    build: Callable[[Assembly], None]
    accent_part: str
    default_accent: str = "primary_dark"
    metallic: float = 0.0
    roughness: float = 0.6
