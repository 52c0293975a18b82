"""Contains the reading of point clouds: PLY, and the ``.npz`` files that Point-E saves."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from .arrays import to_tensor
from .files import read_bounded
from .limits import MAX_VERTICES, require_at_most
from .mesh_files import blamed_on
from .ply_container import PlyElement, decode_ply
from .ply_mesh import read_vertex_colors

POINT_SUFFIXES = (".ply", ".npz")
BYTES_PER_VALUE = 8
MAX_HEADER_BYTES = 4096


@dataclass(frozen=True)
class PointCloud:
    """Points in the world frame (+Y up, +Z front).

    Attributes:
        points: positions.
        colors: sRGB 0..1, or None.
    """

    points: Float[Tensor, "point 3"]
    colors: Float[Tensor, "point 3"] | None = None

    def __post_init__(self) -> None:
        require_shape("points", self.points, None, 3)
        require_finite("points", self.points)
        if self.colors is not None:
            require_shape("colors", self.colors, len(self.points), 3)
            require_finite("colors", self.colors)


def read_point_cloud(path: str | Path) -> PointCloud:
    """Points of a .ply file (taken as +Y up) or of a .npz file of Point-E (+Z up there).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged, too large, or without points; the message names the file.
    """
    path = Path(path)
    with blamed_on(path.name):
        data = read_bounded(path)
        if data[:2] == b"PK":
            return _decode_point_e(data)
        if path.suffix.lower() != ".ply":
            raise ValueError(f"it is none of {', '.join(POINT_SUFFIXES)}.")
        return _decode_ply_points(data)


def _decode_ply_points(data: bytes) -> PointCloud:
    columns = decode_ply(data).get("vertex", PlyElement(0)).columns
    if not {"x", "y", "z"} <= columns.keys() or not len(columns["x"]):
        raise ValueError("it holds no points with x, y and z.")
    require_at_most("points", len(columns["x"]), MAX_VERTICES)
    points = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
    colors = read_vertex_colors(columns)
    return PointCloud(to_tensor(points), None if colors is None else to_tensor(colors))


def _decode_point_e(data: bytes) -> PointCloud:
    """``coords`` [point, 3] and ``R``, ``G``, ``B`` [point]; turned from +Z up to +Y up."""
    arrays = _read_npz(data)
    coords = arrays.get("coords")
    if coords is None or coords.ndim != 2 or coords.shape[1] != 3 or not len(coords):
        raise ValueError("it holds no array 'coords' of points as Point-E saves it.")
    points = to_tensor(coords.astype(np.float64))
    points = torch.stack([points[:, 0], points[:, 2], -points[:, 1]], dim=1)
    channels = [arrays.get(name) for name in "RGB"]
    known = [channel for channel in channels if channel is not None]
    if len(known) < 3:
        return PointCloud(points)
    if any(channel.shape != (len(coords),) for channel in known):
        raise ValueError("its colours R, G, B do not belong to its points.")
    colors = np.clip(np.stack([channel.astype(np.float64) for channel in known], axis=1), 0, 1)
    return PointCloud(points, to_tensor(colors))


def _read_npz(data: bytes) -> dict[str, np.ndarray]:
    largest = 3 * MAX_VERTICES * BYTES_PER_VALUE + MAX_HEADER_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                require_at_most(f"bytes in {entry.filename}", entry.file_size, largest)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            wanted = [name for name in ("coords", "R", "G", "B") if name in arrays.files]
            found = {name: arrays[name] for name in wanted}
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, NotImplementedError) as error:
        raise ValueError(f"its archive is damaged ({error}).") from error
    for name, array in found.items():
        if array.dtype.kind not in "fiu":
            raise ValueError(f"its array '{name}' holds no numbers.")
    return found
