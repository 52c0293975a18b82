"""Contains Gaussians as .splat: 32 bytes each, no header, no view-dependent colour.

Per Gaussian: position and linear scale as float32, colour and opacity as 8 bits each, rotation
wxyz as 8 bits each (128 stands for 0).
Reference: the web viewer of K. Kwok (antimatter15/splat).
"""

from __future__ import annotations

import numpy as np

from ..gaussian_cloud import HARMONIC_DC, GaussianCloud
from .arrays import to_array, to_tensor
from .limits import MAX_GAUSSIANS, require_at_most

RECORD = np.dtype(
    [
        ("mean", "<f4", 3),
        ("scale", "<f4", 3),
        ("color", "u1", 3),
        ("alpha", "u1"),
        ("quat", "u1", 4),
    ]
)


def encode_splat_file(cloud: GaussianCloud) -> bytes:
    """Bytes of a .splat file, the most visible Gaussians first, as viewers load progressively.

    Only the constant colour is kept; it is clipped to 0..1.
    """
    records = np.zeros(cloud.num_gaussians, dtype=RECORD)
    scales, opacities = to_array(cloud.scales), to_array(cloud.opacities)
    records["mean"], records["scale"] = to_array(cloud.means), scales
    records["color"] = _to_byte(to_array(cloud.base_colors) * 255)
    records["alpha"] = _to_byte(opacities * 255)
    records["quat"] = _to_byte(to_array(cloud.quats) * 128 + 128)
    visibility = scales.astype(np.float64).prod(axis=1) * opacities
    return records[np.argsort(-visibility, kind="stable")].tobytes()


def decode_splat_file(data: bytes) -> GaussianCloud:
    """Cloud of a .splat file, in the frame and order of the file.

    Raises:
        ValueError: the size is no multiple of 32, or a value is NaN or negative.
    """
    if len(data) % RECORD.itemsize:
        raise ValueError(
            f"its size of {len(data):,} bytes is no multiple of {RECORD.itemsize}; it is truncated "
            "or no .splat file."
        )
    require_at_most("Gaussians", len(data) // RECORD.itemsize, MAX_GAUSSIANS)
    records = np.frombuffer(data, RECORD)
    colors = records["color"].astype(np.float32) / 255
    return GaussianCloud.from_unnormalized(
        means=to_tensor(records["mean"]),
        scales=to_tensor(records["scale"]),
        quats=to_tensor((records["quat"].astype(np.float32) - 128) / 128),
        opacities=to_tensor(records["alpha"].astype(np.float32) / 255),
        harmonics=to_tensor((colors[:, None] - 0.5) / HARMONIC_DC),
    )


def _to_byte(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
