"""Contains STL: bare triangles, without colours, names or shared vertices.

Reference: 3D Systems, StereoLithography Interface Specification 1988 (binary: an 80-byte header,
the number of facets, 50 bytes per facet).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

import numpy as np
import torch

from ..geometry.normals import face_normals
from ..mesh import Mesh, merge_meshes
from .arrays import merge_equal_rows, parse_numbers, to_array, to_tensor
from .limits import MAX_FACES, MAX_TEXT_BYTES, require_at_most

FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
HEADER_BYTES = 84

_VERTEX = re.compile(rb"\bvertex\s+(\S+)\s+(\S+)\s+(\S+)", re.IGNORECASE)
_FACET_END = re.compile(rb"\bendfacet\b", re.IGNORECASE)


def encode_stl(meshes: Sequence[Mesh]) -> bytes:
    """Binary STL of all meshes together."""
    merged = merge_meshes(meshes)
    if merged.is_empty:
        raise ValueError("There is nothing to write: no mesh has a face.")
    vertices = merged.vertices.detach().cpu()
    faces = merged.faces.cpu()
    facets = np.zeros(merged.num_faces, dtype=FACET)
    facets["corners"] = to_array(vertices[faces])
    facets["normal"] = to_array(face_normals(vertices, faces))
    header = b"Lift3D binary STL, +Y up, +Z front".ljust(80, b" ")  # must not begin with "solid"
    return header + struct.pack("<I", merged.num_faces) + facets.tobytes()


def decode_stl(data: bytes) -> list[Mesh]:
    """The mesh of a binary or ASCII STL; corners at equal positions become one vertex.

    Raises:
        ValueError: truncated, damaged, or no facets.
    """
    corners = _read_ascii(data) if _is_ascii(data) else _read_binary(data)
    if not len(corners):
        raise ValueError("it holds no facets.")
    first, group = merge_equal_rows(corners)
    vertices, faces = to_tensor(corners[first]), to_tensor(group.reshape(-1, 3), torch.int64)
    return [Mesh(vertices, faces)]


def _is_ascii(data: bytes) -> bool:
    # Some binary files begin with "solid" too; their size gives them away.
    if not data.lstrip()[:5].lower() == b"solid":
        return False
    if len(data) < HEADER_BYTES:
        return True
    return len(data) != HEADER_BYTES + FACET.itemsize * struct.unpack_from("<I", data, 80)[0]


def _read_binary(data: bytes) -> np.ndarray:
    if len(data) < HEADER_BYTES:
        raise ValueError(f"only {len(data)} bytes, too short for an STL; the file is truncated.")
    count = struct.unpack_from("<I", data, 80)[0]
    needed = HEADER_BYTES + FACET.itemsize * count
    if needed > len(data):
        raise ValueError(
            f"the header declares {count:,} facets ({needed:,} bytes), but the file has "
            f"{len(data):,} bytes; it is truncated or no STL."
        )
    require_at_most("faces", count, MAX_FACES)
    return np.frombuffer(data, FACET, count, HEADER_BYTES)["corners"].reshape(-1, 3)


def _read_ascii(data: bytes) -> np.ndarray:
    require_at_most("bytes of text", len(data), MAX_TEXT_BYTES)
    rows = _VERTEX.findall(data)
    num_facets = len(_FACET_END.findall(data))
    if len(rows) != 3 * num_facets:
        raise ValueError(
            f"it has {len(rows)} vertices in {num_facets} complete facets; the file is truncated."
        )
    require_at_most("faces", num_facets, MAX_FACES)
    tokens = [token for row in rows for token in row]
    return parse_numbers(tokens, "f8", "vertices").astype(np.float32).reshape(-1, 3)
