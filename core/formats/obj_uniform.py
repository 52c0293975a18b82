"""Contains the quick parsing of OBJ lines that all look alike, as programs write them by millions.

A block of lines is taken as one buffer of bytes. Its separators (space, slash, line end) are
checked as a pattern, its numbers converted in one go. Whatever is unusual (comments, indices that
are missing here and there, NaN, damage) gives None: then `obj_text` reads word by word, and says
what is wrong.
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float, Int64, UInt8

from .limits import MAX_TOKEN_BYTES

NEWLINE, SPACE, SLASH = b"\n"[0], b" "[0], b"/"[0]
_FLOAT_BYTES, _INDEX_BYTES = b"0123456789+-.eE", b"0123456789-"
MAX_INDEX = 1 << 62  # NumPy turns larger numbers into the largest without a word
_FOREIGN, _NUMBER, _SEPARATOR = 0, 1, 2


def uniform_floats(lines: list[bytes], keyword: bytes) -> Float[np.ndarray, "line column"] | None:
    """Numbers of lines ``keyword x y ...`` with the same count in each, or None."""
    text = _without_keyword(lines, keyword)
    if text is None:
        return None
    places = _separators(text, _FLOAT_BYTES, b"\n ")
    if places is None or (np.diff(places) < 2).any() or len(places) % len(lines):
        return None
    numbers = _numbers(text, np.float64)
    # No word is empty, so as many numbers as words means one number in each.
    if numbers is None or len(numbers) != len(places):
        return None
    kinds = np.frombuffer(text, np.uint8)[places].reshape(len(lines), -1)
    if (kinds[:, 0] != NEWLINE).any() or (kinds[:, 1:] != SPACE).any():
        return None
    return numbers.reshape(len(lines), -1)


def uniform_faces(
    lines: list[bytes],
) -> tuple[Int64[np.ndarray, "corner 3"], Int64[np.ndarray, " line"]] | None:
    """Raw indices (0 for none) of the corners of faces that all refer to the same things, or None.

    Returns:
        Position, uv and normal of every corner as in the file, and the corners of each face.
    """
    text = _without_keyword(lines, b"f")
    if text is None:
        return None
    places = _separators(text, _INDEX_BYTES, b"\n /")
    if places is None:
        return None
    slashes = text.count(b"/") // max(1, len(places) - text.count(b"/"))
    double = text.count(b"//")
    if slashes > 2 or len(places) % (1 + slashes):
        return None
    kinds = np.frombuffer(text, np.uint8)[places].reshape(-1, 1 + slashes)
    columns = {(0, 0): [0], (1, 0): [0, 1], (2, 0): [0, 1, 2], (2, len(kinds)): [0, 2]}.get(
        (slashes, double)
    )
    starts_line = kinds[:, 0] == NEWLINE
    if columns is None or (kinds[:, 0] == SLASH).any() or (kinds[:, 1:] != SLASH).any():
        return None
    if int((np.diff(places) < 2).sum()) != double:
        return None
    numbers = _numbers(text.replace(b"/", b" "), np.int64)
    if numbers is None or len(numbers) != len(kinds) * len(columns):
        return None
    if (numbers == 0).any() or numbers.max() > MAX_INDEX or numbers.min() < -MAX_INDEX:
        return None
    corners = np.zeros((len(kinds), 3), dtype=np.int64)
    corners[:, columns] = numbers.reshape(len(kinds), len(columns))
    sizes = np.diff(np.append(np.flatnonzero(starts_line), len(kinds)))
    return corners, sizes


def _without_keyword(lines: list[bytes], keyword: bytes) -> bytes | None:
    """All lines behind a line end each, without their first word."""
    if not lines:
        return None
    text = b"\n" + b"\n".join(lines)
    head = b"\n" + keyword + b" "
    if text.count(head) != len(lines):
        return None
    text = text.replace(head, b"\n")
    while b"  " in text:  # 3ds Max writes two spaces behind the keyword
        text = text.replace(b"  ", b" ")
    return text.replace(b"\n ", b"\n").replace(b" \n", b"\n").rstrip(b" ")


def _separators(
    text: bytes, number_bytes: bytes, separator_bytes: bytes
) -> Int64[np.ndarray, " separator"] | None:
    """Where the separators stand; None if there are other characters or a word without end."""
    classes = np.full(256, _FOREIGN, dtype=np.uint8)
    classes[list(number_bytes)] = _NUMBER
    classes[list(separator_bytes)] = _SEPARATOR
    kinds: UInt8[np.ndarray, " byte"] = classes[np.frombuffer(text, np.uint8)]
    if (kinds == _FOREIGN).any() or kinds[-1] == _SEPARATOR:
        return None
    places = np.flatnonzero(kinds == _SEPARATOR)
    if np.diff(np.append(places, len(text))).max() > MAX_TOKEN_BYTES:
        return None
    return places


def _numbers(text: bytes, dtype: type) -> np.ndarray | None:
    """The numbers of a text, or None where NumPy stops before its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # older NumPy: stopped too early
        try:
            return np.fromstring(text, dtype=dtype, sep=" ")
        except (ValueError, DeprecationWarning):
            return None
