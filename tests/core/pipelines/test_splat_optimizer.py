"""Optimiser of Gaussians: activations, schedules, and Adam's state through densification."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.pipelines.splat_optimizer import (
    PARAMETERS,
    DensifyParams,
    LearningRates,
    SplatOptimizer,
    SplatOptimizerParams,
)
from lift3d.core.rendering.splats import render_splats

RIG = make_orbit_rig([0.0], 0.0, radius=3.0)


def _cloud(count: int = 40, coefficients: int = 4, seed: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return GaussianCloud.from_unnormalized(
        means=0.3 * random(count, 3),
        scales=0.1 * random(count, 3).exp(),
        quats=random(count, 4),
        opacities=random(count).sigmoid(),
        harmonics=0.3 * random(count, coefficients, 3),
    )


def _optimizer(cloud: GaussianCloud, steps: int = 1000, **rules: float) -> SplatOptimizer:
    params = SplatOptimizerParams(densify=DensifyParams(**{"every": 0, "reset_opacity_every": 0, **rules}))  # fmt: skip
    return SplatOptimizer(cloud, params, num_steps=steps)


def _step(optimizer: SplatOptimizer) -> None:
    render = render_splats(optimizer.cloud(), RIG, width=24, height=24, with_normals=False)
    (render.rgb * torch.linspace(-1, 1, 24)[None, None, :, None]).sum().backward()
    optimizer.observe(render)
    optimizer.step()


def test_activation_gives_the_initial_cloud_back() -> None:
    cloud = _cloud()
    back = _optimizer(cloud).detached_cloud()
    for name, value in vars(cloud).items():
        torch.testing.assert_close(getattr(back, name), value, atol=1e-5, rtol=1e-4)


def test_initial_cloud_is_left_alone() -> None:
    cloud = _cloud()
    before = cloud.clone()
    optimizer = _optimizer(cloud)
    _step(optimizer)
    for name, value in vars(before).items():
        assert torch.equal(getattr(cloud, name), value), name
    assert not torch.equal(optimizer.detached_cloud().means, before.means)


def test_learning_rates_run_log_linearly_from_first_to_last() -> None:
    rates = LearningRates(means=(1e-2, 1e-4))
    assert math.isclose(rates.at("means", 0.0), 1e-2)
    assert math.isclose(rates.at("means", 0.5), 1e-3)
    assert math.isclose(rates.at("means", 1.0), 1e-4)


def test_strong_gradients_split_large_and_clone_small_gaussians() -> None:
    cloud = _cloud()
    scales = cloud.scales.clone()
    scales[:20], scales[20:] = 0.001, 0.1
    optimizer = _optimizer(
        replace(cloud, scales=scales), every=1, start=1, gradient_threshold=1e-12, min_opacity=0.0
    )
    _step(optimizer)
    drawn = optimizer.num_gaussians - 40  # every drawn one became two
    assert 0 < drawn <= 40
    after = optimizer.detached_cloud()
    assert float(after.scales[-1].max()) < 0.1 / 1.5  # splits shrink


def test_adam_moments_follow_their_gaussians() -> None:
    optimizer = _optimizer(_cloud(), min_opacity=0.3, gradient_threshold=1e9)
    _step(optimizer)
    raw, state = optimizer._raw, optimizer._adam.state
    before = {name: state[raw[name]]["exp_avg"].clone() for name in PARAMETERS}
    keep = raw["opacity_logits"].sigmoid() >= 0.3
    optimizer.densify_and_prune()
    assert 0 < optimizer.num_gaussians < 40
    raw, state = optimizer._raw, optimizer._adam.state
    assert len(state) == len(PARAMETERS)
    for name in PARAMETERS:
        assert torch.equal(state[raw[name]]["exp_avg"], before[name][keep]), name
    _step(optimizer)  # and the optimisation goes on


def test_transparent_gaussians_are_removed_but_never_all() -> None:
    optimizer = _optimizer(_cloud(), min_opacity=0.4, gradient_threshold=1e9)
    kept = int((_cloud().opacities >= 0.4).sum())
    optimizer.densify_and_prune()
    assert optimizer.num_gaussians == kept
    stubborn = _optimizer(_cloud(), min_opacity=1.0)
    stubborn.densify_and_prune()
    assert stubborn.num_gaussians == 40


def test_number_of_gaussians_stays_below_its_limit() -> None:
    optimizer = _optimizer(
        _cloud(), every=1, start=1, gradient_threshold=1e-12, max_gaussians=45, min_opacity=0.0
    )
    for _ in range(3):
        _step(optimizer)
    assert 40 <= optimizer.num_gaussians <= 45


def test_opacity_reset_lowers_only_what_is_higher() -> None:
    optimizer = _optimizer(_cloud())
    _step(optimizer)
    before = optimizer.detached_cloud().opacities
    optimizer.reset_opacities()
    after = optimizer.detached_cloud().opacities
    torch.testing.assert_close(after, before.clamp(max=0.01), atol=1e-6, rtol=1e-4)


def test_restored_optimisation_goes_on_bit_for_bit() -> None:
    def make() -> SplatOptimizer:
        return _optimizer(
            _cloud(), steps=12, every=2, start=2, gradient_threshold=1e-6, reset_opacity_every=5
        )

    straight = make()
    for _ in range(6):
        _step(straight)
    saved = straight.state()
    for _ in range(6):
        _step(straight)
    resumed = make()
    resumed.restore(saved)
    before = {name: value.clone() for name, value in saved.items()}
    for _ in range(6):
        _step(resumed)
    assert resumed.steps_done == 12 and resumed.num_gaussians == straight.num_gaussians
    assert resumed.steps_since_reset == straight.steps_since_reset == 2
    for name, value in straight.state().items():
        assert torch.equal(resumed.state()[name], value), name
    for name, value in before.items():
        assert torch.equal(saved[name], value), f"{name} of the saved state was changed"


def test_a_state_with_missing_parts_is_refused() -> None:
    state = _optimizer(_cloud()).state()
    del state["means"]
    with pytest.raises(ValueError, match="lacks means"):
        _optimizer(_cloud()).restore(state)


def test_refused_prunes_are_counted() -> None:
    stubborn = _optimizer(_cloud(), min_opacity=1.0)
    stubborn.densify_and_prune()
    assert stubborn.refused_prunes == 1


def test_infinite_gradients_are_noticed_and_can_be_dropped() -> None:
    optimizer = _optimizer(_cloud())
    (optimizer.cloud().means.sum() * torch.inf).backward()
    assert not optimizer.gradients_are_finite()
    optimizer.discard_gradients()
    assert optimizer.gradients_are_finite()


def test_run_without_steps_or_extent_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SplatOptimizer(_cloud(), num_steps=0)
    with pytest.raises(ValueError, match="extent positive"):
        SplatOptimizer(_cloud(), num_steps=1, extent=0.0)
