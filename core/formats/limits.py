"""Contains the bounds on what a file may make us allocate, each a named constant.

A header is a claim by a stranger: readers compare it with these bounds and with the bytes that
are really there before they reserve memory.
"""

from __future__ import annotations

MAX_FILE_BYTES = 2**31
"""Largest file that is read at all (2 GiB)."""

MAX_TEXT_BYTES = 2**29
"""Largest text body (OBJ, ASCII PLY, ASCII STL): its tokens take several times its size."""

MAX_JSON_BYTES = 2**26
"""Largest JSON document of a glTF file."""

MAX_JSON_DEPTH = 128
"""Deepest nesting of that JSON; ComfyUI workflows in ``asset.extras`` stay far below."""

MAX_HEADER_BYTES = 2**16
"""Longest PLY header."""

MAX_TOKEN_BYTES = 64
"""Longest number in a text file."""

MAX_VERTICES = 2**24
"""Most vertices of all meshes of one file together."""

MAX_FACES = 2**25
"""Most triangles of all meshes of one file together."""

MAX_PARTS = 2**14
"""Most meshes (node times primitive) of one file."""

MAX_POLYGON_CORNERS = 1024
"""Most corners of one polygon."""

MAX_GAUSSIANS = 2**24
"""Most Gaussians of one file."""

MAX_IMAGE_PIXELS = 2**26
"""Largest texture (8192 x 8192)."""

MAX_EXPANSION = 100
"""Largest ratio of unpacked to packed bytes of an SPZ file; real clouds stay below 20."""

EXPANSION_FREE_BYTES = 2**26
"""Unpacked size up to which any ratio is accepted: it does no harm."""


def require_at_most(what: str, value: int, limit: int) -> None:
    """Raise ValueError if ``value`` exceeds ``limit``."""
    if value > limit:
        raise ValueError(f"{what}: {value:,}, but at most {limit:,} are accepted.")
