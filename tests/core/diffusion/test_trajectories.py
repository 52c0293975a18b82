from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from diffusion_toy import SIGMAS, ToyDenoiser, random_toy, text
from lift3d.core.diffusion.guidance import GuidedPrompt, guided_denoise
from lift3d.core.diffusion.schedules import make_alphas_cumprod, signal_scale, timestep_sigmas
from lift3d.core.diffusion.trajectories import (
    NodeParams,
    alignment_gradient,
    balancing_coefficients,
    denoising_trajectory,
    noising_trajectory,
    ode_step,
    sample_timesteps,
)

VP, FLOW = "variance_preserving", "rectified_flow"
FAMILIES = [VP, FLOW]
TIMESTEPS = torch.tensor([0, 70, 135, 210, 280, 350, 420])


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_of(latents, denoised, sigma) -> torch.Tensor:
    return (latents - denoised) / float(sigma)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_up_and_down_with_one_noise_is_the_identity(family):
    latents, noise = draw(2, 3, 4, 5).unbind(0)
    for low, high in ((0.05, 0.9), (0.3, 0.31)):
        raised = ode_step(latents, latents - low * noise, low, high)
        back = ode_step(raised, raised - high * noise, high, low)
        torch.testing.assert_close(back, latents)


def test_sigma_form_is_ddim_in_the_networks_latents():
    alphas = make_alphas_cumprod()
    a_t, a_u = alphas[200].sqrt(), alphas[420].sqrt()
    b_t, b_u = (1 - alphas[200]).sqrt(), (1 - alphas[420]).sqrt()
    latents, noise = draw(2, 3, 8).unbind(0)
    clean = (latents - b_t * noise) / a_t
    textbook = a_u * clean + b_u * noise
    ours = a_u * ode_step(latents / a_t, clean, SIGMAS[200], SIGMAS[420])
    torch.testing.assert_close(ours, textbook)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scale", [1.0, 7.5])
