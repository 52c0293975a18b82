"""Cameras of a distillation: growing ranges, the law of the draws, repeatability."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.pipelines.camera_schedule import (
    CameraScheduleParams,
    ranges_at,
    sample_views,
)

STILL = CameraScheduleParams(
    azimuth_begin_deg=0.0, azimuth_end_deg=0.0, elevation_deg=(0.0, 0.0),
    center_jitter=0.0, target_jitter=0.0, up_jitter=0.0,
)  # fmt: skip


def test_the_first_camera_sees_the_front() -> None:
    views = sample_views(STILL, 0, 1, seed=0)
    camera = views.rig[0]
    torch.testing.assert_close(camera.camera_to_world[:3, 2], torch.tensor([0.0, 0.0, 1.0]))
    assert 5.2 <= float(camera.position[2]) <= 5.5


def test_published_ranges_expand_to_their_ends() -> None:
    params = CameraScheduleParams()
    begin, once, end = (ranges_at(params, k) for k in (99, 100, 2999))
    assert (begin.azimuth_deg, once.azimuth_deg, end.azimuth_deg) == (80.0, 120.0, 180.0)
    assert begin.radius == (5.2, 5.5) and end.radius == (3.5, 5.0)
    assert once.radius == pytest.approx((5.2 * 0.95, 5.5 * 0.95))
    # 0.32..0.60 rad, down to 0.16
    assert begin.fov_deg == pytest.approx((18.33, 34.38)) and end.fov_deg[0] == 9.17


def test_ranges_only_ever_grow() -> None:
    params = CameraScheduleParams()
    rows = [ranges_at(params, k) for k in range(0, 3000, 50)]
    for now, after in zip(rows, rows[1:], strict=False):
        assert after.azimuth_deg >= now.azimuth_deg
        assert after.radius[0] <= now.radius[0] and after.radius[1] <= now.radius[1]
        assert after.fov_deg[0] <= now.fov_deg[0]


def test_without_expansions_ranges_stay() -> None:
    params = CameraScheduleParams(expand_every=0)
    assert ranges_at(params, 0) == ranges_at(params, 2999)


def test_views_lie_within_their_ranges() -> None:
    params = CameraScheduleParams()
    for iteration in (0, 150, 2000):
        ranges = ranges_at(params, iteration)
        views = sample_views(params, iteration, 16, seed=3)
        assert float(views.azimuths_deg.abs().max()) <= ranges.azimuth_deg
        assert 0 <= float(views.elevations_deg.min()) and float(views.elevations_deg.max()) <= 45
        for camera in views.rig:
            distance = float(camera.position.norm())
            assert ranges.radius[0] - 0.05 <= distance <= ranges.radius[1] + 0.05
            assert ranges.fov_deg[0] <= camera.fov_y_deg <= ranges.fov_deg[1]


def test_views_gather_round_the_middle_and_have_it_as_their_mean() -> None:
    params = replace(CameraScheduleParams(), azimuth_begin_deg=100.0, expand_every=0)
    azimuths = torch.cat([sample_views(params, k, 16, 0).azimuths_deg for k in range(250)])
    assert abs(float(azimuths.mean())) < 3.0
    # |x| = 100 u^1.5: half of the draws lie below 100 * 0.5^1.5
    inside = float((azimuths.abs() < 100 * 0.5**1.5).float().mean())
    assert inside == pytest.approx(0.5, abs=0.03)


def test_neighbouring_views_share_a_field_of_view() -> None:
    params = CameraScheduleParams(same_fov=10)
    fovs = [c.fov_y_deg for k in range(5) for c in sample_views(params, k, 4, 0).rig]
    assert len(set(fovs[:10])) == 1 and len(set(fovs[10:])) == 1 and fovs[0] != fovs[10]


def test_views_follow_from_seed_and_iteration() -> None:
    params = CameraScheduleParams()
    first, again, later, other = (
        sample_views(params, k, 4, seed).rig[3].camera_to_world
        for k, seed in ((7, 1), (7, 1), (8, 1), (7, 2))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elevation_deg": (50.0, 20.0)}, "must rise within"),
        ({"azimuth_end_deg": 200.0}, "within 0..180"),
        ({"radius_begin": (0.0, 2.0)}, "must be positive and rise"),
        ({"fov_end_deg": (10.0, 180.0)}, "below 180"),
        ({"expand_every": -1}, "at least 0"),
    ],
)
def test_senseless_ranges_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        CameraScheduleParams(**change)


def test_no_views_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one view"):
        sample_views(STILL, 0, 0, 0)
