"""Contains the lines of Wavefront OBJ files as arrays: numbers, corners, parts.

Lines are sorted by their first word all at once, because files have millions of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from .arrays import parse_numbers
from .limits import MAX_FACES, MAX_TOKEN_BYTES, MAX_VERTICES, require_at_most
from .obj_uniform import uniform_faces, uniform_floats

ABSENT = -1

_ATTRIBUTES = ("vertex", "texture coordinate", "normal")


@dataclass(frozen=True)
class ObjText:
    """An OBJ file before its polygons are cut.

    Attributes:
        vertices: positions.
        colors: sRGB 0..1, NaN for vertices without one; None when no vertex has one.
        uvs: texture coordinates, turned to core's origin at the top left.
        normals: as in the file, of any length.
        corners: indices of vertex, uv and normal of every face corner; -1 for none.
        face_sizes: corners of each face.
        face_parts: index into ``parts`` for each face.
        parts: object (or group) and material names, in the order of their first faces.
        libraries: names of material libraries.
    """

    vertices: Float[np.ndarray, "vertex 3"]
    colors: Float[np.ndarray, "vertex 3"] | None
    uvs: Float[np.ndarray, "uv 2"]
    normals: Float[np.ndarray, "normal 3"]
    corners: Int64[np.ndarray, "corner 3"]
    face_sizes: Int64[np.ndarray, " face"]
    face_parts: Int64[np.ndarray, " face"]
    parts: list[tuple[str, str]]
    libraries: list[str]


def parse_obj(data: bytes) -> ObjText:
    """Parse the lines of an OBJ file.

    Raises:
        ValueError: damaged numbers, indices out of range, or no faces.
    """
    joined = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").replace(b"\t", b" ")
    lines = joined.splitlines()
    heads = np.array([line[:2] for line in lines] or [b""], dtype="S2")
    for index in np.flatnonzero(np.char.startswith(heads, b" ")):
        lines[index] = lines[index].strip()
        heads[index] = lines[index][:2]
    where = {head: np.flatnonzero(heads == head) for head in (b"v ", b"vt", b"vn", b"f ")}
    if not where[b"f "].size:
        raise ValueError("it holds no faces.")
    require_at_most("vertices", where[b"v "].size, MAX_VERTICES)
    require_at_most("faces", where[b"f "].size, MAX_FACES)
    vertices, colors = _parse_vertices([lines[i] for i in where[b"v "]])
    uvs = _columns([lines[i] for i in where[b"vt"]], b"vt", 2, "texture coordinates")
    uvs[:, 1] = 1.0 - uvs[:, 1]  # OBJ counts v from the bottom
    normals = _columns([lines[i] for i in where[b"vn"]], b"vn", 3, "normals")
    raw, sizes = _parse_faces([lines[i] for i in where[b"f "]])
    # Negative indices count back from what stands above their line.
    above = [np.searchsorted(where[head], where[b"f "]) for head in (b"v ", b"vt", b"vn")]
    corners = _resolve(raw, np.stack(above, axis=1), sizes)
    _check_range(corners, (len(vertices), len(uvs), len(normals)))
    other = np.flatnonzero(~np.isin(heads, [*where, b"", b"#", b"# "]))
    face_parts, parts, libraries = _parse_parts(lines, other, where[b"f "])
    return ObjText(vertices, colors, uvs, normals, corners, sizes, face_parts, parts, libraries)


def _tokens(lines: list[bytes], keyword: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Words of lines that begin with a keyword, without it, and their number in each line."""
    text = b" ".join(lines)
    if b"#" in text:
        text = b" ".join(line.partition(b"#")[0] for line in lines)
    words = text.split()
    if words and max(map(len, words)) > MAX_TOKEN_BYTES:
        raise ValueError(f"a line of {keyword.decode()!r} has an endless word; it is damaged.")
    array = np.array(words or [b""])[: len(words)]
    starts = np.flatnonzero(array == keyword)
    if len(starts) != len(lines):
        raise ValueError(f"a line of {keyword.decode()!r} is not understood; the file is damaged.")
    return np.delete(array, starts), np.diff(np.append(starts, len(array))) - 1


def _columns(lines: list[bytes], keyword: bytes, columns: int, what: str) -> np.ndarray:
    """The first numbers of every line, as an array of its own."""
    table = uniform_floats(lines, keyword)
    if table is not None and table.shape[1] >= columns:
        return table[:, :columns].copy()
    return _columns_of_tokens(*_tokens(lines, keyword), columns, what)


def _columns_of_tokens(
    tokens: np.ndarray, counts: np.ndarray, columns: int, what: str
) -> np.ndarray:
    if not counts.size:
        return np.zeros((0, columns))
    if counts.min() < columns:
        raise ValueError(f"a line of {what} has {counts.min()} numbers, expected {columns}.")
    starts = np.cumsum(counts) - counts
    return parse_numbers(tokens[starts[:, None] + np.arange(columns)], "f8", what)