@pytest.mark.parametrize("num_jumps", range(1, 9))
@pytest.mark.parametrize("perp_neg", [False, True])
def test_trajectory_difference_has_the_closed_form(family, scale, num_jumps, perp_neg):
    toy = random_toy(12, family=family)
    sigmas = timestep_sigmas(torch.arange(num_jumps + 1) * 50 + 10, family)
    negatives = {}
    if perp_neg:
        negatives = {
            "negatives": (text(0.5), text(-0.8)),
            "negative_weights": torch.tensor([[-1.0, -0.3], [-0.1, -2.0]]),
        }
    prompt = GuidedPrompt(text(1.0), text(0.0), scale, **negatives)
    up = partial(toy, conditioning=text(0.0).expanded(2))
    down = partial(guided_denoise, toy, prompt=prompt)
    noising = noising_trajectory(up, draw(2, 3, 2, 2), sigmas)
    denoising = denoising_trajectory(down, noising[-1], sigmas)
    torch.testing.assert_close(noising[-1], denoising[-1])
    for j in range(num_jumps):
        expected = torch.zeros_like(noising[0])
        for i in range(j, num_jumps):
            lower, upper = (sigmas[k].expand(2) for k in (i, i + 1))
            without = noise_of(noising[i], up(noising[i], lower), sigmas[i])
            guided = noise_of(denoising[i + 1], down(denoising[i + 1], upper), sigmas[i + 1])
            expected += (sigmas[i + 1] - sigmas[i]) * (guided - without)
        torch.testing.assert_close(noising[j] - denoising[j], expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_single_precision_follows_double_to_a_millionth(family):
    toy, sigmas = random_toy(12, family=family), timestep_sigmas(TIMESTEPS, family)
    prompt = GuidedPrompt(text(1.0), text(0.0), 7.5)
    results = []
    for dtype in (torch.float64, torch.float32):
        weights = (w.to(dtype) for w in (toy.matrix, toy.time_vector, toy.text_vector))
        same = ToyDenoiser(*weights, family=family)
        up = partial(same, conditioning=text(0.0).expanded(2))
        down = partial(guided_denoise, same, prompt=prompt)
        noising = noising_trajectory(up, draw(2, 3, 2, 2).to(dtype), sigmas)
        denoising = denoising_trajectory(down, noising[-1], sigmas)
        results.append(torch.stack(noising).double() - torch.stack(denoising).double())
    scale = float(results[0].abs().max())
    torch.testing.assert_close(results[1], results[0], atol=1e-6 * max(scale, 1), rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_predicts_one_constant_noise_gives_no_gradient(family):
    constant = draw(1, 3, 4)
    sigmas = timestep_sigmas(TIMESTEPS, family)

    def predict(latents, sigma):
        return latents - sigma.reshape(-1, 1, 1) * constant

    noising = noising_trajectory(predict, draw(2, 3, 4, seed=2), sigmas)
    denoising = denoising_trajectory(predict, noising[-1], sigmas)
    gradient = alignment_gradient(
        noising, denoising, sigmas, balancing_coefficients(0, 10, 6), family
    )
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_gaussian_data_shrink_by_the_product_of_squared_cosines():
    # eps = b_t x for data N(0, I), so the clean latents are x / (1 + sigma^2) in sigma form.
    def predict(latents, sigma):
        return latents / (1 + sigma[:, None] ** 2)

    sigmas = timestep_sigmas(TIMESTEPS, VP)
    start = draw(4, 8)
    noising = noising_trajectory(predict, start, sigmas)
    final = denoising_trajectory(predict, noising[-1], sigmas)[0]
    angles = torch.arccos(signal_scale(sigmas, VP))
    factor = float(torch.cos(angles.diff()).square().prod())
    assert factor == pytest.approx(0.872, abs=1e-3)
    torch.testing.assert_close(final, start * factor)


def test_balancing_coefficients_are_those_of_the_paper():
    published = {
        0: [0.004, 0.022, 0.076, 0.188, 0.323, 0.387],
        1500: [0.083, 0.171, 0.245, 0.245, 0.171, 0.083],
    }
    for iteration, values in published.items():
        ours = balancing_coefficients(iteration, 3000, 6).numpy()
        np.testing.assert_allclose(ours, values, atol=6e-4)


def test_balancing_moves_from_coarse_to_fine():
    total, jumps = 300, 6
    rows = torch.stack([balancing_coefficients(k, total, jumps) for k in range(total + 1)])
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(total + 1, dtype=torch.float64))
    assert bool((rows > 0).all())
    mean_node = rows @ torch.arange(jumps, dtype=torch.float64)
    assert bool((mean_node.diff() < 0).all())
    assert bool((rows.argmax(dim=1).diff() <= 0).all())
    torch.testing.assert_close(rows, rows.flip(0).flip(1))  # omega_j(k) = omega_{n-1-j}(K - k)


@pytest.mark.parametrize("num_jumps", [4, 6])
def test_balancing_coefficients_match_the_golden(shared_dir, num_jumps):
    golden = np.load(shared_dir / "goldens" / "ge3d_guidance.npz")
    ours = [
        balancing_coefficients(k, 3000, num_jumps, width=1000.0).numpy()
        for k in golden["omega_iterations"].tolist()
    ]
    np.testing.assert_allclose(ours, golden[f"omega_K3000_n{num_jumps}_s1000_f64"], atol=1e-12)


def golden_toy(golden, time_offset: int = 0) -> ToyDenoiser:
    matrix, time_vector, text_vector = (
        torch.from_numpy(golden[name]).double() for name in ("A", "b", "c")
    )
    return ToyDenoiser(matrix, time_vector, text_vector, time_offset)


def golden_prompt(golden, mode: str, unconditional: float) -> GuidedPrompt:
    if mode == "cfg":
        return GuidedPrompt(text(1.0), text(unconditional), 7.5)
    return GuidedPrompt(
        text(1.0),
        text(unconditional),
        7.5,
        (text(0.55), text(-0.8)),
        torch.from_numpy(golden["perpneg_weights"]).double(),
        negligible_weight=0.0 if unconditional == 0.0 else 1e-4,
    )


@pytest.mark.parametrize("first", [0, 20])
@pytest.mark.parametrize("mode", ["cfg", "perpneg"])
def test_trajectories_and_gradients_match_the_goldens(shared_dir, mode, first):
    golden = np.load(shared_dir / "goldens" / "ge3d_guidance.npz")
    toy, name = golden_toy(golden), f"own_{mode}_t0_{first}"
    timesteps = torch.cat([torch.tensor([first]), TIMESTEPS[1:]])
    sigmas = timestep_sigmas(timesteps, VP)
    scales = signal_scale(sigmas, VP)
    clean, noise = (torch.from_numpy(golden[n]).double() for n in ("z", "noise"))
    up = partial(toy, conditioning=text(0.0).expanded(4))
    down = partial(guided_denoise, toy, prompt=golden_prompt(golden, mode, 0.0))
    noising = noising_trajectory(up, clean + sigmas[0] * noise, sigmas)
    denoising = denoising_trajectory(down, noising[-1], sigmas)
    for states, letter in ((noising, "x"), (denoising, "y")):
        scaled = torch.stack([a * state for a, state in zip(scales, states, strict=True)])
        np.testing.assert_allclose(scaled, golden[f"{name}_{letter}_f64"], atol=1e-9)
    for iteration in (0, 1500, 3000):
        omega = balancing_coefficients(iteration, 3000, 6, width=1000.0)
        targets = {
            "g": alignment_gradient(noising, denoising, sigmas, omega, VP),
            "gclean": alignment_gradient(
                [clean / scales[0], *noising[1:]], denoising, sigmas, omega, VP
            ),
            "ga": alignment_gradient(noising, denoising, sigmas, omega, VP, jacobian="linear"),
        }
        for letters, gradient in targets.items():
            expected = golden[f"{name}_{letters}_k{iteration}_f64"]
            np.testing.assert_allclose(0.1 * gradient, expected, atol=1e-9)


@pytest.mark.parametrize("offset", [1, 0])
@pytest.mark.parametrize("mode", ["cfg", "perpneg"])
def test_the_released_code_is_reproduced_with_its_off_by_one(shared_dir, mode, offset):
    golden = np.load(shared_dir / "goldens" / "ge3d_guidance.npz")
    toy, name = golden_toy(golden, time_offset=offset), f"repo_{mode}_offset{offset}"
    sigmas = timestep_sigmas(TIMESTEPS, VP)
    scales = signal_scale(sigmas, VP)
    clean, noise = (torch.from_numpy(golden[n]).double() for n in ("z", "noise"))
    alpha = make_alphas_cumprod()[offset]  # noised at another timestep than the algebra's
    start = (alpha.sqrt() * clean + (1 - alpha).sqrt() * noise) / scales[0]
    up = partial(toy, conditioning=text(-0.4).expanded(4))
    down = partial(guided_denoise, toy, prompt=golden_prompt(golden, mode, -0.4))
    noising = noising_trajectory(up, start, sigmas)
    denoising = denoising_trajectory(down, noising[-1], sigmas)
    scaled = torch.stack([a * x for a, x in zip(scales, noising, strict=True)])
    np.testing.assert_allclose(scaled[:-1], golden[f"{name}_x"], atol=5e-6)
    scaled = torch.stack([a * y for a, y in zip(scales, denoising, strict=True)])
    np.testing.assert_allclose(scaled.flip(0), golden[f"{name}_y_from_far"], atol=2e-5)
    for iteration in (0, 1500, 3000):
        # The released code spreads the bells over K + 1 iterations.
        omega = balancing_coefficients(iteration * 3001 / 3000, 3001, 6, width=1000.0)
        gradient = 0.1 * alignment_gradient(
            [clean / scales[0], *noising[1:]], denoising, sigmas, omega, VP, renormalize=False
        )
        np.testing.assert_allclose(gradient, golden[f"{name}_g_k{iteration}"], atol=2e-6)


def test_nodes_rise_from_zero_by_jumps_within_their_bounds():
    params = NodeParams()
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        progress = step / 199
        nodes = sample_timesteps(params, progress, generator)
        jumps = nodes.diff()
        low, high = round(60 - 30 * progress), round(80 - 30 * progress)
        assert int(nodes[0]) == 0
        assert 2 <= len(nodes) <= 7
        assert bool((jumps >= low).all())
        assert bool((jumps < high).all())
        assert int(nodes[-1]) < round(480 - 180 * progress)


def test_nodes_repeat_by_seed_and_vary_without():
    first, again, other = (
        sample_timesteps(NodeParams(), 0.5, torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert first.tolist() != other.tolist()


def test_fewer_nodes_keep_a_sum_of_one_unless_told_otherwise():
    sigmas = timestep_sigmas(TIMESTEPS[:3], FLOW)
    ones, zeros = [torch.ones(1, 2)] * 3, [torch.zeros(1, 2)] * 3
    omega = balancing_coefficients(0, 3000, 6)
    whole = alignment_gradient(ones, zeros, sigmas, omega, FLOW)
    part = alignment_gradient(ones, zeros, sigmas, omega, FLOW, renormalize=False)
    torch.testing.assert_close(whole, torch.ones(1, 2))
    torch.testing.assert_close(part, torch.full((1, 2), float(omega[:2].sum())))


def test_nan_in_a_state_counts_as_nothing():
    sigmas = timestep_sigmas(TIMESTEPS[:2], VP)
    states = [torch.tensor([[torch.nan, 1.0]]), torch.zeros(1, 2)]
    gradient = alignment_gradient(states, [torch.zeros(1, 2)] * 2, sigmas, torch.ones(1), VP)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient[0, 1]) > 0


def test_bad_nodes_are_refused():
    with pytest.raises(ValueError, match="rising noise levels"):
        noising_trajectory(lambda x, s: x, torch.ones(1, 2), torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="rising noise levels"):
        denoising_trajectory(lambda x, s: x, torch.ones(1, 2), torch.tensor([0.5, 0.4]))
    with pytest.raises(ValueError, match="jumps"):
        NodeParams(jump_begin=(80, 60))
    with pytest.raises(ValueError, match="num_jumps must be at least 1"):
        NodeParams(num_jumps=0)
    with pytest.raises(ValueError, match="at least 2 coefficients"):
        states = [torch.zeros(1, 2)] * 3
        alignment_gradient(states, states, timestep_sigmas(TIMESTEPS[:3], VP), torch.ones(1), VP)
