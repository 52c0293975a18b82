"""Contains reading and writing of Gaussian files by suffix: .ply, .splat, .spz.

Files hold the 3DGS frame (+Y down, +Z forward) unless the caller says otherwise; core's clouds are
in the world frame. The turn of 180 degrees about X moves means, rotations and harmonics.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ..gaussian_cloud import GaussianCloud
from ..geometry.splat_frames import from_3dgs, world_to_3dgs
from .atomic import atomic_write
from .files import read_bounded
from .sniffing import blamed_on, sniff
from .splat_file import decode_splat_file, encode_splat_file
from .splat_ply import decode_splat_ply, encode_splat_ply
from .spz import decode_spz, encode_spz

SplatFrame = Literal["3dgs", "world"]

_DECODERS: dict[str, Callable[[bytes], GaussianCloud]] = {
    ".ply": decode_splat_ply,
    ".splat": decode_splat_file,
    ".spz": decode_spz,
}
_ENCODERS: dict[str, Callable[[GaussianCloud], bytes]] = {
    ".ply": encode_splat_ply,
    ".splat": encode_splat_file,
    ".spz": encode_spz,
}
SPLAT_SUFFIXES = tuple(_ENCODERS)


def read_splats(path: str | Path, *, frame: SplatFrame = "3dgs") -> GaussianCloud:
    """Gaussians of a .ply, .splat or .spz file, in the world frame.

    Args:
        path: the file; its content decides where it contradicts the suffix.
        frame: frame of the values in the file; "world" means that nothing is turned.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged, truncated, too large, without Gaussians; the message names the file.
    """
    path = Path(path)
    with blamed_on(path.name):
        data = read_bounded(path)
    return decode_splats(data, path.suffix, frame=frame, name=path.name)


def decode_splats(
    data: bytes, suffix: str, *, frame: SplatFrame = "3dgs", name: str = "splat data"
) -> GaussianCloud:
    """Gaussians from the bytes of a file; see `read_splats`.

    Args:
        data: bytes of the file.
        suffix: ".ply", ".splat" or ".spz".
        frame: frame of the values in the file.
        name: what to call the data in messages.
    """
    with blamed_on(name):
        decoder = _DECODERS.get(sniff(data) or suffix.lower())
        if decoder is None:
            raise ValueError(_unknown(suffix))
        cloud = decoder(data)
        if not cloud.num_gaussians:
            raise ValueError("it holds no Gaussians.")
        return from_3dgs(cloud) if frame == "3dgs" else cloud


def write_splats(path: str | Path, cloud: GaussianCloud, *, frame: SplatFrame = "3dgs") -> None:
    """Write Gaussians as .ply (exact), .splat or .spz (rounded), all or nothing.

    Args:
        path: the suffix decides the format; an existing file is replaced at the end.
        cloud: Gaussians in the world frame.
        frame: frame to write; "world" means that nothing is turned.

    Raises:
        ValueError: unknown suffix, no Gaussians, or coordinates that the format cannot hold.
    """
    path = Path(path)
    with blamed_on(path.name):
        data = encode_splats(cloud, path.suffix, frame=frame)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def encode_splats(cloud: GaussianCloud, suffix: str, *, frame: SplatFrame = "3dgs") -> bytes:
    """Bytes of a .ply, .splat or .spz file; see `write_splats`."""
    encoder = _ENCODERS.get(suffix.lower())
    if encoder is None:
        raise ValueError(_unknown(suffix))
    if not cloud.num_gaussians:
        raise ValueError("There is nothing to write: the cloud has no Gaussians.")
    return encoder(world_to_3dgs(cloud) if frame == "3dgs" else cloud)


def _unknown(suffix: str) -> str:
    return f"{suffix or 'no suffix'!r} is no splat format; use {', '.join(SPLAT_SUFFIXES)}."
