from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusion_toy import ToyDenoiser, random_toy, text
from lift3d.core.diffusion.distillation import (
    REFERENCE_ALIGNMENT,
    AlignmentParams,
    IntervalParams,
    interval_score_gradient,
    make_training_noise,
    sample_interval,
    score_distillation_gradient,
    surrogate_loss,
    trajectory_alignment_gradient,
)
from lift3d.core.diffusion.guidance import GuidedPrompt, guided_denoise
from lift3d.core.diffusion.schedules import add_noise, signal_scale, timestep_sigmas
from lift3d.core.diffusion.trajectories import NodeParams, balancing_coefficients, ode_step
from torch.nn.functional import cosine_similarity

VP, FLOW = "variance_preserving", "rectified_flow"
FAMILIES = [VP, FLOW]
TIMESTEPS = torch.tensor([0, 70, 135, 210, 280, 350, 420])


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def level(timestep: int, family: str) -> torch.Tensor:
    return timestep_sigmas(torch.tensor([timestep]), family)[0]


def align(toy, latents, prompt, *, family=VP, **options) -> torch.Tensor:
    options = {"iteration": 0, "total_iterations": 3000, **options}
    generator = torch.Generator().manual_seed(0)
    return trajectory_alignment_gradient(
        toy, latents, prompt, text(0.0), family=family, generator=generator, **options
    )


def golden_toy(golden, time_offset: int = 0) -> ToyDenoiser:
    weights = (torch.from_numpy(golden[name]).double() for name in ("A", "b", "c"))
    return ToyDenoiser(*weights, time_offset)


def test_alignment_matches_the_golden(shared_dir):
    golden = np.load(shared_dir / "goldens" / "ge3d_guidance.npz")
    clean, noise = (torch.from_numpy(golden[n]).double() for n in ("z", "noise"))
    for iteration in (0, 1500, 3000):
        ours = align(
            golden_toy(golden),
            clean,
            GuidedPrompt(text(1.0), text(0.0), 7.5),
            iteration=iteration,
            timesteps=TIMESTEPS,
            noise=noise,
        )
        np.testing.assert_allclose(ours, golden[f"own_cfg_t0_0_g_k{iteration}_f64"], atol=1e-9)


@pytest.mark.parametrize(
    ("name", "scale", "weighting"),
    [
        ("sds_grad_cfg100_w1_f64", 100.0, "uniform"),
        ("sds_grad_cfg100_w1mabar_f64", 100.0, "sds"),
        ("sds_grad_cfg7_5_st_f64", 7.5, "sigma"),
    ],
)
def test_score_distillation_matches_the_goldens(shared_dir, name, scale, weighting):
    golden = np.load(shared_dir / "goldens" / "ge3d_guidance.npz")
    clean, noise = (torch.from_numpy(golden[n]).double() for n in ("z", "noise"))
    ours = score_distillation_gradient(
        golden_toy(golden),
        clean,
        GuidedPrompt(text(1.0), text(0.0), scale),
        level(350, VP),
        noise,
        family=VP,
        weighting=weighting,
    )
    np.testing.assert_allclose(ours, golden[name], atol=1e-9)


def test_interval_score_matches_the_golden(shared_dir):
    golden = np.load(shared_dir / "goldens" / "ge3d_guidance.npz")
    clean, noise = (torch.from_numpy(golden[n]).double() for n in ("z", "noise"))
    ours = interval_score_gradient(
        golden_toy(golden),
        clean,
        GuidedPrompt(text(1.0), text(0.0), 7.5),
        text(0.0),
        timestep_sigmas(torch.tensor([80, 280, 350]), VP),
        noise,
        family=VP,
    )
    np.testing.assert_allclose(ours, golden["ism_grad_f64"], atol=1e-9)


def test_score_distillation_reproduces_luciddreamer(shared_dir):
    golden = np.load(shared_dir / "goldens" / "ge3d_guidance.npz")
    clean, noise = (torch.from_numpy(golden[n]).double() for n in ("z", "noise"))
    ours = score_distillation_gradient(
        golden_toy(golden),
        clean,
        GuidedPrompt(text(1.0), text(-0.4), 7.5),
        level(351, VP),
        noise,
        family=VP,
        weighting="sigma",
    )
    np.testing.assert_allclose(ours, golden["ld_sds_grad"], atol=2e-5)


