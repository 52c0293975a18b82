"""Contains the outer layers of glTF 2.0 files: the GLB chunks, the JSON and the buffers.

Reference: Khronos glTF 2.0 specification, sections 3.6 (buffers) and 4 (GLB).
"""

from __future__ import annotations

import base64
import json
import re
import struct
from typing import Any

from .files import SiblingLoader, decode_uri
from .json_fields import JsonObject, parse_json, pick
from .limits import MAX_FILE_BYTES, require_at_most

GLB_MAGIC = b"glTF"
CHUNK_JSON = 0x4E4F534A
CHUNK_BIN = 0x004E4942

_DATA_URI = re.compile(r"^data:([^,]*?)(;base64)?,", re.IGNORECASE)
_HARMLESS_EXTENSIONS = {
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_lights_punctual",
    "KHR_node_visibility",
    "KHR_xmp_json_ld",
    "EXT_texture_webp",
}
_COMPRESSIONS = {"KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression"}


class GltfDocument:
    """A parsed glTF file: its JSON and access to the bytes of its buffer views."""

    def __init__(
        self, json_object: JsonObject, binary: bytes | None, load_sibling: SiblingLoader
    ) -> None:
        """Take the parts of a file; see `open_gltf`."""
        self.json = json_object
        self.views = json_object.children("bufferViews")
        self._buffers = json_object.children("buffers")
        self._binary = binary
        self._load_sibling = load_sibling
        self._loaded: dict[int, bytes] = {}

    def buffer(self, index: int) -> bytes:
        """Bytes of a buffer, exactly as many as it declares."""
        if index not in self._loaded:
            entry = pick(self._buffers, index, "buffer")
            length = entry.integer("byteLength")
            if entry.has("uri"):
                data = self.resource(entry.text("uri"))
            elif index == 0 and self._binary is not None:
                data = self._binary
            else:
                raise ValueError(f"{entry.where} has no data (no uri and no binary chunk).")
            if len(data) < length:
                raise ValueError(
                    f"{entry.where} declares {length:,} bytes, but only {len(data):,} are there; "
                    "the file is truncated."
                )
            self._loaded[index] = data[:length]
        return self._loaded[index]

    def view(self, index: int) -> tuple[bytes, int, int]:
        """Buffer, offset and length of a buffer view, checked against the buffer."""
        entry = pick(self.views, index, "bufferView")
        if _COMPRESSIONS & entry.child("extensions").data.keys():
            raise _compression_error()
        data = self.buffer(entry.integer("buffer"))
        offset, length = entry.integer("byteOffset", 0), entry.integer("byteLength")
        if offset + length > len(data):
            raise ValueError(
                f"{entry.where} reaches to byte {offset + length:,} of a buffer of {len(data):,}."
            )
        return data, offset, length

    def resource(self, uri: str) -> bytes:
        """Bytes behind a data URI or a file name beside the glTF file."""
        match = _DATA_URI.match(uri)
        if match is None:
            return self._load_sibling(decode_uri(uri))
        if not match[2]:
            return decode_uri(uri[match.end() :]).encode("latin-1", "replace")
        try:
            return base64.b64decode(uri[match.end() :], validate=True)
        except ValueError as error:
            raise ValueError(f"a data URI is damaged: {error}") from error


def open_gltf(data: bytes, load_sibling: SiblingLoader) -> GltfDocument:
    """Parse the bytes of a .glb or .gltf file.

    Raises:
        ValueError: damaged, another version than 2, or it needs an extension we do not have.
    """
    json_bytes, binary = split_glb(data) if data.startswith(GLB_MAGIC) else (data, None)
    document = parse_json(json_bytes)
    version = document.child("asset").text("version")
    if not version.startswith("2."):
        raise ValueError(f"glTF version {version[:20]!r} is not supported, only 2.x; re-export it.")
    _check_extensions(document)
    return GltfDocument(document, binary, load_sibling)


def split_glb(data: bytes) -> tuple[bytes, bytes | None]:
    """JSON and binary chunk of a GLB, whose header lengths are checked."""
    if len(data) < 20:
        raise ValueError(f"only {len(data)} bytes, too short for a GLB; the file is truncated.")
    _, version, total = struct.unpack_from("<4sII", data)
    if version != 2:
        raise ValueError(f"GLB version {version} is not supported, only 2; re-export the file.")
    if total > len(data):
        raise ValueError(
            f"the GLB header declares {total:,} bytes, but the file has {len(data):,}; "
            "it is truncated."
        )
    chunks: dict[int, bytes] = {}
    position = 12
    while position + 8 <= total:
        length, kind = struct.unpack_from("<II", data, position)
        position += 8
        if position + length > total:
            raise ValueError(
                f"a GLB chunk declares {length:,} bytes, but only {total - position:,} are left; "
                "the file is truncated or damaged."
            )
        chunks.setdefault(kind, data[position : position + length])
        position += length
    if CHUNK_JSON not in chunks:
        raise ValueError("the GLB has no JSON chunk; the file is damaged.")
    return chunks[CHUNK_JSON], chunks.get(CHUNK_BIN)


def join_glb(document: dict[str, Any], binary: bytes) -> bytes:
    """Bytes of a GLB: header, JSON padded with spaces, binary padded with zeros."""
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    json_bytes = text.encode("utf-8")
    json_bytes += b" " * (-len(json_bytes) % 4)
    binary += b"\0" * (-len(binary) % 4)
    total = 12 + 8 + len(json_bytes) + 8 + len(binary)
    require_at_most("bytes of the GLB", total, MAX_FILE_BYTES)
    return b"".join(
        [
            struct.pack("<4sII", GLB_MAGIC, 2, total),
            struct.pack("<II", len(json_bytes), CHUNK_JSON),
            json_bytes,
            struct.pack("<II", len(binary), CHUNK_BIN),
            binary,
        ]
    )


def _check_extensions(document: JsonObject) -> None:
    required = set(document.texts("extensionsRequired"))
    if required & _COMPRESSIONS:
        raise _compression_error()
    unknown = sorted(
        name for name in required - _HARMLESS_EXTENSIONS if not name.startswith("KHR_materials_")
    )
    if unknown:
        raise ValueError(
            f"needs the glTF extensions {', '.join(unknown)[:200]}, which are not supported; "
            "re-export it without them."
        )


def _compression_error() -> ValueError:
    return ValueError(
        "its geometry is compressed (Draco or meshopt), which is not supported; re-export it "
        "without compression, for example with `npx @gltf-transform/cli copy in.glb out.glb`."
    )
