from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from lift3d.core.diffusion.model import Conditioning, Control
from lift3d.core.diffusion.sampling import KeptRegion, make_noise, sample_latents
from lift3d.core.diffusion.schedules import (
    add_noise,
    make_flow_sigmas,
    make_karras_sigmas,
    start_index,
)

FLOW = "rectified_flow"


@pytest.mark.parametrize("strength", [100, 95, 60, 30])
@pytest.mark.parametrize("num_steps", [10, 20])
def test_heun_matches_the_golden_run(shared_dir, num_steps, strength):
    golden = np.load(shared_dir / "goldens" / "kiss3d_heun.npz")
    facts = json.loads((shared_dir / "goldens" / "kiss3d_heun.json").read_text(encoding="utf-8"))
    run, facts = f"N{num_steps}_s{strength}", facts["runs"][f"N{num_steps}_s{strength}"]
    matrix, bias = (torch.from_numpy(golden[name]).double() for name in ("A", "b"))

    def denoise(latents, sigma, conditioning):
        return latents - sigma[:, None] * (latents @ matrix.T + sigma[:, None] * bias)

    index = start_index(num_steps, strength / 100)
    sigmas = make_flow_sigmas(num_steps)[index:]
    image, noise = (torch.from_numpy(golden[n]).double() for n in ("init_latent", "noise"))
    start = add_noise(image, noise, float(sigmas[0]), FLOW)
    states, reports = {}, []
    final = sample_latents(
        denoise,
        start,
        sigmas,
        None,
        on_state=lambda step, state: states.update({step: state}),
        on_progress=reports.append,
    )
    np.testing.assert_allclose(start, golden[f"{run}_start"], atol=1e-6)
    np.testing.assert_allclose(torch.stack([*states.values()]), golden[f"{run}_nodes"], atol=1e-5)
    np.testing.assert_allclose(final, golden[f"{run}_final_f64"], atol=1e-9)
    np.testing.assert_allclose(final, golden[f"{run}_repo_final"], atol=1e-5)
    assert index == facts["t_start"]
    assert float(sigmas[0]) == pytest.approx(facts["first_sigma"], abs=1e-6)
    assert len(reports) == facts["evaluations"]
    assert [report.step for report in reports] == list(range(1, facts["evaluations"] + 1))
    assert {report.total for report in reports} == {facts["evaluations"]}


def gaussian_denoiser(deviation: float):
    """Exact x0 of variance-preserving latents whose clean values are N(0, deviation^2)."""

    def denoise(latents, sigma, conditioning):
        return latents * deviation**2 / (deviation**2 + sigma[:, None] ** 2)

    return denoise


def test_heun_converges_at_second_order_and_euler_at_first():
    # The exact flow keeps x / sqrt(deviation^2 + sigma^2).
    start = torch.ones(1, 1, dtype=torch.float64)
    sigma_max, deviation = 20.0, 0.5
    exact = deviation / (deviation**2 + sigma_max**2) ** 0.5
    errors = {}
    for method in ("heun", "euler"):
        for num_steps in (20, 40):
            sigmas = make_karras_sigmas(num_steps, sigma_min=1e-3, sigma_max=sigma_max)
            final = sample_latents(gaussian_denoiser(deviation), start, sigmas, None, method=method)
            errors[method, num_steps] = abs(float(final) - exact)
    assert errors["heun", 20] < 0.3 * errors["euler", 20]
    assert errors["euler", 20] / errors["euler", 40] == pytest.approx(2, rel=0.25)
    assert errors["heun", 20] / errors["heun", 40] > 3


def test_one_euler_step_is_the_prediction_itself():
    final = sample_latents(
        lambda x, s, c: torch.full_like(x, 0.25), torch.randn(2, 3), make_flow_sigmas(1), None
    )
    torch.testing.assert_close(final, torch.full((2, 3), 0.25))


def test_a_run_that_stops_early_counts_all_its_evaluations():
    reports = []
    sigmas = make_flow_sigmas(10)[:4]
    sample_latents(
        gaussian_denoiser(1.0), torch.ones(1, 1), sigmas, None, on_progress=reports.append
    )
    assert len(reports) == reports[-1].total == 6


