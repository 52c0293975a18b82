"""Contains Gaussians as PLY in the layout of the 3D Gaussian splatting trainers.

Per Gaussian, float32: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_* (channel-major: all of red, then
green, then blue), opacity (logit), scale_0..2 (natural logarithm), rot_0..3 (wxyz).
Reference: Kerbl et al. 2023, and their released trainer's files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np

from ..gaussian_cloud import MAX_SH_DEGREE, GaussianCloud
from .arrays import to_array, to_tensor
from .limits import MAX_GAUSSIANS, require_at_most
from .ply_container import PlyElement, decode_ply, encode_ply
from .ply_mesh import is_splat_ply

LOGGER = logging.getLogger(__name__)

OPACITY_MARGIN = 1e-6
"""Opacities are kept this far from 0 and 1, where the logit is infinite."""

MIN_SCALE = 1e-12
"""Scales are kept above this, because zero has no logarithm."""

FLAT_SCALE = 1e-6
"""Thickness given to the discs of 2D Gaussian splatting, whose files have two scales."""


def encode_splat_ply(cloud: GaussianCloud) -> bytes:
    """PLY bytes of a cloud, whose frame is written as it is."""
    count, num_rest = cloud.num_gaussians, cloud.harmonics.shape[1] - 1
    names = [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(3 * num_rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]
    harmonics = to_array(cloud.harmonics)
    opacities = np.clip(to_array(cloud.opacities, "<f8"), OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    table = np.empty((count, len(names)), dtype="<f4")
    table[:, 0:3] = to_array(cloud.means)
    table[:, 3:6] = 0.0
    table[:, 6:9] = harmonics[:, 0]
    table[:, 9 : 9 + 3 * num_rest] = harmonics[:, 1:].transpose(0, 2, 1).reshape(count, -1)
    table[:, -8] = np.log(opacities / (1 - opacities))
    table[:, -7:-4] = np.log(np.maximum(to_array(cloud.scales, "<f8"), MIN_SCALE))
    table[:, -4:] = to_array(cloud.quats)
    rows = table.view(np.dtype([(name, "<f4") for name in names])).reshape(-1)
    return encode_ply([("vertex", rows)])


def decode_splat_ply(data: bytes) -> GaussianCloud:
    """Cloud of a PLY, in the frame of the file; columns are found by name, not by place.

    Raises:
        ValueError: damaged, not Gaussians, or holding NaN.
    """
    elements = decode_ply(data)
    vertex = elements.get("vertex", PlyElement(0))
    _require_plain_gaussians(elements, vertex)
    require_at_most("Gaussians", vertex.count, MAX_GAUSSIANS)
    columns = vertex.columns
    scales = _stack(columns, [f"scale_{i}" for i in range(3) if f"scale_{i}" in columns])
    with np.errstate(over="ignore", invalid="ignore"):
        scales = np.exp(scales)
        opacities = 1 / (1 + np.exp(-columns["opacity"].astype(np.float64)))
    if scales.shape[1] == 2:
        LOGGER.info("Flat Gaussians (two scales): the third is set to %g.", FLAT_SCALE)
        scales = np.concatenate([scales, np.full((vertex.count, 1), FLAT_SCALE)], axis=1)
    return GaussianCloud.from_unnormalized(
        means=to_tensor(_stack(columns, ["x", "y", "z"])),
        scales=to_tensor(scales),
        quats=to_tensor(_stack(columns, [f"rot_{i}" for i in range(4)])),
        opacities=to_tensor(opacities),
        harmonics=to_tensor(_read_harmonics(columns)),
    )


def _require_plain_gaussians(elements: Mapping[str, PlyElement], vertex: PlyElement) -> None:
    if "packed_position" in vertex.columns:
        raise ValueError(
            "it is a PlayCanvas compressed PLY, which is not supported; convert it with "
            "`npx @playcanvas/splat-transform in.compressed.ply out.ply`."
        )
    if not is_splat_ply(elements):
        raise ValueError("it holds no Gaussians (no scale_0 and rot_0); is it a mesh?")
    needed = [
        *("x", "y", "z", "opacity", "scale_1"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]
    missing = [name for name in needed if name not in vertex.columns]
    if missing:
        raise ValueError(f"its Gaussians lack the properties {', '.join(missing)}.")


def _read_harmonics(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Coefficients [gaussian, coefficient, 3], constant first."""
    constant = _stack(columns, [f"f_dc_{i}" for i in range(3)])[:, None]
    num_rest = sum(name.startswith("f_rest_") for name in columns)
    names = [f"f_rest_{i}" for i in range(num_rest)]
    degree = math.isqrt(num_rest // 3 + 1) - 1
    if 3 * ((degree + 1) ** 2 - 1) != num_rest or not set(names) <= columns.keys():
        raise ValueError(f"it has {num_rest} f_rest properties, expected 0, 9, 24 or 45.")
    if degree > MAX_SH_DEGREE:
        raise ValueError(f"its harmonics have degree {degree}, at most {MAX_SH_DEGREE} are read.")
    if not num_rest:
        return constant
    rest = _stack(columns, names).reshape(len(constant), 3, -1).transpose(0, 2, 1)
    return np.concatenate([constant, rest], axis=1)


def _stack(columns: Mapping[str, np.ndarray], names: list[str]) -> np.ndarray:
    # Infinite values become infinite, and the noun refuses them with a count.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([columns[name].astype(np.float32) for name in names], axis=1)