def test_interval_score_reproduces_luciddreamer(shared_dir):
    golden = np.load(shared_dir / "goldens" / "ge3d_guidance.npz")
    clean, noise = (torch.from_numpy(golden[n]).double() for n in ("z", "noise"))
    ours = interval_score_gradient(
        golden_toy(golden),
        clean,
        GuidedPrompt(text(1.0), text(-0.4), 7.5),
        text(0.0),
        timestep_sigmas(torch.tensor([81, 281, 351]), VP),
        noise,
        family=VP,
    )
    np.testing.assert_allclose(ours, golden["ld_ism_grad"], atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_jump_of_alignment_is_interval_score_matching(family):
    toy, clean, noise = random_toy(12, family=family), draw(2, 3, 2, 2), draw(2, 3, 2, 2, seed=5)
    prompt, timesteps = GuidedPrompt(text(1.0), text(0.0), 7.5), torch.tensor([280, 350])
    aligned = align(
        toy,
        clean,
        prompt,
        family=family,
        timesteps=timesteps,
        noise=noise,
        params=AlignmentParams(strength=1.0, nodes=NodeParams(num_jumps=1)),
    )
    sigmas = timestep_sigmas(timesteps, family)
    interval = interval_score_gradient(toy, clean, prompt, text(0.0), sigmas, noise, family=family)
    near, far = sigmas
    factor = signal_scale(near, family) * (far - near) / far
    torch.testing.assert_close(aligned, factor * interval)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_jump_from_zero_with_random_noise_is_score_distillation(family):
    """x_0 - y_0 when the way up takes random noise instead of the model's: s_t (E - noise)."""
    toy, clean, noise = random_toy(12, family=family), draw(2, 3, 2, 2), draw(2, 3, 2, 2, seed=5)
    prompt, sigma = GuidedPrompt(text(1.0), text(0.0), 7.5), level(350, family)
    ours = score_distillation_gradient(
        toy, clean, prompt, sigma, noise, family=family, weighting="sigma"
    )
    far = add_noise(clean, noise, float(sigma), family)
    denoised = guided_denoise(toy, far, sigma.expand(2), prompt)
    near = ode_step(far, denoised, float(sigma), 0.0)
    torch.testing.assert_close(ours, clean - near)
    predicted = (far - denoised) / float(sigma)  # noise, or velocity
    true = noise if family == VP else noise - clean
    torch.testing.assert_close(ours, float(sigma) * (predicted - true))


@pytest.mark.parametrize("family", FAMILIES)
def test_random_noising_by_one_jump_is_score_distillation(family):
    toy, clean, noise = random_toy(12, family=family), draw(2, 3, 2, 2), draw(2, 3, 2, 2, seed=5)
    prompt, timesteps = GuidedPrompt(text(1.0), text(0.0), 7.5), torch.tensor([0, 350])
    params = AlignmentParams(NodeParams(num_jumps=1), strength=1.0, noising="random")
    ours = align(toy, clean, prompt, family=family, timesteps=timesteps, noise=noise, params=params)
    near, far = timestep_sigmas(timesteps, family)
    score = score_distillation_gradient(
        toy, clean, prompt, far, noise, family=family, weighting="uniform"
    )
    torch.testing.assert_close(ours, signal_scale(near, family) * (far - near) * score)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("jumps", [2, 3, 6])
def test_random_noising_gives_the_closed_form_with_the_true_noise(family, jumps):
    """sum_j omega_j a_j sum_{i >= j} (s_{i+1} - s_i) (E_{i+1} - noise), in float64."""
    toy, clean, noise = random_toy(12, family=family), draw(2, 3, 2, 2), draw(2, 3, 2, 2, seed=5)
    prompt, timesteps = GuidedPrompt(text(1.0), text(0.0), 7.5), TIMESTEPS[: jumps + 1]
    params = AlignmentParams(NodeParams(num_jumps=jumps), strength=1.0, noising="random")
    ours = align(toy, clean, prompt, family=family, timesteps=timesteps, noise=noise, params=params)
    assert len(toy.entries) == jumps and sum(toy.entries) == 2 * jumps * len(clean)
    sigmas = timestep_sigmas(timesteps, family)
    true = noise if family == VP else noise - clean
    state, tail = add_noise(clean, noise, float(sigmas[-1]), family), torch.zeros_like(clean)
    omega, expected = balancing_coefficients(0, 3000, jumps), torch.zeros_like(clean)
    for node in reversed(range(jumps)):
        near, far = sigmas[node], sigmas[node + 1]
        guided = (state - guided_denoise(toy, state, far.expand(2), prompt)) / far
        state, tail = state + (near - far) * guided, tail + (far - near) * (guided - true)
        expected += omega[node] * signal_scale(near, family) * tail
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)


