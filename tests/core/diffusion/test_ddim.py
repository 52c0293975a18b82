"""DDIM on network latents, against diffusers' scheduler and by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from lift3d.core.diffusion.ddim import (
    DdimSchedule,
    read_ddim_schedule,
    sample_ddim,
    with_zero_terminal_snr,
)
from lift3d.core.diffusion.schedules import make_alphas_cumprod
from lift3d.core.formats.json_fields import JsonObject

STEPS = 7
ZERO_SNR = DdimSchedule(
    spacing="scaled_linear", step_spacing="trailing", steps_offset=0, zero_terminal_snr=True
)


def theirs(schedule: DdimSchedule):
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=schedule.num_train_steps, beta_start=schedule.beta_start,
        beta_end=schedule.beta_end, beta_schedule=schedule.spacing,
        prediction_type=schedule.prediction, timestep_spacing=schedule.step_spacing,
        steps_offset=schedule.steps_offset, set_alpha_to_one=schedule.ends_clean,
        rescale_betas_zero_snr=schedule.zero_terminal_snr,
        clip_sample=schedule.clip_range is not None, clip_sample_range=schedule.clip_range or 1.0,
    )  # fmt: skip


def predict(latents, timestep):
    """A network that depends on both and never runs away."""
    return torch.tanh(0.7 * latents + timestep / 900)


@pytest.mark.parametrize(
    ("schedule", "eta"),
    [
        (DdimSchedule(), 1.0),
        (DdimSchedule(), 0.0),
        (ZERO_SNR, 0.0),
        (ZERO_SNR, 1.0),
        (DdimSchedule(spacing="scaled_linear", prediction="epsilon", ends_clean=True), 0.5),
        (DdimSchedule(step_spacing="linspace", prediction="sample", clip_range=0.4), 1.0),
    ],
)
def test_a_run_equals_that_of_diffusers(schedule, eta):
    scheduler = theirs(schedule)
    scheduler.set_timesteps(STEPS)
    start = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    generator, expected = torch.Generator().manual_seed(1), start
    for timestep in scheduler.timesteps:
        made = predict(expected, int(timestep))
        expected = scheduler.step(made, timestep, expected, eta=eta, generator=generator)[0]
    found = sample_ddim(
        predict, start, schedule, STEPS, eta=eta, generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_the_first_step_of_a_zero_snr_schedule_starts_from_pure_noise():
    table = ZERO_SNR.alphas_cumprod()
    assert float(table[-1]) == 0 and int(ZERO_SNR.timesteps(40)[0]) == 999
    plain = make_alphas_cumprod()
    assert float(table[0]) == pytest.approx(float(plain[0]), abs=1e-12)
    assert bool((table.diff() < 0).all())
    # There v is minus the picture: v = a noise - b x0 with a = 0, b = 1.
    picture = torch.full((1, 1, 2, 2), 0.3)
    seen = []
    sample_ddim(lambda z, t: seen.append((z, t)) or -picture, torch.randn(1, 1, 2, 2), ZERO_SNR, 1)
    made = sample_ddim(
        lambda z, t: -picture, torch.randn(1, 1, 2, 2), replace(ZERO_SNR, ends_clean=True), 1
    )
    assert seen[0][1] == 999
    torch.testing.assert_close(made, picture)


def test_a_straight_schedule_is_shifted_as_in_algorithm_1():
    shifted = with_zero_terminal_snr(torch.tensor([0.81, 0.25, 0.01], dtype=torch.float64))
    # Roots .9 .5 .1 become (r - .1) * .9 / .8.
    expected = torch.tensor([0.9, 0.45, 0.0], dtype=torch.float64) ** 2
    torch.testing.assert_close(shifted, expected)


def test_the_cosine_schedule_is_that_of_diffusers():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    found = make_alphas_cumprod(1000, spacing="squaredcos_cap_v2")
    torch.testing.assert_close(found.float(), scheduler.alphas_cumprod, atol=1e-6, rtol=1e-4)


def test_configurations_are_read_with_the_defaults_of_diffusers(tmp_path):
    from diffusers import DDIMScheduler

    scheduler = theirs(ZERO_SNR)
    scheduler.save_pretrained(tmp_path)
    stored = JsonObject(json.loads((tmp_path / "scheduler_config.json").read_text()))
    assert read_ddim_schedule(stored) == ZERO_SNR
    config = DDIMScheduler().config
    bare = read_ddim_schedule(JsonObject({}))
    assert (bare.beta_start, bare.beta_end) == (config.beta_start, config.beta_end)
    assert bare.spacing == config.beta_schedule and bare.prediction == config.prediction_type
    assert bare.ends_clean and bare.clip_range == 1.0 and not bare.zero_terminal_snr


def test_progress_has_pictures_and_may_interrupt():
    seen = []
    start = torch.zeros(1, 3, 2, 2)
    sample_ddim(
        predict, start, DdimSchedule(), 3, on_progress=seen.append,
        preview=lambda clean: clean[0].movedim(0, -1),
    )  # fmt: skip
    assert [(p.step, p.total) for p in seen] == [(1, 3), (2, 3), (3, 3)]
    assert all(p.preview.shape == (2, 2, 3) for p in seen)

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_ddim(predict, start, DdimSchedule(), 3, on_progress=stop)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"trained_betas": [0.1]}, "trained betas"),
        ({"thresholding": True}, "thresholding"),
        ({"prediction_type": "flow"}, "prediction_type must be one of v_prediction"),
        ({"beta_schedule": "odd"}, "beta_schedule must be one of"),
        ({"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}, "ends in pure noise"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps must be"),
    ],
)
def test_unusable_schedules_are_refused(unchecked_shapes, values, part):
    with pytest.raises(ValueError, match=part):
        read_ddim_schedule(JsonObject(values))


def test_bad_runs_are_refused():
    start = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="num_steps must lie within"):
        sample_ddim(predict, start, DdimSchedule(), 1001)
    with pytest.raises(ValueError, match="take fewer steps"):
        DdimSchedule().timesteps(1000)
    with pytest.raises(ValueError, match="eta must lie within"):
        sample_ddim(predict, start, DdimSchedule(), 2, eta=1.0)
    with pytest.raises(ValueError, match="NaN"):
        sample_ddim(predict, start * torch.nan, DdimSchedule(), 2)