@pytest.mark.parametrize(
    ("total", "start", "end"),
    [(37, 0.0, 0.65), (37, 0.0, 0.3), (37, 0.2, 0.8), (39, 0.0, 0.65), (39, 0.0, 1.0)],
)
def test_control_gates_match_the_golden(shared_dir, total, start, end):
    facts = json.loads((shared_dir / "goldens" / "kiss3d_heun.json").read_text(encoding="utf-8"))
    first, count = facts["controlnet_gate_first_index_and_count"][f"T{total}_{start:g}_{end:g}"]
    control = Control(None, torch.zeros(1, 8, 8, 3), start=start, end=end)
    active = [i for i in range(total) if control.is_active(i, total)]
    assert (active[0], len(active)) == (first, count)


def test_the_tile_control_acts_on_24_of_37_evaluations():
    seen = []

    def denoise(latents, sigma, conditioning):
        seen.append(len(conditioning.controls))
        return torch.zeros_like(latents)

    control = Control(None, torch.zeros(1, 8, 8, 3), scale=0.6, end=0.65, mode=1)
    conditioning = Conditioning(torch.zeros(1, 4, 8), controls=(control,))
    sample_latents(denoise, torch.ones(1, 2), make_flow_sigmas(20)[1:], conditioning)
    assert seen == [1] * 24 + [0] * 13


def test_an_interrupting_callback_stops_the_run():
    calls = []

    def stop(progress):
        calls.append(progress.step)
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_latents(
            gaussian_denoiser(1.0), torch.ones(1, 1), make_flow_sigmas(20), None, on_progress=stop
        )
    assert calls == [1, 2, 3]


def test_previews_show_the_predicted_clean_latents():
    pictures = []
    sample_latents(
        lambda x, s, c: torch.full_like(x, 0.5),
        torch.ones(1, 3),
        make_flow_sigmas(2),
        None,
        preview=lambda denoised: denoised[0].expand(4, 4, 3),
        on_progress=lambda progress: pictures.append(progress.preview),
    )
    assert len(pictures) == 3
    assert all(picture.shape == (4, 4, 3) and float(picture.mean()) == 0.5 for picture in pictures)


def test_a_kept_region_comes_back_exactly():
    original, noise = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(1)).unbind(0)
    mask = torch.tensor([[1.0, 1, 1, 0, 0, 0]])
    sigmas = make_flow_sigmas(8)
    final = sample_latents(
        lambda x, s, c: torch.full_like(x, 7.0),
        add_noise(original, noise, 1.0, FLOW),
        sigmas,
        None,
        kept=KeptRegion(original, mask, noise, FLOW),
    )
    torch.testing.assert_close(final[:, 3:], original[:, 3:])
    torch.testing.assert_close(final[:, :3], torch.full((1, 3), 7.0))


def test_noise_depends_on_the_seed_alone():
    batch = make_noise((3, 4, 2, 2), 0)
    torch.testing.assert_close(make_noise((1, 4, 2, 2), 1), batch[1:2])
    assert not torch.equal(make_noise((1, 4, 2, 2), 0), make_noise((1, 4, 2, 2), 42))
    assert make_noise((2, 4), torch.Generator().manual_seed(3)).shape == (2, 4)
    with pytest.raises(ValueError, match="seed must be 0 or more"):
        make_noise((1, 4), -1)


def test_bad_input_is_refused_before_any_evaluation():
    def denoise(latents, sigma, conditioning):
        raise AssertionError("must not be called")

    with pytest.raises(ValueError, match="strictly falling"):
        sample_latents(denoise, torch.ones(1, 2), torch.tensor([0.0, 0.5, 1.0]), None)
    with pytest.raises(ValueError, match="strictly falling"):
        sample_latents(denoise, torch.ones(1, 2), torch.tensor([1.0]), None)
    with pytest.raises(ValueError, match="latents holds 1 NaN"):
        sample_latents(denoise, torch.tensor([[1.0, torch.nan]]), make_flow_sigmas(2), None)
