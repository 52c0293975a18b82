from __future__ import annotations

import numpy as np
import pytest
import torch
from lift3d.core.diffusion.schedules import (
    add_noise,
    alphas_to_sigmas,
    flow_to_vp_sigma,
    interpolate_log,
    make_alphas_cumprod,
    make_flow_sigmas,
    make_karras_sigmas,
    num_evaluations,
    signal_scale,
    start_index,
    timestep_sigmas,
    vp_to_flow_sigma,
)

PUBLISHED_20 = [
    1.0, 0.9819, 0.9624, 0.9414, 0.9187, 0.8940, 0.8672, 0.8379, 0.8057, 0.7702, 0.7310, 0.6872,
    0.6382, 0.5829, 0.5201, 0.4479, 0.3644, 0.2663, 0.1498, 0.0089, 0.0,
]  # fmt: skip


def test_twenty_flow_sigmas_are_the_published_ones():
    torch.testing.assert_close(
        make_flow_sigmas(20), torch.tensor(PUBLISHED_20, dtype=torch.float64), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("num_steps", [4, 8, 10, 20, 30, 50])
def test_flow_sigmas_match_the_goldens(shared_dir, num_steps):
    golden = np.load(shared_dir / "goldens" / "kiss3d_heun.npz")
    ours = make_flow_sigmas(num_steps).numpy()
    np.testing.assert_allclose(ours, golden[f"sigmas_N{num_steps}_f64"], atol=1e-12)


def test_one_step_goes_from_noise_to_nothing():
    assert make_flow_sigmas(1).tolist() == [1.0, 0.0]


def test_karras_sigmas_run_between_their_ends():
    sigmas = make_karras_sigmas(50, sigma_min=0.002, sigma_max=700.0)
    assert float(sigmas[0]) == pytest.approx(700.0)
    assert float(sigmas[-2]) == pytest.approx(0.002)
    assert float(sigmas[-1]) == 0
    assert bool((sigmas[1:] < sigmas[:-1]).all())


@pytest.mark.parametrize(
    ("num_steps", "strength", "index", "evaluations"),
    [(20, 1.0, 0, 39), (20, 0.95, 1, 37), (20, 0.6, 8, 23), (20, 0.3, 14, 11), (10, 0.95, 0, 19)],
)
def test_strength_skips_the_noisiest_steps(num_steps, strength, index, evaluations):
    assert start_index(num_steps, strength) == index
    assert num_evaluations(num_steps - index, "heun") == evaluations
    assert num_evaluations(num_steps - index, "euler") == num_steps - index


def test_a_strength_without_steps_is_refused():
    with pytest.raises(ValueError, match="leaves none of the 20 steps"):
        start_index(20, 0.0)
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        start_index(20, 1.5)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        make_flow_sigmas(0)


def test_at_full_strength_a_flow_forgets_the_image():
    noise = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(add_noise(torch.ones(2, 4), noise, 1.0, "rectified_flow"), noise)


def test_sigma_form_divides_the_networks_latents_by_a():
    alphas = make_alphas_cumprod()[torch.tensor([0, 500, 999])]
    sigmas = alphas_to_sigmas(alphas)
    torch.testing.assert_close(signal_scale(sigmas, "variance_preserving"), alphas.sqrt())
    clean, noise = torch.randn(2, 3, 5, dtype=torch.float64).unbind(0)
    scaled = signal_scale(sigmas, "variance_preserving")[:, None] * add_noise(
        clean, noise, sigmas, "variance_preserving"
    )
    torch.testing.assert_close(
        scaled, alphas.sqrt()[:, None] * clean + (1 - alphas).sqrt()[:, None] * noise
    )


def test_scaled_linear_schedule_matches_the_golden(shared_dir):
    golden = np.load(shared_dir / "goldens" / "ge3d_guidance.npz")
    np.testing.assert_allclose(
        make_alphas_cumprod().numpy(), golden["alphas_cumprod_f64"], rtol=1e-12
    )


def test_matching_by_signal_to_noise_is_monotone_and_invertible():
    timesteps = torch.tensor([30, 60, 80, 240, 300, 350, 420, 480, 700])
    vp = timestep_sigmas(timesteps, "variance_preserving")
    flow = timestep_sigmas(timesteps, "rectified_flow")
    published_vp = [0.170, 0.251, 0.298, 0.670, 0.833, 0.987, 1.243, 1.514, 3.334]
    published_flow = [0.146, 0.200, 0.230, 0.401, 0.454, 0.497, 0.554, 0.602, 0.769]
    np.testing.assert_allclose(vp.numpy(), published_vp, atol=6e-4)
    np.testing.assert_allclose(flow.numpy(), published_flow, atol=6e-4)
    torch.testing.assert_close(flow_to_vp_sigma(vp_to_flow_sigma(vp)), vp)
    assert bool((flow[1:] > flow[:-1]).all())


def test_log_linear_learning_rates_match_the_golden(shared_dir):
    golden = np.load(shared_dir / "goldens" / "ge3d_tables.npz")
    rates = {"xyz": (7e-4, 5.6e-6), "f_dc": (0.01, 0.003), "scale": (5e-3, 1e-3)}
    rates["rot"] = (1e-3, 2e-4)
    for name, (start, end) in rates.items():
        ours = [interpolate_log(start, end, step, 3000) for step in golden["lr_steps"].tolist()]
        np.testing.assert_allclose(ours, golden[f"lr_{name}_f64"], rtol=1e-9)
