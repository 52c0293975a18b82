"""What all targets of distillation share, and Gaussians as one of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from distill_scenes import small_params, start
from lift3d.core.camera import make_orbit_rig
from lift3d.core.pipelines.distill_target import relative_disparity, total_variation
from lift3d.core.pipelines.distill_track import RunTrack, Stopwatch
from lift3d.core.pipelines.splat_target import SplatTarget, SplatTargetParams

RIG = make_orbit_rig([0.0, 90.0], 10.0, radius=4.5)
WHITE = torch.ones(2, 3)


def target(**changes) -> SplatTarget:
    params = replace(small_params().splats, **changes)
    return SplatTarget(start(60), params, iterations=10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_total_variation_of_stripes_is_known() -> None:
    stripes = torch.zeros(1, 4, 6, 3)
    stripes[:, :, ::2] = 1.0  # every right neighbour differs by 1, no lower one does
    assert float(total_variation(stripes)) == pytest.approx(2.0)
    assert float(total_variation(torch.full((2, 4, 4, 3), 0.3))) == 0.0


def test_disparity_is_one_at_the_nearest_and_zero_at_the_farthest_point() -> None:
    depth = torch.tensor([[[2.0, 4.0], [3.0, 0.0]]])
    alpha = torch.tensor([[[1.0, 1.0], [0.5, 0.0]]])
    ours = relative_disparity(depth, alpha)[0]
    # (1/3 - 1/4) / (1/2 - 1/4) = 1/3
    torch.testing.assert_close(ours, torch.tensor([[1.0, 0.0], [0.5 / 3, 0.0]]))


def test_disparity_of_an_empty_view_is_zero_with_finite_gradients() -> None:
    depth = torch.zeros(1, 2, 2, requires_grad=True)
    total = relative_disparity(depth, torch.zeros(1, 2, 2)).sum()
    total.backward()
    assert float(total.detach()) == 0 and bool(torch.isfinite(depth.grad).all())


def test_pictures_of_an_iteration_have_their_own_noise_on_the_scales() -> None:
    rig = make_orbit_rig([0.0, 0.0], 10.0, radius=4.5)
    noisy = target(scale_noise=0.2).draw(rig, 24, WHITE, generator())
    assert not torch.equal(noisy.rgb[0], noisy.rgb[1])
    plain = target(scale_noise=0.0).draw(rig, 24, WHITE, generator())
    assert torch.equal(plain.rgb[0], plain.rgb[1])


def test_the_noise_has_the_published_spread() -> None:
    model = target(scale_noise=0.2)
    cloud = model.optimizer.detached_cloud()
    draws = torch.stack(
        [model._with_scale_noise(cloud, generator(seed)).scales for seed in range(200)]
    )
    spread = float((draws / cloud.scales).std())
    assert spread == pytest.approx(math.sqrt(0.2) / 4, rel=0.03)
    assert float(draws.min()) >= 0


def test_the_penalty_is_the_mean_scale() -> None:
    model = target(scale_weight=0.5)
    drawn = model.draw(RIG, 16, WHITE, generator())
    expected = 0.5 * float(model.optimizer.detached_cloud().scales.mean())
    assert float(drawn.penalty) == pytest.approx(expected)


def test_coverage_is_a_penalty_that_fades_what_is_not_needed() -> None:
    model = target(scale_weight=0.0, coverage_weight=0.3)
    drawn = model.draw(RIG, 16, WHITE, generator())
    assert float(drawn.penalty) == pytest.approx(0.3 * float(drawn.alpha.mean()))
    drawn.penalty.backward()
    before = model.cloud().opacities.mean()
    assert model.update() and model.cloud().opacities.mean() < before


def test_backgrounds_belong_to_their_pictures() -> None:
    backgrounds = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    drawn = target().draw(RIG, 24, backgrounds, generator())
    torch.testing.assert_close(drawn.rgb[:, 0, 0], backgrounds)


@pytest.mark.parametrize("statistics", ["all", "last"])
def test_densification_looks_at_all_pictures_or_the_last(statistics) -> None:
    model = target(statistics=statistics)
    drawn = model.draw(RIG, 24, WHITE, generator())
    drawn.rgb.sum().backward()
    model.update()
    largest = float(model.optimizer._seen_count.max())
    assert largest == (2 if statistics == "all" else 1)


def test_an_update_with_infinite_gradients_changes_nothing() -> None:
    model = target()
    before = model.cloud()
    drawn = model.draw(RIG, 16, WHITE, generator())
    (drawn.rgb.sum() * torch.inf).backward()
    assert model.update() is False
    assert torch.equal(model.cloud().means, before.means)
    model.draw(RIG, 16, WHITE, generator()).rgb.sum().backward()
    assert model.update() is True
    assert not torch.equal(model.cloud().means, before.means)


def test_restoring_may_keep_the_clock() -> None:
    model = target()
    saved = model.state()
    model.draw(RIG, 16, WHITE, generator()).rgb.sum().backward()
    model.update()
    model.restore(saved, keep_clock=True)
    assert model.optimizer.steps_done == 1
    model.restore(saved)
    assert model.optimizer.steps_done == 0


def test_what_is_nearly_invisible_is_not_presentable() -> None:
    model = target()
    assert model.is_presentable
    model.optimizer.params = replace(
        model.optimizer.params, densify=replace(model.optimizer.params.densify, reset_opacity=0.01)
    )
    model.optimizer.reset_opacities()
    assert not model.is_presentable


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        SplatTargetParams(scale_noise=-1.0)
    with pytest.raises(ValueError, match="extent positive"):
        SplatTargetParams(extent=0.0)


def test_counters_survive_a_checkpoint_exactly() -> None:
    track = RunTrack()
    track.add(1 / 3)
    track.notice_gain(0.01)
    track.fail()
    assert RunTrack.from_tensor(track.as_tensor()) == track
    with pytest.raises(ValueError, match="hold 3 values"):
        RunTrack.from_tensor(torch.zeros(3))


def test_the_running_mean_is_that_of_what_was_added() -> None:
    track = RunTrack()
    assert math.isnan(track.disagreement)
    for value in (2.0, 2.0, 2.0):
        track.add(value)
    assert track.disagreement == pytest.approx(2.0)
    track.add(4.0)
    assert 2.0 < track.disagreement < 3.0


def test_gains_are_counted_from_the_last_fall() -> None:
    track = RunTrack()
    for value in (5.0, 4.0, 4.0, 4.0):
        track.mean_sum, track.mean_weight = value, 1.0
        track.iteration += 1
        track.notice_gain(0.1)
    assert track.iterations_without_gain == 2


def test_the_pace_covers_the_last_iterations() -> None:
    watch = Stopwatch()
    assert watch.pace(1) == 0
    with watch.part("wait"):
        sum(range(1000))
    assert watch.pace(2) > 0 and watch.seconds["wait"] > 0
