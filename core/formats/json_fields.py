"""Contains JSON from strangers: parsing with bounds, and fields checked when they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .limits import MAX_JSON_BYTES, MAX_JSON_DEPTH, require_at_most

# A string without its closing quote reaches to the end: the search stays linear on any input.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)


@dataclass(frozen=True)
class JsonObject:
    """A JSON object whose fields are type-checked on access, with messages that name the place.

    Attributes:
        data: the parsed object.
        where: its place in the document, such as ``meshes[0].primitives[1]``.
    """

    data: dict[str, Any]
    where: str = ""

    def place(self, key: str) -> str:
        """Place of a field in the document, for messages."""
        return f"{self.where}.{key}" if self.where else key

    def has(self, key: str) -> bool:
        """True when the field is there and not null."""
        return self.data.get(key) is not None

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number >= 0."""
        value = self._value(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
            self._complain(key, "a whole number >= 0")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._value(key, default)
        if not _is_finite_number(value):
            self._complain(key, "a finite number")
        return float(value)

    def numbers(self, key: str, length: int, default: Sequence[float] | None = None) -> list[float]:
        """A list of ``length`` finite numbers."""
        value = self._value(key, default)
        if not isinstance(value, (list, tuple)) or len(value) != length:
            self._complain(key, f"{length} numbers")
        if not all(map(_is_finite_number, value)):
            self._complain(key, "finite numbers")
        return [float(item) for item in value]

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            self._complain(key, "a string")
        return value

    def flag(self, key: str) -> bool:
        """A boolean, false when absent."""
        value = self._value(key, False)
        if not isinstance(value, bool):
            self._complain(key, "true or false")
        return value

    def child(self, key: str) -> JsonObject:
        """A nested object; an empty one when absent."""
        value = self._value(key, {})
        if not isinstance(value, dict):
            self._complain(key, "an object")
        return JsonObject(value, self.place(key))

    def children(self, key: str) -> list[JsonObject]:
        """A list of objects; empty when absent."""
        return [
            JsonObject(item, f"{self.place(key)}[{index}]")
            if isinstance(item, dict)
            else self._complain(key, "a list of objects")
            for index, item in enumerate(self._list(key))
        ]

    def texts(self, key: str) -> list[str]:
        """A list of strings; empty when absent."""
        items = self._list(key)
        if not all(isinstance(item, str) for item in items):
            self._complain(key, "a list of strings")
        return items

    def indices(self, key: str) -> list[int]:
        """A list of whole numbers >= 0; empty when absent."""
        items = self._list(key)
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int) or item < 0:
                self._complain(key, "a list of indices")
        return items

    def _list(self, key: str) -> list[Any]:
        value = self._value(key, [])
        if not isinstance(value, list):
            self._complain(key, "a list")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.data.get(key)
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"{self.place(key)} is missing; the file is damaged.")
        return value

    def _complain(self, key: str, expected: str) -> NoReturn:
        got = repr(self.data.get(key))
        raise ValueError(f"{self.place(key)} must be {expected}, got {got[:60]}.")


def _is_finite_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 1e300  # larger whole numbers do not fit a float


def pick(items: Sequence[Any], index: int, what: str) -> Any:
    """Item that an index of the document refers to."""
    if not 0 <= index < len(items):
        raise ValueError(f"{what} {index} does not exist: the file has {len(items)} of them.")
    return items[index]


def parse_json(data: bytes) -> JsonObject:
    """Parse a JSON object of bounded size and depth; NaN and Infinity are refused."""
    require_at_most("bytes of JSON", len(data), MAX_JSON_BYTES)
    require_at_most("nesting of the JSON", _depth(data), MAX_JSON_DEPTH)
    try:
        document = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its JSON cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"its JSON must be an object, got {type(document).__name__}.")
    return JsonObject(document)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _depth(data: bytes) -> int:
    symbols = np.frombuffer(_STRING.sub(b"", data), dtype=np.uint8)
    opens = (symbols == ord("[")) | (symbols == ord("{"))
    closes = (symbols == ord("]")) | (symbols == ord("}"))
    steps = opens[opens | closes].astype(np.int64) * 2 - 1
    return int(np.cumsum(steps).max(initial=0))