def test_a_way_of_noising_that_does_not_exist_is_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="inversion or random"):
        AlignmentParams(noising="up")


@pytest.mark.parametrize("family", FAMILIES)
def test_score_weightings_differ_by_a_factor_only(family):
    toy, clean, noise = random_toy(12, family=family), draw(2, 3, 2, 2), draw(2, 3, 2, 2, seed=5)
    gradients = [
        score_distillation_gradient(
            toy,
            clean,
            GuidedPrompt(text(1.0), text(0.0), 100.0),
            level(350, family),
            noise,
            family=family,
            weighting=weighting,
        ).flatten()
        for weighting in ("sds", "uniform", "fantasia3d", "sigma")
    ]
    for other in gradients[1:]:
        assert float(cosine_similarity(gradients[0], other, dim=0)) == pytest.approx(1.0)


def test_a_perfect_prediction_of_the_noise_gives_no_score_gradient():
    clean, noise = draw(2, 3, 2, 2), draw(2, 3, 2, 2, seed=5)
    gradient = score_distillation_gradient(
        lambda x, s, c: clean,
        clean,
        GuidedPrompt(text(1.0)),
        level(350, VP),
        noise,
        family=VP,
    )
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("noising", ["inversion", "random"])
@pytest.mark.parametrize("negatives", [0, 2])
def test_evaluations_are_counted_as_stated(negatives, noising):
    toy, batch, nodes = random_toy(12), 3, len(TIMESTEPS) - 1
    options = {}
    if negatives:
        options = {
            "negatives": (text(0.5), text(-0.8)),
            "negative_weights": torch.full((batch, 2), -1.0),
        }
    align(
        toy,
        draw(batch, 3, 2, 2),
        GuidedPrompt(text(1.0), text(0.0), 7.5, **options),
        timesteps=TIMESTEPS,
        params=AlignmentParams(noising=noising),
    )
    upward = nodes if noising == "inversion" else 0
    assert len(toy.entries) == upward + nodes
    assert sum(toy.entries) == upward * batch + (2 + negatives) * nodes * batch


def test_the_surrogate_injects_the_gradient_bit_for_bit():
    latents = torch.randn(2, 4, 8, 8, requires_grad=True)
    gradient = torch.randn(2, 4, 8, 8)
    surrogate_loss(latents, gradient).backward()
    assert torch.equal(latents.grad, gradient)


def test_only_the_picture_gets_a_gradient():
    encoder, network = torch.randn(12, 6), torch.randn(12, 12, requires_grad=True)
    picture = torch.randn(2, 6, requires_grad=True)
    latents = (picture @ encoder.T).reshape(2, 3, 2, 2)

    def denoise(x, sigma, conditioning):
        return torch.tanh(x.flatten(1) @ network).reshape(x.shape)

    gradient = align(denoise, latents, GuidedPrompt(text(1.0), text(0.0), 7.5))
    surrogate_loss(latents, gradient).backward()
    torch.testing.assert_close(picture.grad, gradient.flatten(1) @ encoder)
    assert network.grad is None
    assert not gradient.requires_grad


def test_the_same_seed_gives_the_same_gradient():
    prompt = GuidedPrompt(text(1.0), text(0.0), 7.5)
    first, second = (align(random_toy(12), draw(2, 3, 2, 2), prompt) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_agrees_with_single(family):
    toy, clean = random_toy(12, family=family), draw(2, 3, 2, 2).float()
    prompt = GuidedPrompt(text(1.0), text(0.0), 7.5)
    single = align(toy_of(toy, torch.float32), clean, prompt, family=family)
    half = align(toy_of(toy, torch.float32), clean.half(), prompt, family=family)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), single, atol=5e-3, rtol=2e-2)


def toy_of(toy: ToyDenoiser, dtype: torch.dtype) -> ToyDenoiser:
    weights = (x.to(dtype) for x in (toy.matrix, toy.time_vector, toy.text_vector))
    return ToyDenoiser(*weights, family=toy.family)


def test_nan_from_the_model_gives_a_finite_gradient():
    def denoise(x, sigma, conditioning):
        x = x.clone()
        x[:, 0] = torch.nan
        return x

    prompt = GuidedPrompt(text(1.0), text(0.0), 7.5)
    assert bool(torch.isfinite(align(denoise, draw(2, 3, 2, 2), prompt)).all())


