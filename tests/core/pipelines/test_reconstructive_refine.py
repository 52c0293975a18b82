"""Reconstructive generation: fixed views are redrawn along the trajectory, then fitted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from distill_scenes import RED, SIZE, WishfulModel, same, small_params, start
from lift3d.core.diffusion.distillation import trajectory_target
from lift3d.core.diffusion.guidance import GuidedPrompt
from lift3d.core.diffusion.objective import Distiller, NonFiniteError
from lift3d.core.diffusion.schedules import timestep_sigmas
from lift3d.core.diffusion.trajectories import NodeParams, ode_step
from lift3d.core.pipelines import reconstructive_refine
from lift3d.core.pipelines.mesh_to_splat import SplatFitParams, fit_splats
from lift3d.core.pipelines.reconstructive_refine import (
    RefineParams,
    camera_angles,
    redraw_views,
    refine_reconstructively,
    ring_cameras,
    spread_rings,
)
from lift3d.core.pipelines.splat_optimizer import (
    DensifyParams,
    LearningRates,
    SplatOptimizerParams,
)
from lift3d.core.pipelines.white_cut import cut_from_white
from lift3d.core.rendering.splats import render_splats

FIT = SplatFitParams(
    num_steps=60,
    optimizer=SplatOptimizerParams(
        LearningRates(means=(5e-3, 1e-3), base=(0.1, 0.02), opacity_logits=(0.2, 0.05)),
        DensifyParams(every=0, reset_opacity_every=0),
    ),
)
SMALL = RefineParams(
    rings=((0.0, 3), (20.0, 2)), radius=4.5, fov_y_deg=30.0, size_px=SIZE, batch=2,
    nodes=NodeParams(4, (100, 150), (100, 150), 500, 500), fit=FIT,
)  # fmt: skip
OBJECTIVE = small_params().objective


def test_published_cameras_are_thirty_six_on_four_rings() -> None:
    rig = ring_cameras(RefineParams())
    azimuths, elevations = camera_angles(rig)
    assert len(rig) == 36
    counts = [int((elevations.round() == e).sum()) for e in (-10, 5, 15, 35)]
    assert counts == [4, 12, 14, 6]
    assert float(azimuths[0]) == pytest.approx(0.0, abs=1e-3)
    distance = torch.stack([camera.position.norm() for camera in rig])
    torch.testing.assert_close(distance, torch.full((36,), 0.9 * 3.5))


def test_rings_share_out_fewer_views() -> None:
    assert spread_rings(36) == RefineParams().rings
    assert [count for _, count in spread_rings(12)] == [1, 4, 5, 2]
    assert [count for _, count in spread_rings(1)] == [1, 1, 1, 1]


def test_angles_of_cameras_are_read_back() -> None:
    params = replace(SMALL, rings=((10.0, 4), (-30.0, 3)))
    azimuths, elevations = camera_angles(ring_cameras(params))
    expected = torch.tensor([0.0, 90, -180, -90, 60, -180, -60])
    torch.testing.assert_close((azimuths - expected + 540) % 360, torch.full((7,), 180.0), atol=1e-3, rtol=0)  # fmt: skip
    torch.testing.assert_close(
        elevations, torch.tensor([10.0] * 4 + [-30.0] * 3), atol=1e-3, rtol=0
    )


def test_the_target_of_one_jump_is_a_step_up_and_a_guided_step_down() -> None:
    model = WishfulModel()
    latents = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    empty, said = model.encode_text([""]), model.encode_text(["a ball"])
    timesteps = torch.tensor([0, 300])
    near, far = timestep_sigmas(timesteps, "variance_preserving").float()
    ours = trajectory_target(
        model.denoise, latents, GuidedPrompt(said), empty, timesteps, noise,
        family="variance_preserving",
    )  # fmt: skip
    low = latents + near * noise
    high = ode_step(low, model.denoise(low, near.expand(2), empty.expanded(2)), near, far)
    back = ode_step(high, model.denoise(high, far.expand(2), said.expanded(2)), far, near)
    torch.testing.assert_close(ours, back)


def test_redrawn_views_are_nearer_to_what_the_model_wants() -> None:
    model = WishfulModel()
    rig = ring_cameras(SMALL)
    pictures = redraw_views(start(), rig, model, Distiller(model, "a ball", OBJECTIVE), SMALL)
    assert pictures.shape == (5, SIZE, SIZE, 3)
    wanted = model.decode_latents(model.wish()[None])
    before = render_splats(start(), rig, width=SIZE, height=SIZE).rgb
    assert float((pictures - wanted).abs().mean()) < 0.5 * float((before - wanted).abs().mean())


def test_gaussians_follow_the_redrawn_views() -> None:
    made = refine_reconstructively("a ball", WishfulModel(), start(), OBJECTIVE, SMALL)
    drawn = render_splats(made.cloud, made.rig, width=SIZE, height=SIZE).rgb
    before = render_splats(start(), made.rig, width=SIZE, height=SIZE).rgb
    errors = [float((x - made.pictures).abs().mean()) for x in (drawn, before)]
    assert errors[0] < 0.6 * errors[1]
    middle = drawn[:, 14:18, 14:18].mean(dim=(0, 1, 2))
    assert float((middle - torch.tensor(RED)).abs().max()) < 0.35


@pytest.mark.parametrize("cut", [True, False])
def test_pictures_are_cut_out_of_white_before_the_fit_if_wanted(monkeypatch, cut: bool) -> None:
    seen = []

    def fit(views, rig, masks=None, **more):
        seen.append((views, masks))
        return fit_splats(views, rig, masks, **more)

    monkeypatch.setattr(reconstructive_refine, "fit_splats", fit)
    params = replace(SMALL, cut=cut, fit=replace(FIT, num_steps=1))
    made = refine_reconstructively("a ball", WishfulModel(), start(), OBJECTIVE, params)
    ((views, masks),) = seen
    if not cut:
        assert masks is None and torch.equal(views, made.pictures)
        return
    wanted = cut_from_white(made.pictures)
    assert torch.equal(views, wanted.rgb) and torch.equal(masks, wanted.masks)
    assert 0.05 < float(masks.mean()) < 0.95


def test_faded_gaussians_come_back_in_later_rounds_if_wanted() -> None:
    begin = start()
    faint = replace(begin, opacities=torch.where(begin.means[:, 0] > 0.2, 0.001, begin.opacities))
    still = SplatFitParams(num_steps=2, optimizer=SplatOptimizerParams(
        LearningRates(opacity_logits=(1e-9, 1e-9)), DensifyParams(every=0, reset_opacity_every=0)
    ))  # fmt: skip
    made = {}
    for respawn in (False, True):
        params = replace(SMALL, rounds=2, respawn=respawn, fit=still)
        result = refine_reconstructively("a ball", WishfulModel(), faint, OBJECTIVE, params)
        made[respawn] = float((result.cloud.opacities < 0.05).float().mean())
    assert made[False] > 0.1 and made[True] == 0.0


def test_rounds_redraw_and_share_the_steps() -> None:
    model, steps = WishfulModel(), []
    nodes = NodeParams(4, (150, 151), (150, 151), 500, 500)  # three of them below the cap
    params = replace(SMALL, rounds=2, nodes=nodes, fit=replace(FIT, num_steps=6))
    made = refine_reconstructively(
        "a ball", model, start(), OBJECTIVE, params,
        on_progress=lambda p: steps.append((p.step, p.total)),
    )  # fmt: skip
    batches = 3
    assert len(steps) == 2 * (batches + 3) and steps[-1] == (12, 12)
    assert [s for s, _ in steps] == list(range(1, 13))
    assert model.calls == 2 * batches * 2 * 3
    # per view and jump once on the way up, twice (with and without the text) on the way down
    assert made.evaluations == 2 * 5 * 3 * 3
    assert made.cloud.num_gaussians == start().num_gaussians


def test_the_same_seed_repeats_and_nothing_is_changed() -> None:
    params = replace(SMALL, fit=replace(FIT, num_steps=4))
    cloud = start()
    with torch.inference_mode():
        first, again = (
            refine_reconstructively("a ball", WishfulModel(), cloud, OBJECTIVE, params).cloud
            for _ in range(2)
        )
    assert same(first, again) and same(cloud, start())
    other = replace(params, seed=5)
    assert not same(
        first, refine_reconstructively("a ball", WishfulModel(), cloud, OBJECTIVE, other).cloud
    )


def test_bad_input_is_refused() -> None:
    model = WishfulModel()
    with pytest.raises(ValueError, match="prompt is empty"):
        refine_reconstructively("", model, start(), OBJECTIVE, SMALL)
    with pytest.raises(ValueError, match="splat is empty"):
        empty = start().select(torch.zeros(0, dtype=torch.int64))
        refine_reconstructively("a ball", model, empty, OBJECTIVE, SMALL)
    with pytest.raises(ValueError, match="at least one camera"):
        replace(SMALL, rings=())
    with pytest.raises(ValueError, match="rounds and batch"):
        replace(SMALL, rounds=0)
    model.answers_nan_at = {1}
    with pytest.raises(NonFiniteError):
        refine_reconstructively("a ball", model, start(), OBJECTIVE, SMALL)
