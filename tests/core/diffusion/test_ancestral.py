import math

import pytest
import torch
from lift3d.core.diffusion.ancestral import sample_ancestral, split_step
from lift3d.core.diffusion.schedules import (
    alphas_to_sigmas,
    make_alphas_cumprod,
    make_trailing_timesteps,
)


def schedule(steps, spacing="linear"):
    timesteps = make_trailing_timesteps(steps)
    table = alphas_to_sigmas(make_alphas_cumprod(spacing=spacing))
    return timesteps, torch.cat([table[timesteps], table.new_zeros(1)])


@pytest.mark.parametrize("steps", [1, 7, 28, 50, 75, 1000])
@pytest.mark.parametrize("spacing", ["linear", "scaled_linear"])
def test_timesteps_and_levels_are_those_of_diffusers(steps, spacing):
    from diffusers import EulerAncestralDiscreteScheduler

    theirs = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=spacing, timestep_spacing="trailing"
    )
    theirs.set_timesteps(steps)
    timesteps, sigmas = schedule(steps, spacing)
    assert timesteps.tolist() == theirs.timesteps.long().tolist()
    torch.testing.assert_close(sigmas.float(), theirs.sigmas, atol=1e-4, rtol=1e-4)


def test_runs_equal_those_of_diffusers_with_v_prediction():
    from diffusers import EulerAncestralDiscreteScheduler

    timesteps, sigmas = schedule(12)
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(3)) / 3

    def network(scaled, timestep):
        return torch.tanh(scaled @ weight.T + timestep / 1000)

    start = torch.randn(2, 6, generator=torch.Generator().manual_seed(4)) * float(sigmas[0])

    def denoise(latents, sigma, conditioning):
        assert conditioning == "text"
        step = int((sigmas - sigma[0]).abs().argmin())
        a = 1 / (1 + sigma[:, None] ** 2).sqrt()
        v = network(latents * a, timesteps[step])
        return a * (latents * a) - (1 - a**2).sqrt() * v

    ours = sample_ancestral(
        denoise, start, sigmas.float(), "text", torch.Generator().manual_seed(9)
    )
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", prediction_type="v_prediction",
        timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(12)
    generator, theirs = torch.Generator().manual_seed(9), start
    for timestep in scheduler.timesteps:
        v = network(scheduler.scale_model_input(theirs, timestep), timestep)
        theirs = scheduler.step(v, timestep, theirs, generator=generator).prev_sample
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_noise_of_a_step_adds_up_to_the_following_level():
    for sigma, following in ((10.0, 3.0), (1.0, 0.99), (0.5, 0.0)):
        down, up = split_step(sigma, following)
        assert math.hypot(down, up) == pytest.approx(following)
    assert split_step(0.5, 0.0) == (0.0, 0.0)


def test_gaussian_data_come_out_with_their_own_spread():
    """For data N(0, s^2) the exact denoiser is s^2 x / (s^2 + sigma^2); the last step loses a little."""
    spread = 0.7
    _, sigmas = schedule(200)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20000, 1, generator=generator) * math.sqrt(
        float(sigmas[0]) ** 2 + spread**2
    )
    made = sample_ancestral(
        lambda x, sigma, _: spread**2 * x / (spread**2 + sigma[:, None] ** 2),
        noise, sigmas.float(), None, generator,
    )  # fmt: skip
    assert float(made.std()) == pytest.approx(spread, rel=0.05)


def test_progress_counts_evaluations_and_may_interrupt():
    seen = []
    run = lambda report: sample_ancestral(  # noqa: E731
        lambda x, s, c: x * 0, torch.ones(1, 2), torch.tensor([2.0, 1.0, 0.0]), None,
        torch.Generator(), on_progress=report, preview=lambda x: x.new_ones(1, 1, 3),
    )  # fmt: skip
    run(seen.append)
    assert [(p.step, p.total) for p in seen] == [(1, 2), (2, 2)] and seen[0].preview is not None

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stop)


def test_bad_runs_are_refused():
    run = lambda latents, sigmas: sample_ancestral(  # noqa: E731
        lambda x, s, c: x, latents, torch.tensor(sigmas), None, torch.Generator()
    )
    with pytest.raises(ValueError, match="strictly falling"):
        run(torch.ones(1, 2), [1.0, 2.0])
    with pytest.raises(ValueError, match="NaN"):
        run(torch.full((1, 2), torch.nan), [1.0, 0.0])
    with pytest.raises(ValueError, match="within 1..1000"):
        make_trailing_timesteps(0)
    with pytest.raises(ValueError, match="0 < beta_start"):
        make_alphas_cumprod(beta_start=-1.0)