def test_the_reference_variant_keeps_the_noise_floor_of_node_zero():
    # One constant noise prediction: only the compared z differs from the noised x_0.
    clean, noise, constant = draw(1, 3, 2, 2), draw(1, 3, 2, 2, seed=3), draw(1, 3, 2, 2, seed=4)

    def denoise(x, sigma, conditioning):
        return x - sigma.reshape(-1, 1, 1, 1) * constant

    nodes = NodeParams(num_jumps=1)
    ours = align(
        denoise,
        clean,
        GuidedPrompt(text(1.0), text(0.0), 7.5),
        params=AlignmentParams(nodes, strength=1.0, clean_target=True),
        timesteps=torch.tensor([0, 70]),
        noise=noise,
    )
    a = signal_scale(level(0, VP), VP)
    torch.testing.assert_close(ours, clean - a * (clean + level(0, VP) * noise))
    assert REFERENCE_ALIGNMENT.clean_target


def test_offset_noise_is_shared_within_a_channel():
    latents = torch.zeros(2, 3, 64, 64)
    plain, shifted = (
        make_training_noise(latents, torch.Generator().manual_seed(0), offset_noise=offset)
        for offset in (0.0, 1.0)
    )
    difference = shifted - plain
    assert difference.std(dim=(0, 2, 3)).max() < 1e-6
    assert float(difference.mean(dim=(0, 2, 3)).std()) > 0.05


def test_drawn_intervals_rise_and_stay_in_range():
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        progress = step / 199
        nodes = sample_interval(IntervalParams(), progress, generator)
        assert bool((nodes.diff() > 0).all())
        assert int(nodes[0]) >= 0
        assert int(nodes[-1]) < 1000 * (0.98 - 0.48 * progress) + 1
        assert len(nodes) <= 7


def mixture_denoiser(modes: torch.Tensor, deviation: float):
    """Exact clean latents of a mixture of two Gaussians; text 1 names the first mode, 0 none."""

    def denoise(latents, sigma, conditioning):
        spread = sigma[:, None] ** 2 + deviation**2
        distance = (latents[:, None] - modes).square().sum(dim=-1)
        logits = -distance / (2 * spread)
        named = conditioning.tokens[:, 0, 0] > 0.5
        logits = torch.where(
            named[:, None], torch.tensor([0.0, -torch.inf], dtype=latents.dtype), logits
        )
        share = torch.softmax(logits, dim=1)
        posterior = modes + deviation**2 / spread[..., None] * (latents[:, None] - modes)
        return (share[..., None] * posterior).sum(dim=1)

    return denoise


@pytest.mark.parametrize(
    ("family", "start", "iterations", "rate"),
    [
        (VP, "wrong mode", 100, 0.6),
        pytest.param(VP, "wrong mode", 400, 0.2, marks=pytest.mark.slow),
        pytest.param(VP, "random", 400, 0.2, marks=pytest.mark.slow),
        pytest.param(VP, "right mode", 400, 0.2, marks=pytest.mark.slow),
        pytest.param(FLOW, "wrong mode", 400, 0.2, marks=pytest.mark.slow),
        pytest.param(FLOW, "random", 400, 0.2, marks=pytest.mark.slow),
        pytest.param(FLOW, "right mode", 400, 0.2, marks=pytest.mark.slow),
    ],
)
def test_alignment_finds_the_mode_that_the_text_names(
    family, start, iterations, rate, unchecked_shapes
):
    first = torch.zeros(16, dtype=torch.float64)
    first[0] = 3.0
    scale = {"random": 1.0, "wrong mode": 0.0, "right mode": 0.0}[start]
    latents = scale * draw(1, 16) + {"right mode": first}.get(start, -first if not scale else 0.0)
    modes = torch.stack([first, -first])

    def denoise(x, sigma, conditioning):
        # A flow at level s holds (1 - s) times the variance-preserving latents at s / (1 - s).
        if family == FLOW:
            x, sigma = x / (1 - sigma[:, None]), sigma / (1 - sigma)
        return mixture_denoiser(modes, 0.3)(x, sigma, conditioning)

    generator = torch.Generator().manual_seed(0)
    prompt = GuidedPrompt(text(1.0), text(0.0), 7.5)
    farthest = 0.0
    for iteration in range(iterations):
        gradient = trajectory_alignment_gradient(
            denoise,
            latents,
            prompt,
            text(0.0),
            family=family,
            iteration=iteration,
            total_iterations=iterations,
            generator=generator,
            params=AlignmentParams(strength=1.0),
        )
        latents = latents - rate * gradient
        farthest = max(farthest, float((latents - first).norm()))
    assert float((latents - first).norm()) < 0.1
    if start == "right mode":
        assert farthest < 0.1
