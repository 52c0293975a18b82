"""Contains the decoding of glTF accessors to arrays.

Reference: Khronos glTF 2.0 specification, section 3.6.2 (accessors, sparse, normalised integers).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

from .gltf_container import GltfDocument
from .json_fields import JsonObject, pick
from .limits import MAX_FACES, require_at_most

COMPONENT_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
ELEMENT_SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class AccessorReader:
    """Reads the accessors of one document, each checked against its buffer view."""

    def __init__(self, document: GltfDocument) -> None:
        """Take the document whose accessors are wanted."""
        self._document = document
        self._accessors = document.json.children("accessors")

    def floats(self, index: int, columns: tuple[int, ...]) -> Float[np.ndarray, "element column"]:
        """Values as numbers; normalised integers become 0..1 or -1..1.

        Args:
            index: which accessor.
            columns: accepted numbers of components, such as (3, 4) for colours.
        """
        accessor = pick(self._accessors, index, "accessor")
        raw = self._read(accessor)
        if raw.shape[1] not in columns:
            raise ValueError(
                f"{accessor.where} has {raw.shape[1]} components, expected "
                f"{' or '.join(map(str, columns))}."
            )
        if raw.dtype.kind == "f" or not accessor.flag("normalized"):
            return raw.astype(np.float32)
        largest = float(np.iinfo(raw.dtype).max)
        return np.maximum(raw.astype(np.float32) / np.float32(largest), -1.0)

    def indices(self, index: int) -> Int64[np.ndarray, " element"]:
        """Vertex indices."""
        accessor = pick(self._accessors, index, "accessor")
        raw = self._read(accessor)
        if raw.shape[1] != 1 or raw.dtype.kind != "u":
            raise ValueError(f"{accessor.where} must hold unsigned whole numbers to be indices.")
        return raw[:, 0].astype(np.int64)

    def _read(self, accessor: JsonObject) -> np.ndarray:
        kind = accessor.text("type")
        component = accessor.integer("componentType")
        if kind not in ELEMENT_SIZES or component not in COMPONENT_TYPES:
            raise ValueError(
                f"{accessor.where} has type {kind[:20]!r} of component {component}, which "
                "meshes do not use."
            )
        dtype, columns = np.dtype(COMPONENT_TYPES[component]), ELEMENT_SIZES[kind]
        count = accessor.integer("count")
        require_at_most(f"elements of {accessor.where}", count, 3 * MAX_FACES)
        if accessor.has("bufferView"):
            values = self._dense(accessor, accessor, "count", dtype, columns)
        else:
            values = np.zeros((count, columns), dtype)
        if accessor.has("sparse"):
            values = self._substitute(values.copy(), accessor.child("sparse"))
        return values

    def _dense(
        self,
        entry: JsonObject,
        counted: JsonObject,
        count_key: str,
        dtype: np.dtype,
        columns: int,
    ) -> np.ndarray:
        view_index = entry.integer("bufferView")
        data, view_offset, view_length = self._document.view(view_index)
        offset, count = entry.integer("byteOffset", 0), counted.integer(count_key)
        size = dtype.itemsize * columns
        stride = self._document.views[view_index].integer("byteStride", size)
        if stride < size or stride > 252 and stride != size:
            raise ValueError(
                f"bufferViews[{view_index}] has a byteStride of {stride}, expected {size}..252."
            )
        needed = offset + (stride * (count - 1) + size if count else 0)
        if needed > view_length:
            raise ValueError(
                f"{entry.where} needs {needed:,} bytes of a bufferView of {view_length:,}."
            )
        return np.ndarray(
            (count, columns), dtype, data, view_offset + offset, (stride, dtype.itemsize)
        )

    def _substitute(self, values: np.ndarray, sparse: JsonObject) -> np.ndarray:
        indices = sparse.child("indices")
        component = COMPONENT_TYPES.get(indices.integer("componentType"), "<f4")
        if np.dtype(component).kind != "u":
            raise ValueError(f"{indices.where}.componentType must be an unsigned integer type.")
        rows = self._dense(indices, sparse, "count", np.dtype(component), 1)[:, 0].astype(np.int64)
        if rows.size and int(rows.max()) >= len(values):
            raise ValueError(f"{sparse.where} replaces element {int(rows.max())} of {len(values)}.")
        values[rows] = self._dense(
            sparse.child("values"), sparse, "count", values.dtype, values.shape[1]
        )
        return values
