"""Contains the cameras of a distillation: random views whose ranges grow while the object forms.

Every draw follows from (seed, iteration) alone, so a resumed run sees the same views.

Reference: GE3D's released code (z-up there; polar 45..90 degrees are elevations 45..0 here).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import Camera, ViewRig, make_look_at_pose, make_orbit_pose

POSES, OPENINGS = 0, 1
MAX_AZIMUTH_DEG = 180.0


@dataclass(frozen=True)
class CameraScheduleParams:
    """Ranges of the cameras, and how they grow.

    An expansion happens at iteration ``expand_from`` and then at every ``expand_every``-th. It
    widens the azimuths, brings the cameras nearer and widens the fields of view, up to the ends.

    Attributes:
        elevation_deg: lowest and highest camera.
        azimuth_begin_deg: azimuths lie within plus and minus this at first.
        azimuth_end_deg: and within this at last; 180 is all round.
        azimuth_growth: factor of an expansion.
        radius_begin: nearest and farthest camera at first.
        radius_end: the same at last.
        radius_growth: factor of an expansion, usually below 1.
        fov_begin_deg: smallest and largest vertical field of view at first.
        fov_end_deg: the same at last.
        fov_growth: factors of an expansion for the smallest and the largest.
        expand_from: iteration of the first expansion.
        expand_every: iterations between two; 0 for none.
        concentration: exponent of the law mid +- u^concentration * half range of azimuths and
            elevations; above 1 cameras gather near the front.
        same_fov: so many views in a row share a field of view.
        center_jitter: largest offset of the camera along each axis.
        target_jitter: standard deviation of the point it looks at.
        up_jitter: standard deviation of its upward direction.
    """

    elevation_deg: tuple[float, float] = (0.0, 45.0)
    azimuth_begin_deg: float = 80.0
    azimuth_end_deg: float = 180.0
    azimuth_growth: float = 1.5
    radius_begin: tuple[float, float] = (5.2, 5.5)
    radius_end: tuple[float, float] = (3.5, 5.0)
    radius_growth: float = 0.95
    fov_begin_deg: tuple[float, float] = (18.33, 34.38)
    fov_end_deg: tuple[float, float] = (9.17, 34.38)
    fov_growth: tuple[float, float] = (0.75, 1.1)
    expand_from: int = 100
    expand_every: int = 100
    concentration: float = 1.5
    same_fov: int = 10
    center_jitter: float = 0.025
    target_jitter: float = 0.05
    up_jitter: float = 0.01

    def __post_init__(self) -> None:
        low, high = self.elevation_deg
        if not -90 <= low <= high <= 90:
            raise ValueError(f"elevation_deg must rise within -90..90, got {self.elevation_deg}.")
        for name in ("azimuth_begin_deg", "azimuth_end_deg"):
            if not 0 <= getattr(self, name) <= MAX_AZIMUTH_DEG:
                raise ValueError(f"{name} must lie within 0..180, got {getattr(self, name)}.")
        for name in ("radius_begin", "radius_end", "fov_begin_deg", "fov_end_deg"):
            first, last = getattr(self, name)
            if not 0 < first <= last:
                raise ValueError(f"{name} must be positive and rise, got {(first, last)}.")
        if max(self.fov_begin_deg[1], self.fov_end_deg[1]) >= 180:
            raise ValueError("Fields of view must be below 180 degrees.")
        if self.expand_every < 0 or self.same_fov < 1 or not self.concentration > 0:
            raise ValueError(
                "expand_every must be at least 0, same_fov at least 1 and concentration positive, "
                f"got {self.expand_every}, {self.same_fov} and {self.concentration}."
            )


@dataclass(frozen=True)
class CameraRanges:
    """Ranges at one iteration.

    Attributes:
        azimuth_deg: largest azimuth to either side.
        radius: nearest and farthest camera.
        fov_deg: smallest and largest vertical field of view.
    """

    azimuth_deg: float
    radius: tuple[float, float]
    fov_deg: tuple[float, float]


@dataclass(frozen=True)
class SampledViews:
    """Cameras of one iteration.

    Attributes:
        rig: one camera per view.
        azimuths_deg: -180..180 before the jitter; 0 sees the front.
        elevations_deg: before the jitter.
    """

    rig: ViewRig
    azimuths_deg: Float[Tensor, " view"]
    elevations_deg: Float[Tensor, " view"]


def ranges_at(params: CameraScheduleParams, iteration: int) -> CameraRanges:
    """Ranges after all expansions up to ``iteration`` (from 0)."""
    times = 0
    if params.expand_every and iteration >= params.expand_from:
        times = (iteration - params.expand_from) // params.expand_every + 1
    radius = [
        _grown(begin, end, params.radius_growth, times)
        for begin, end in zip(params.radius_begin, params.radius_end, strict=True)
    ]
    fov = [
        _grown(begin, end, growth, times)
        for begin, end, growth in zip(
            params.fov_begin_deg, params.fov_end_deg, params.fov_growth, strict=True
        )
    ]
    azimuth = _grown(params.azimuth_begin_deg, params.azimuth_end_deg, params.azimuth_growth, times)
    return CameraRanges(azimuth, (radius[0], radius[1]), (fov[0], fov[1]))


def _grown(begin: float, end: float, factor: float, times: int) -> float:
    """``begin`` after some expansions, never beyond ``end``."""
    value = begin * factor**times
    return min(max(value, min(begin, end)), max(begin, end))


def sample_views(
    params: CameraScheduleParams, iteration: int, num_views: int, seed: int
) -> SampledViews:
    """Cameras of an iteration; the same arguments give the same cameras."""
    if num_views < 1:
        raise ValueError(f"An iteration needs at least one view, got {num_views}.")
    ranges = ranges_at(params, iteration)
    generator = step_generator(seed, POSES, iteration)
    azimuths = _concentrated(
        -ranges.azimuth_deg, ranges.azimuth_deg, params.concentration, num_views, generator
    )
    elevations = _concentrated(*params.elevation_deg, params.concentration, num_views, generator)
    share = torch.rand(num_views, generator=generator)
    radii = ranges.radius[0] + share * (ranges.radius[1] - ranges.radius[0])
    cameras, names = [], []
    for index in range(num_views):
        pose = make_orbit_pose(*(float(x[index]) for x in (azimuths, elevations, radii)))
        pose = _jittered(pose, params, generator)
        fov = _field_of_view(ranges, params, iteration * num_views + index, seed)
        cameras.append(Camera(pose, fov_y_deg=fov))
        names.append(f"azimuth {float(azimuths[index]):.0f}")
    return SampledViews(ViewRig(tuple(cameras), tuple(names)), azimuths, elevations)


def step_generator(seed: int, stream: int, index: int) -> torch.Generator:
    """Random numbers of one step and purpose, whatever happened before."""
    mixed = (seed * 1_000_003 + index) * 16 + stream
    return torch.Generator().manual_seed(mixed % (2**63))


def _concentrated(
    low: float, high: float, exponent: float, count: int, generator: torch.Generator
) -> Tensor:
    share = torch.rand(count, generator=generator) ** exponent
    sign = torch.randint(2, (count,), generator=generator) * 2 - 1
    return (low + high) / 2 + sign * share * (high - low) / 2


def _jittered(pose: Tensor, params: CameraScheduleParams, generator: torch.Generator) -> Tensor:
    center = pose[:3, 3] + params.center_jitter * (2 * torch.rand(3, generator=generator) - 1)
    target = params.target_jitter * torch.randn(3, generator=generator)
    up = pose[:3, 1] + params.up_jitter * torch.randn(3, generator=generator)
    return make_look_at_pose(center.tolist(), target.tolist(), up.tolist())


def _field_of_view(
    ranges: CameraRanges, params: CameraScheduleParams, number: int, seed: int
) -> float:
    generator = step_generator(seed, OPENINGS, number // params.same_fov)
    low, high = ranges.fov_deg
    return low + float(torch.rand((), generator=generator)) * (high - low)