def _parse_vertices(lines: list[bytes]) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions, and sRGB colours (``v x y z r g b``) where vertices have them."""
    table = uniform_floats(lines, b"v")
    if table is not None and table.shape[1] >= 3:
        colors = np.clip(table[:, 3:6], 0.0, 1.0) if table.shape[1] >= 6 else None
        return table[:, :3].copy(), colors
    tokens, counts = _tokens(lines, b"v")
    positions = _columns_of_tokens(tokens, counts, 3, "vertices")
    colored = np.flatnonzero(counts >= 6)  # four numbers are x y z w
    if not colored.size:
        return positions, None
    places = (np.cumsum(counts) - counts)[colored, None] + np.arange(3, 6)
    colors = np.full((len(counts), 3), np.nan)
    colors[colored] = np.clip(parse_numbers(tokens[places], "f8", "colours"), 0.0, 1.0)
    return positions, colors


def _parse_faces(
    lines: list[bytes],
) -> tuple[Int64[np.ndarray, "corner 3"], Int64[np.ndarray, " face"]]:
    """Raw indices of position, uv and normal, 0 where a corner has none; corners of each face."""
    quick = uniform_faces(lines)
    if quick is not None:
        return quick
    tokens, sizes = _tokens(lines, b"f")
    return _parse_corners(tokens), sizes


def _parse_corners(tokens: np.ndarray) -> Int64[np.ndarray, "corner 3"]:
    """Raw indices of position, uv and normal, 0 where a corner has none."""
    corners = np.zeros((len(tokens), 3), dtype=np.int64)
    stripped = np.char.rstrip(tokens, b"/")  # "7/" is a position alone
    slashes = np.where(np.char.find(stripped, b"//") >= 0, -2, np.char.count(stripped, b"/"))
    for shape in np.unique(slashes):
        columns = {0: [0], 1: [0, 1], 2: [0, 1, 2], -2: [0, 2]}.get(int(shape))
        if columns is None:
            raise ValueError("a face has a corner with more than three indices.")
        members = np.flatnonzero(slashes == shape)
        numbers = b" ".join(stripped[members].tolist()).replace(b"/", b" ").split()
        if len(numbers) != len(members) * len(columns):
            raise ValueError("a face has a corner with an empty index.")
        values = parse_numbers(numbers, "i8", "face indices").reshape(-1, len(columns))
        if (values == 0).any():
            raise ValueError("a face uses index 0, but OBJ counts from 1.")
        corners[members[:, None], columns] = values
    return corners


def _resolve(
    raw: Int64[np.ndarray, "corner 3"],
    above: Int64[np.ndarray, "face 3"],
    sizes: Int64[np.ndarray, " face"],
) -> Int64[np.ndarray, "corner 3"]:
    """Indices from 0, with -1 for none."""
    if not (raw < 0).any():
        return raw - 1
    relative = np.repeat(above, sizes, axis=0) + raw
    if ((raw < 0) & (relative < 0)).any():
        raise ValueError("a negative face index reaches back before the start of the file.")
    return np.where(raw < 0, relative, raw - 1)


def _check_range(corners: Int64[np.ndarray, "corner 3"], counts: tuple[int, int, int]) -> None:
    highest = corners.max(axis=0, initial=ABSENT)
    for what, used, count in zip(_ATTRIBUTES, highest, counts, strict=True):
        if used >= count:
            raise ValueError(f"a face uses {what} {used + 1}, but the file has {count}.")


def _parse_parts(
    lines: list[bytes], other: np.ndarray, face_lines: np.ndarray
) -> tuple[Int64[np.ndarray, " face"], list[tuple[str, str]], list[str]]:
    """Part of each face, names of the parts that have faces, and material libraries."""
    names = {b"o": "", b"g": "", b"usemtl": ""}
    libraries: list[str] = []
    change_lines, changes = [-1], [("", "")]
    for index in other:
        keyword, _, rest = lines[index].strip().partition(b" ")
        text = rest.strip().decode("utf-8", "replace")
        if keyword == b"mtllib":
            libraries.append(text)
        elif keyword in names:
            names[keyword] = text
            change_lines.append(int(index))
            changes.append((names[b"o"] or names[b"g"], names[b"usemtl"]))
    current = np.searchsorted(change_lines, face_lines) - 1
    parts: dict[tuple[str, str], int] = {}
    part_of_change = np.zeros(len(changes), dtype=np.int64)
    for change in np.unique(current):
        part_of_change[change] = parts.setdefault(changes[change], len(parts))
    return part_of_change[current], list(parts), libraries
