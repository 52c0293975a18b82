"""Contains Gaussians as SPZ: gzip over quantised columns. Version 3 is written, 1 to 3 are read.

Inside gzip: a header of 16 bytes, then positions (24-bit fixed point), opacities, colours, scales,
rotations and harmonics, each for all Gaussians. Quantisation: position 1/4096, opacity 1/255,
constant coefficient 1/38.25, log scale 1/16, rotation components 1/723 (version 3), harmonics
1/16 (degree 1) and 1/8 (above).

The file does not say which way is up. ComfyUI, Spark and splat-transform 3 turn nothing and expect
the 3DGS frame, as in .ply; Niantic's library and splat-transform 2 turn data between that frame
and right, up, back (our world frame) when they are told of it. The caller chooses with ``frame`` of
`write_splats` and `read_splats`.
Reference: Niantic Labs, SPZ file format, versions 1 to 3.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from ..gaussian_cloud import MAX_SH_DEGREE, GaussianCloud
from .arrays import to_array, to_tensor
from .limits import EXPANSION_FREE_BYTES, MAX_EXPANSION, MAX_GAUSSIANS, require_at_most

MAGIC = 0x5053474E
HEADER = struct.Struct("<IIIBBBB")
DEFAULT_FRACTIONAL_BITS = 12
LARGEST_FIXED = 2**23 - 1
COLOR_SCALE = 0.15
EXTENSIONS_FLAG = 2
DEGREE_1_STEP, HIGHER_STEP = 8, 16
"""Rounding of the stored byte: 5 bits are kept of degree 1 and 4 bits above."""

_SQRT_HALF = 0.5**0.5
_MAGNITUDE_MASK = (1 << 9) - 1
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""The components stored when the largest of (x, y, z, w) is number 0, 1, 2 or 3."""


