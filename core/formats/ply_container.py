"""Contains the PLY container: header and elements, ASCII and binary, as arrays by name.

Reference: Turk 1994, The PLY Polygon File Format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .arrays import parse_numbers
from .limits import MAX_FACES, MAX_HEADER_BYTES, MAX_TEXT_BYTES, require_at_most

Encoding = Literal["ascii", "<", ">"]

_ENCODINGS: dict[str, Encoding] = {
    "ascii": "ascii", "binary_little_endian": "<", "binary_big_endian": ">",
}  # fmt: skip
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


@dataclass(frozen=True)
class PlyProperty:
    """One declared property; ``count_type`` is set for lists."""

    name: str
    value_type: str
    count_type: str | None = None


@dataclass(frozen=True)
class PlyElement:
    """One element with its data.

    Attributes:
        count: number of rows.
        columns: scalar properties by name, [count].
        lists: list properties by name: lengths [count] and all values one after the other.
    """

    count: int
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    lists: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Declaration:
    name: str
    count: int
    properties: list[PlyProperty] = field(default_factory=list)


def decode_ply(data: bytes) -> dict[str, PlyElement]:
    """All elements of a PLY file by name.

    Raises:
        ValueError: the header is damaged or lies about the data.
    """
    encoding, declarations, start = _parse_header(data)
    source: _TextRows | _BinaryRows
    if encoding == "ascii":
        require_at_most("bytes of text", len(data), MAX_TEXT_BYTES)
        source = _TextRows(data[start:].split())
    else:
        source = _BinaryRows(data, start, encoding)
    elements = {}
    for declaration in declarations:
        elements[declaration.name] = _read_element(source, declaration)
    return elements


def encode_ply(elements: list[tuple[str, np.ndarray]], comments: tuple[str, ...] = ()) -> bytes:
    """Binary little-endian PLY of structured arrays.

    A field of subarray type [n] is written by the caller as a pair of fields ``#name`` (uint8
    length) and ``name``, and declared as a list.
    """
    names = {"u1": "uchar", "i4": "int", "u4": "uint", "f4": "float", "f8": "double"}
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in comments)]
    for element, rows in elements:
        header.append(f"element {element} {len(rows)}")
        for name in rows.dtype.names or ():
            kind, shape = rows.dtype[name].base.str[1:], rows.dtype[name].shape
            if shape:
                header.append(f"property list uchar {names[kind]} {name}")
            elif not name.startswith("#"):
                header.append(f"property {names[kind]} {name}")
    head = "\n".join([*header, "end_header", ""]).encode("ascii", "replace")
    return b"".join([head, *(rows.tobytes() for _, rows in elements)])


def _parse_header(data: bytes) -> tuple[Encoding, list[_Declaration], int]:
    end = data.find(b"end_header", 0, MAX_HEADER_BYTES)
    line_end = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or line_end < 0:
        raise ValueError("its PLY header is missing or has no end; the file is damaged.")
    encoding: Encoding | None = None
    declarations: list[_Declaration] = []
    for line in data[:end].decode("latin-1").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) > 1:
            encoding = _ENCODINGS.get(words[1])
        elif words[0] == "element" and len(words) == 3:
            if not words[2].isdecimal() or len(words[2]) > 15:
                raise ValueError(f"PLY element {words[1][:40]!r} has the count {words[2][:40]!r}.")
            declarations.append(_Declaration(words[1], int(words[2])))
        elif words[0] == "property" and declarations:
            declarations[-1].properties.append(_parse_property(words))
        else:
            raise ValueError(f"PLY header line {line[:60]!r} is not understood.")
    if encoding is None:
        raise ValueError("its PLY header names no known format (ascii or binary).")
    _check_names(declarations)
    return encoding, declarations, line_end + 1


def _parse_property(words: list[str]) -> PlyProperty:
    is_list = words[1:2] == ["list"]
    kinds = words[2:4] if is_list else words[1:2]
    if len(words) != (5 if is_list else 3) or not set(kinds) <= _TYPES.keys():
        raise ValueError(f"PLY property {' '.join(words)[:60]!r} is not understood.")
    if not is_list:
        return PlyProperty(words[-1], _TYPES[kinds[0]])
    if _TYPES[kinds[0]][0] == "f":
        raise ValueError(f"PLY list {words[-1][:40]!r} has a length that is no whole number.")
    return PlyProperty(words[-1], _TYPES[kinds[1]], _TYPES[kinds[0]])


def _check_names(declarations: list[_Declaration]) -> None:
    groups = [[entry.name for entry in d.properties] for d in declarations]
    for names in [[d.name for d in declarations], *groups]:
        if len(set(names)) < len(names):
            raise ValueError("its PLY header declares the same name twice.")


def _read_element(source: _TextRows | _BinaryRows, declaration: _Declaration) -> PlyElement:
    count, properties = declaration.count, declaration.properties
    if not properties or not count:
        return PlyElement(count if properties else 0)
    require_at_most(f"PLY elements {declaration.name[:40]!r}", count, MAX_FACES)
    lengths = source.first_lengths(properties)
    rows = source.uniform(properties, count, lengths)
    if rows is None:
        return _read_ragged(source, declaration)
    columns = {p.name: rows[p.name] for p in properties if p.count_type is None}
    lists = {
        p.name: (np.full(count, rows[p.name].shape[1]), rows[p.name].reshape(-1))
        for p in properties
        if p.count_type is not None
    }
    return PlyElement(count, columns, lists)


def _read_ragged(source: _TextRows | _BinaryRows, declaration: _Declaration) -> PlyElement:
    """Row by row, for lists of different lengths."""
    values: dict[str, list] = {p.name: [] for p in declaration.properties}
    for _ in range(declaration.count):
        for entry in declaration.properties:
            values[entry.name].append(source.next_value(entry))
    columns, lists = {}, {}
    for entry in declaration.properties:
        items = values[entry.name]
        if entry.count_type is None:
            columns[entry.name] = np.concatenate(items)
        else:
            lengths = np.asarray([len(item) for item in items], dtype=np.int64)
            lists[entry.name] = (lengths, np.concatenate(items))
    return PlyElement(declaration.count, columns, lists)


class _BinaryRows:
    def __init__(self, data: bytes, start: int, order: str) -> None:
        self._data, self._position, self._order = data, start, order

    def first_lengths(self, properties: list[PlyProperty]) -> dict[str, int]:
        """Lengths of the lists of the next row, which is not consumed."""
        position, lengths = self._position, {}
        for entry in properties:
            if entry.count_type is not None:
                lengths[entry.name] = len(self.next_value(entry))
            else:
                self.next_value(entry)
        self._position = position
        return lengths

    def uniform(
        self, properties: list[PlyProperty], count: int, lengths: dict[str, int]
    ) -> dict[str, np.ndarray] | None:
        """All rows at once if their lists have the same lengths as in the first row."""
        fields: list[tuple] = []
        for entry in properties:
            value = self._order + entry.value_type
            if entry.count_type is None:
                fields.append((entry.name, value))
            else:
                fields.append((f"#{entry.name}", self._order + entry.count_type))
                fields.append((entry.name, value, (lengths[entry.name],)))
        dtype = np.dtype(fields)
        if self._position + dtype.itemsize * count > len(self._data):
            if lengths:
                return None
            raise _truncated(count)
        rows = np.frombuffer(self._data, dtype, count, self._position)
        if any((rows[f"#{name}"] != length).any() for name, length in lengths.items()):
            return None
        self._position += dtype.itemsize * count
        return {entry.name: rows[entry.name] for entry in properties}

    def next_value(self, entry: PlyProperty) -> np.ndarray:
        """The next scalar (as one element) or list."""
        if entry.count_type is None:
            return self._take(entry.value_type, 1)
        return self._take(entry.value_type, int(self._take(entry.count_type, 1)[0]))

    def _take(self, kind: str, count: int) -> np.ndarray:
        dtype = np.dtype(self._order + kind)
        end = self._position + dtype.itemsize * count
        if count < 0 or end > len(self._data):
            raise _truncated(count)
        values = np.frombuffer(self._data, dtype, count, self._position)
        self._position = end
        return values


class _TextRows:
    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens, self._position = tokens, 0

    def first_lengths(self, properties: list[PlyProperty]) -> dict[str, int]:
        """Lengths of the lists of the next row, which is not consumed."""
        position, lengths = self._position, {}
        for entry in properties:
            value = self.next_value(entry)
            if entry.count_type is not None:
                lengths[entry.name] = len(value)
        self._position = position
        return lengths

    def uniform(
        self, properties: list[PlyProperty], count: int, lengths: dict[str, int]
    ) -> dict[str, np.ndarray] | None:
        """All rows at once if their lists have the same lengths as in the first row."""
        width = sum(1 + lengths.get(entry.name, 0) for entry in properties)
        tokens = self._tokens[self._position : self._position + width * count]
        if len(tokens) < width * count:
            if lengths:
                return None
            raise _truncated(count)
        rows = parse_numbers(tokens, "f8", "PLY values").reshape(count, width)
        found, column = {}, 0
        for entry in properties:
            if entry.count_type is None:
                found[entry.name] = _cast(rows[:, column], entry.value_type)
            else:
                length = lengths[entry.name]
                if (rows[:, column] != length).any():
                    return None
                values = rows[:, column + 1 : column + 1 + length]
                found[entry.name] = _cast(values, entry.value_type)
                column += length
            column += 1
        self._position += width * count
        return found

    def next_value(self, entry: PlyProperty) -> np.ndarray:
        """The next scalar (as one element) or list."""
        if entry.count_type is None:
            return self._take(entry.value_type, 1)
        count = self._take("f8", 1)[0]
        if not 0 <= count <= len(self._tokens) or count != int(count):
            raise ValueError(f"a PLY list has the length {count}; the file is damaged.")
        return self._take(entry.value_type, int(count))

    def _take(self, kind: str, count: int) -> np.ndarray:
        tokens = self._tokens[self._position : self._position + count]
        if len(tokens) < count:
            raise _truncated(count)
        self._position += count
        return _cast(parse_numbers(tokens, "f8", "PLY values"), kind)


def _cast(values: np.ndarray, kind: str) -> np.ndarray:
    dtype = np.dtype(kind)
    if dtype.kind != "f" and values.size:
        bounds = np.iinfo(dtype)
        if not ((values >= bounds.min) & (values <= bounds.max)).all():
            raise ValueError(f"a PLY value does not fit its declared type {kind}.")
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def _truncated(count: int) -> ValueError:
    return ValueError(
        f"its PLY data ends before the {count:,} values that the header declares; it is truncated."
    )
