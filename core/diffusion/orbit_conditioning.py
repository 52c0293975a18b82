"""Contains what an orbit video model of the SV3D family is told: poses per frame, and guidance.

An orbit has one elevation per frame and azimuths all round; one frame is the given picture. In the
vector that SV3D_p is told, azimuths count from that frame and polar angles from the pole:

    vector = [noise of the picture 256 | polar angle 512 | azimuth 512], each cosines before sines

SV3D_u is told the first part only and assumes an even orbit.

Reference: Voleti et al. 2024, "SV3D", Sec. 3; its released sampling code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig, make_orbit_rig

OrbitKind = Literal["p", "u"]
OrbitOrder = Literal["input last", "input first", "input at both ends"]
ORBIT_ORDERS: tuple[OrbitOrder, ...] = ("input last", "input first", "input at both ends")

PICTURE_NOISE = 1e-5
"""Noise level of the given picture that SV3D was trained with and is told."""

NOISE_CHANNELS = 256
ANGLE_CHANNELS = 512
VECTOR_CHANNELS: dict[OrbitKind, int] = {
    "u": NOISE_CHANNELS,
    "p": NOISE_CHANNELS + 2 * ANGLE_CHANNELS,
}
LONGEST_PERIOD = 10_000.0
MIN_FRAMES = 2
SAME_AZIMUTH_DEG = 1e-3


@dataclass(frozen=True)
class OrbitPoses:
    """Poses of the frames of an orbit.

    Attributes:
        azimuths_deg: of each frame, 0 at the given picture; they grow counter-clockwise seen from
            above, so that the camera at 90 stands at the picture's right.
        elevations_deg: of each frame, 90 from above.
    """

    azimuths_deg: tuple[float, ...]
    elevations_deg: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.azimuths_deg)
        if count < MIN_FRAMES:
            raise ValueError(f"An orbit needs at least {MIN_FRAMES} frames, got {count}.")
        if len(self.elevations_deg) != count:
            raise ValueError(
                f"Give one elevation per frame: got {len(self.elevations_deg)} elevations for "
                f"{count} frames."
            )
        if not all(math.isfinite(azimuth) for azimuth in self.azimuths_deg):
            raise ValueError(f"Azimuths must be finite, got {self.azimuths_deg}.")
        outside = [value for value in self.elevations_deg if not -90.0 <= value <= 90.0]
        if outside:
            raise ValueError(f"Elevations must lie within -90..90 degrees, got {outside[0]}.")

    def __len__(self) -> int:
        return len(self.azimuths_deg)

    @property
    def wrapped_azimuths_deg(self) -> tuple[float, ...]:
        """Azimuths within 0..360."""
        return tuple(azimuth % 360.0 for azimuth in self.azimuths_deg)

    @property
    def input_frame(self) -> int | None:
        """Index of the frame that is the given picture; None if no frame has its azimuth."""
        away = [min(azimuth, 360.0 - azimuth) for azimuth in self.wrapped_azimuths_deg]
        nearest = min(range(len(away)), key=away.__getitem__)
        return nearest if away[nearest] < SAME_AZIMUTH_DEG else None

    def rig(self, *, radius: float, fov_y_deg: float, clockwise: bool = False) -> ViewRig:
        """Cameras of the frames; the given picture sees the front (+Z).

        Args:
            radius: of the orbit in world units.
            fov_y_deg: vertical field of view.
            clockwise: the frames turn the other way round.
        """
        sign = -1.0 if clockwise else 1.0
        azimuths = [(sign * azimuth) % 360.0 for azimuth in self.azimuths_deg]
        return make_orbit_rig(azimuths, self.elevations_deg, radius=radius, fov_y_deg=fov_y_deg)

    def rolled(self, steps: int) -> OrbitPoses:
        """The frames moved on by ``steps`` places, the last ones to the beginning."""
        count = len(self)

        def roll(values: Sequence[float]) -> tuple[float, ...]:
            return tuple(values[(index - steps) % count] for index in range(count))

        return OrbitPoses(roll(self.azimuths_deg), roll(self.elevations_deg))


def make_orbit_poses(
    num_frames: int,
    elevations_deg: float | Sequence[float],
    order: OrbitOrder = "input last",
) -> OrbitPoses:
    """Poses of an even orbit.

    Args:
        num_frames: 21 as SV3D was trained, 16 in GSV3D.
        elevations_deg: one for all frames or one each.
        order: "input last" as in SV3D's own code (azimuths 360/N, ..., 360), "input first" as in
            GSV3D (0, 360/N, ...), or "input at both ends" as in ComfyUI's SV3D_Conditioning
            (0, 360/(N-1), ..., 360: the first and the last frame are the same view).

    Raises:
        ValueError: fewer than two frames, elevations that do not match, an unknown order.
    """
    if num_frames < MIN_FRAMES:
        raise ValueError(f"An orbit needs at least {MIN_FRAMES} frames, got {num_frames}.")
    if isinstance(elevations_deg, (int, float)):
        elevations = (float(elevations_deg),) * num_frames
    else:
        elevations = tuple(float(value) for value in elevations_deg)
    steps = num_frames - 1 if order == "input at both ends" else num_frames
    first = {"input last": 1, "input first": 0, "input at both ends": 0}
    if order not in first:
        raise ValueError(f"Unknown order '{order}'; choose one of {', '.join(ORBIT_ORDERS)}.")
    azimuths = tuple(360.0 * (index + first[order]) / steps for index in range(num_frames))
    return OrbitPoses(azimuths, elevations)


def parse_numbers(text: str, what: str) -> tuple[float, ...]:
    """Numbers that people type: separated by commas, spaces or lines.

    Raises:
        ValueError: a part is no number.
    """
    parts = text.replace(",", " ").replace(";", " ").split()
    try:
        return tuple(float(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"{what} must be numbers separated by commas, got {text!r}.") from error


def embed_sinusoid(
    values: Float[Tensor, " frame"], channels: int
) -> Float[Tensor, "frame {channels}"]:
    """Cosines, then sines, of values times frequencies 10000^(-2 i / channels).

    Reference: Vaswani et al. 2017, Sec. 3.5, in the order of latent diffusion's code.
    """
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float64) / half
    angles = values.double()[:, None] * LONGEST_PERIOD ** -exponents.to(values.device)
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def embed_poses(
    poses: OrbitPoses, kind: OrbitKind = "p", picture_noise: float = PICTURE_NOISE
) -> Float[Tensor, "frame channel"]:
    """The vector of each frame; see the module's head."""
    noise = embed_sinusoid(torch.full((len(poses),), picture_noise), NOISE_CHANNELS)
    if kind == "u":
        return noise
    polar = torch.tensor([math.radians(90.0 - value) for value in poses.elevations_deg])
    azimuth = torch.tensor([math.radians(value) for value in poses.wrapped_azimuths_deg])
    angles = [embed_sinusoid(values, ANGLE_CHANNELS) for values in (polar, azimuth)]
    return torch.cat([noise, *angles], dim=1)


def triangle_guidance(
    num_frames: int, scale: float = 2.5, smallest: float = 1.0
) -> Float[Tensor, " frame"]:
    """Guidance scale of each frame: ``smallest`` at both ends, ``scale`` half way.

    Reference: SV3D's released code; the same as ComfyUI's VideoTriangleCFGGuidance.
    """
    if num_frames < MIN_FRAMES:
        raise ValueError(f"An orbit needs at least {MIN_FRAMES} frames, got {num_frames}.")
    position = torch.linspace(0, 1, num_frames)
    return smallest + (scale - smallest) * (1 - (2 * position - 1).abs())
