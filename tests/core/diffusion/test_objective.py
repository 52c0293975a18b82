"""Distillation recipes: what they ask of a model, in which units they answer, what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusion_toy import ToyModel, random_toy
from lift3d.core.diffusion.distillation import AlignmentParams
from lift3d.core.diffusion.objective import (
    Distiller,
    NonFiniteError,
    ObjectiveParams,
    ScoreParams,
    WatchedDenoiser,
    interval_weights,
)
from lift3d.core.diffusion.schedules import signal_scale, timestep_sigmas
from lift3d.core.diffusion.trajectories import NodeParams

VP, FLOW = "variance_preserving", "rectified_flow"
DIM = 4 * 4 * 4
AZIMUTHS, LEVEL = torch.tensor([0.0, 90.0, 170.0]), torch.zeros(3)
WIDE_NODES = AlignmentParams(NodeParams(6, (60, 70), (60, 70), 480, 480))


def latents(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, 4, 4, generator=generator, dtype=torch.float64)


def ask(model, params: ObjectiveParams, *, z=None, iteration: int = 0, seed: int = 0):
    distiller = Distiller(model, "a red mug", params)
    answer = distiller.gradient(
        latents() if z is None else z,
        AZIMUTHS,
        LEVEL,
        iteration=iteration,
        total_iterations=100,
        generator=torch.Generator().manual_seed(seed),
    )
    return distiller, answer


@pytest.mark.parametrize("perp_neg", [None, "ge3d"])
def test_ge3d_needs_three_or_at_most_five_evaluations_per_node_and_view(perp_neg) -> None:
    model = ToyModel(random_toy(DIM))
    distiller, _ = ask(model, ObjectiveParams(perp_neg=perp_neg, alignment=WIDE_NODES))
    nodes, batch = 6, 3
    assert distiller.denoise.calls == 2 * nodes
    if perp_neg is None:
        assert distiller.denoise.entries == 3 * nodes * batch
    else:
        assert 3 * nodes * batch < distiller.denoise.entries <= 5 * nodes * batch


def test_sds_asks_once_and_ism_few_times() -> None:
    sds, _ = ask(ToyModel(random_toy(DIM)), ObjectiveParams(kind="sds", perp_neg=None))
    assert (sds.denoise.calls, sds.denoise.entries) == (1, 2 * 3)
    ism, _ = ask(ToyModel(random_toy(DIM)), ObjectiveParams(kind="ism", perp_neg=None))
    assert 2 <= ism.denoise.calls <= 7


@pytest.mark.parametrize("kind", ["ge3d", "sds", "ism"])
@pytest.mark.parametrize("family", [VP, FLOW])
def test_the_strength_scales_the_gradient_but_not_the_disagreement(kind, family) -> None:
    params = ObjectiveParams(kind=kind, alignment=WIDE_NODES)
    toy = random_toy(DIM, family=family)
    _, once = ask(ToyModel(toy), replace(params, strength=0.1))
    _, twice = ask(ToyModel(toy), replace(params, strength=0.2))
    torch.testing.assert_close(twice.gradient, 2 * once.gradient)
    assert twice.disagreement == pytest.approx(once.disagreement)
    assert once.gradient.abs().max() > 0


@pytest.mark.parametrize("kind", ["ge3d", "ism"])
@pytest.mark.parametrize("family", [VP, FLOW])
def test_the_disagreement_is_the_difference_of_the_predicted_noises(kind, family) -> None:
    """A model whose noise depends on the text alone: every interval has the same residual."""
    model = ToyModel(random_toy(DIM, family=family))

    def denoise(x, sigma, conditioning):
        said = conditioning.tokens[:, 0, 0] / 100
        return x - sigma.to(x).reshape(-1, 1, 1, 1) * said.to(x).reshape(-1, 1, 1, 1)

    model.denoise = denoise
    recipe = ObjectiveParams(kind=kind, guidance_scale=2.0, perp_neg=None, alignment=WIDE_NODES)
    z = torch.zeros(1, 4, 4, 4, dtype=torch.float64)
    distiller = Distiller(model, "a red mug", recipe)
    answer = distiller.gradient(
        z, torch.zeros(1), torch.zeros(1), iteration=30, total_iterations=100,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    empty, said = (
        float(model.encode_text([t]).tokens[0, 0, 0]) / 100 for t in ("", "a red mug, front view")
    )
    assert answer.disagreement == pytest.approx(2.0 * (said - empty), rel=1e-6)


@pytest.mark.parametrize("family", [VP, FLOW])
@pytest.mark.parametrize("jacobian", ["identity", "linear"])
def test_interval_weights_are_those_of_the_closed_form(family, jacobian) -> None:
    timesteps = torch.tensor([0, 70, 135, 210])
    params = AlignmentParams(NodeParams(num_jumps=6), jacobian=jacobian)
    ours = interval_weights(timesteps, 40, 100, params, family)
    sigmas = timestep_sigmas(timesteps, family)
    from lift3d.core.diffusion.trajectories import balancing_coefficients

    omega = balancing_coefficients(40, 100, 6)[:3]
    omega = omega / omega.sum()
    for i in range(3):
        total = 0.0
        for j in range(i + 1):
            a = float(signal_scale(sigmas[j], family))
            again = 1.0 if jacobian == "identity" else (a if family == VP else 1 - sigmas[j])
            total += float(omega[j]) * a * float(again)
        assert float(ours[i]) == pytest.approx(float(sigmas[i + 1] - sigmas[i]) * total)


def test_texts_reach_the_branches_they_belong_to() -> None:
    reference = ObjectiveParams(inversion_text="negative", unconditional_text="negative")
    model = ToyModel(random_toy(DIM))
    distiller, _ = ask(model, reference)
    negative = model.encode_text([reference.negative_prompt]).tokens
    assert torch.equal(distiller.prompts.inversion.tokens, negative)
    assert torch.equal(distiller.prompts.unconditional.tokens, negative)
    distiller, _ = ask(model, ObjectiveParams())
    assert torch.equal(distiller.prompts.inversion.tokens, model.encode_text([""]).tokens)


def test_the_same_seed_repeats_and_another_does_not() -> None:
    params = ObjectiveParams(alignment=WIDE_NODES)
    toy = random_toy(DIM)
    first, again, other = (ask(ToyModel(toy), params, seed=s)[1].gradient for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_nan_from_the_model_is_noticed_at_once() -> None:
    calls = []

    def denoise(x, sigma, conditioning):
        calls.append(1)
        return x * torch.nan

    model = ToyModel(random_toy(DIM))
    model.denoise = denoise
    with pytest.raises(NonFiniteError, match="NaN or infinity at noise level"):
        ask(model, ObjectiveParams())
    assert len(calls) == 1


def test_watching_counts_and_times() -> None:
    watched = WatchedDenoiser(lambda x, s, c: x)
    watched(torch.ones(5, 2), torch.ones(5), None)
    watched(torch.ones(2, 2), torch.ones(2), None)
    assert (watched.calls, watched.entries) == (2, 7) and watched.seconds > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "dreamfusion"}, "must be ge3d, sds or ism"),
        ({"guidance_scale": 0.0}, "guidance_scale must be positive"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be positive"),
        ({"strength": 0.0}, "strength must be positive"),
    ],
)
def test_senseless_recipes_are_refused(change, message, unchecked_shapes) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveParams(**change)


def test_senseless_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="0 <= low < high <= 1"):
        ScoreParams((0.5, 0.2))
    with pytest.raises(ValueError, match="0 <= low < high <= 1"):
        ScoreParams((0.02, 0.98), largest_end=1.5)