@dataclass(frozen=True)
class SpzHeader:
    """The first 16 bytes inside gzip."""

    version: int
    count: int
    sh_degree: int
    fractional_bits: int
    flags: int

    @property
    def column_bytes(self) -> tuple[int, int, int, int, int, int]:
        """Bytes per Gaussian: position, opacity, colour, scale, rotation, harmonics."""
        position = 6 if self.version == 1 else 9
        rotation = 4 if self.version == 3 else 3
        return position, 1, 3, 3, rotation, 3 * ((self.sh_degree + 1) ** 2 - 1)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all columns."""
        return self.count * sum(self.column_bytes)


def encode_spz(cloud: GaussianCloud, *, compression_level: int = 3) -> bytes:
    """Bytes of an SPZ file of version 3; order is kept, values are rounded as the module says."""
    means = to_array(cloud.means, "<f8")
    bits = _choose_fractional_bits(float(np.abs(means).max(initial=0.0)))
    header = HEADER.pack(MAGIC, 3, cloud.num_gaussians, cloud.sh_degree, bits, 0, 0)
    harmonics = to_array(cloud.harmonics)
    log_scales = np.log(np.maximum(to_array(cloud.scales), 1e-12))
    columns = [
        _encode_fixed(np.rint(means * 2.0**bits).astype("<i4")),
        _to_byte(to_array(cloud.opacities) * 255),
        _to_byte((harmonics[:, 0] * COLOR_SCALE + 0.5) * 255),
        _to_byte((log_scales + 10) * 16),
        encode_smallest_three(to_array(cloud.quats, "<f8")[:, [1, 2, 3, 0]]),
        _encode_harmonics(harmonics[:, 1:]),
    ]
    packer = zlib.compressobj(compression_level, zlib.DEFLATED, 31)  # 31: gzip wrapper
    packed = [packer.compress(part) for part in (header, *(c.tobytes() for c in columns))]
    return b"".join([*packed, packer.flush()])


def decode_spz(data: bytes) -> GaussianCloud:
    """Cloud of an SPZ file of version 1, 2 or 3, in the frame of the file.

    Raises:
        ValueError: damaged, truncated, of version 4, or unpacking to more than it declares.
    """
    header, payload = _unpack(data)
    columns, start = [], 0
    for size in header.column_bytes:
        end = start + header.count * size
        columns.append(np.frombuffer(payload, np.uint8, end - start, start))
        start = end
    positions, opacities, colors, scales, rotations, harmonics = columns
    constant = (colors.astype(np.float32) / 255 - 0.5) / COLOR_SCALE
    rest = (harmonics.astype(np.float32) - 128) / 128
    num_rest = (header.sh_degree + 1) ** 2 - 1
    coefficients = [constant.reshape(-1, 1, 3), rest.reshape(header.count, num_rest, 3)]
    quats_xyzw = (
        decode_smallest_three(rotations) if header.version == 3 else _decode_first_three(rotations)
    )
    return GaussianCloud.from_unnormalized(
        means=to_tensor(_decode_positions(positions, header)),
        scales=to_tensor(np.exp(scales.astype(np.float32) / 16 - 10).reshape(-1, 3)),
        quats=to_tensor(quats_xyzw[:, [3, 0, 1, 2]]),
        opacities=to_tensor(opacities.astype(np.float32) / 255),
        harmonics=to_tensor(np.concatenate(coefficients, axis=1)),
    )


def encode_smallest_three(quats_xyzw: np.ndarray) -> np.ndarray:
    """32 bits per unit quaternion: index of the largest, sign and 9 bits of the other three."""
    largest = np.abs(quats_xyzw).argmax(axis=1)
    rows = np.arange(len(quats_xyzw))
    flipped = quats_xyzw[rows, largest] < 0  # -q is the same rotation, so the largest is positive
    packed = largest.astype(np.uint32)
    for column in _OTHERS[largest].T:
        component = quats_xyzw[rows, column]
        magnitude = np.floor(_MAGNITUDE_MASK * np.abs(component) / _SQRT_HALF + 0.5)
        magnitude = np.minimum(magnitude, _MAGNITUDE_MASK).astype(np.uint32)
        negative = ((component < 0) ^ flipped).astype(np.uint32)
        packed = (packed << 10) | (negative << 9) | magnitude
    return packed.astype("<u4")


def decode_smallest_three(stored: np.ndarray) -> np.ndarray:
    """Quaternions xyzw from the bytes of `encode_smallest_three`."""
    packed = stored.view("<u4").astype(np.uint32)
    largest = (packed >> 30).astype(np.int64)
    rows = np.arange(len(packed))
    quats = np.zeros((len(packed), 4))
    for shift, column in zip((20, 10, 0), _OTHERS[largest].T, strict=True):
        field = packed >> np.uint32(shift)
        magnitude = (field & _MAGNITUDE_MASK) * (_SQRT_HALF / _MAGNITUDE_MASK)
        quats[rows, column] = np.where((field >> np.uint32(9)) & 1, -magnitude, magnitude)
    quats[rows, largest] = np.sqrt(np.maximum(1 - (quats**2).sum(axis=1), 0))
    return quats


def _decode_first_three(stored: np.ndarray) -> np.ndarray:
    """Versions 1 and 2: x, y, z with 8 bits each and w >= 0 left over."""
    vector = stored.reshape(-1, 3).astype(np.float64) / 127.5 - 1
    w = np.sqrt(np.maximum(1 - (vector**2).sum(axis=1, keepdims=True), 0))
    return np.concatenate([vector, w], axis=1)


def _choose_fractional_bits(largest: float) -> int:
    for bits in range(DEFAULT_FRACTIONAL_BITS, -1, -1):
        if largest * 2**bits <= LARGEST_FIXED - 1:
            return bits
    raise ValueError(
        f"SPZ holds coordinates up to {LARGEST_FIXED:,}, but the cloud reaches {largest:.3g}; "
        "scale it down or write .ply."
    )


def _encode_fixed(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.reshape(-1, 1)).view(np.uint8)[:, :3].copy()


def _decode_positions(stored: np.ndarray, header: SpzHeader) -> np.ndarray:
    if header.version == 1:
        return stored.view("<f2").astype(np.float32).reshape(-1, 3)
    wide = np.zeros((header.count * 3, 4), np.uint8)
    wide[:, 1:] = stored.reshape(-1, 3)  # in the upper bytes, so that the shift keeps the sign
    fixed = wide.view("<i4").reshape(-1, 3) >> 8
    return fixed / 2.0**header.fractional_bits


def _encode_harmonics(rest: np.ndarray) -> np.ndarray:
    """Bytes of the coefficients above degree 0; the colour channel runs fastest."""
    plain = _to_byte(rest * 128 + 128)
    levels = np.arange(256)
    for columns, step in ((slice(0, 3), DEGREE_1_STEP), (slice(3, None), HIGHER_STEP)):
        rounded = np.minimum((levels + step // 2) // step * step, 255).astype(np.uint8)
        plain[:, columns] = rounded[plain[:, columns]]
    return plain


def _to_byte(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _unpack(data: bytes) -> tuple[SpzHeader, bytes]:
    if data[:4] == struct.pack("<I", MAGIC):
        raise ValueError(
            "it is SPZ version 4 (zstd), which is not supported; convert it with "
            "`npx @playcanvas/splat-transform --spz-version 3 in.spz out.spz`."
        )
    unpacker = zlib.decompressobj(31)
    try:
        start = unpacker.decompress(data, HEADER.size)
        header = _parse_header(start)
        _check_expansion(len(data), header.payload_bytes)
        # One byte more than declared tells whether there is more than declared.
        payload = unpacker.decompress(unpacker.unconsumed_tail, header.payload_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"its gzip data is damaged: {error}") from error
    if len(payload) < header.payload_bytes:
        raise ValueError(
            f"its header declares {header.count:,} Gaussians ({header.payload_bytes:,} bytes), but "
            f"only {len(payload):,} bytes are there; it is truncated."
        )
    if len(payload) > header.payload_bytes and not header.flags & EXTENSIONS_FLAG:
        raise ValueError(f"it holds more data than the {header.count:,} Gaussians it declares.")
    if len(payload) == header.payload_bytes and not unpacker.eof:
        raise ValueError("its gzip data has no end; it is truncated.")
    return header, payload


def _parse_header(start: bytes) -> SpzHeader:
    if len(start) < HEADER.size:
        raise ValueError("its gzip data ends within the header; it is truncated.")
    magic, version, count, degree, bits, flags, _ = HEADER.unpack(start)
    if magic != MAGIC:
        raise ValueError("its gzip data is no SPZ (wrong magic number).")
    if version not in (1, 2, 3):
        raise ValueError(f"SPZ version {version} is not supported, only 1 to 3.")
    require_at_most("Gaussians", count, MAX_GAUSSIANS)
    require_at_most("degree of the harmonics", degree, MAX_SH_DEGREE)
    require_at_most("fractional bits", bits, 24)
    return SpzHeader(version, count, degree, bits, flags)


def _check_expansion(packed: int, unpacked: int) -> None:
    if unpacked > max(EXPANSION_FREE_BYTES, MAX_EXPANSION * packed):
        raise ValueError(
            f"{packed:,} bytes unpack to {unpacked:,}, more than {MAX_EXPANSION} times as many; "
            "this looks like a decompression bomb."
        )
