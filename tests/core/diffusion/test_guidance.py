from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusion_toy import random_toy, text
from lift3d.core.diffusion.guidance import (
    GuidedPrompt,
    guide,
    guide_perp_neg,
    guided_denoise,
    perpendicular_part,
    view_negative_weights,
    view_prompt_mix,
)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_perpendicular_part_is_orthogonal_per_entry():
    difference, direction = draw(2, 3, 4, 5, 5).unbind(0)
    part = perpendicular_part(difference, direction)
    products = (part * direction).flatten(1).sum(dim=1)
    torch.testing.assert_close(products, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_perpendicular_part_survives_a_vanishing_direction():
    difference = draw(2, 4)
    part = perpendicular_part(difference, torch.zeros_like(difference))
    torch.testing.assert_close(part, difference)


def test_without_weights_perp_neg_is_plain_guidance():
    none, positive, negative = draw(3, 2, 4, 3, 3).unbind(0)
    ours = guide_perp_neg(none, positive, negative[None], torch.zeros(2, 1), 7.5)
    torch.testing.assert_close(ours, guide(none, positive, 7.5))


def test_a_parallel_negative_has_no_effect():
    none, positive = draw(2, 2, 4, 3, 3).unbind(0)
    negative = none - 3 * (positive - none)
    ours = guide_perp_neg(none, positive, negative[None], torch.full((2, 1), -2.0), 7.5)
    torch.testing.assert_close(ours, guide(none, positive, 7.5))


def test_guiding_noise_or_clean_latents_is_the_same():
    latents, sigma = draw(2, 4, 3, 3), 0.8
    noises = draw(4, 2, 4, 3, 3)
    weights = torch.tensor([[-1.0, -0.5], [-2.0, 0.0]])
    noise = guide_perp_neg(noises[0], noises[1], noises[2:], weights, 7.5)
    clean = latents - sigma * noises
    ours = guide_perp_neg(clean[0], clean[1], clean[2:], weights, 7.5)
    torch.testing.assert_close(ours, latents - sigma * noise)


def test_all_branches_share_one_call():
    toy, latents = random_toy(16), draw(3, 1, 4, 4)
    sigma = torch.full((3,), 0.5, dtype=torch.float64)
    weights = torch.tensor([[-1.0, -2.0], [-0.5, -1.0], [-2.0, -1.0]])
    guided_denoise(toy, latents, sigma, GuidedPrompt(text(1.0)))
    guided_denoise(toy, latents, sigma, GuidedPrompt(text(1.0), text(0.0), 7.5))
    prompt = GuidedPrompt(text(1.0), text(0.0), 7.5, (text(0.5), text(-0.5)), weights)
    guided_denoise(toy, latents, sigma, prompt)
    assert toy.entries == [3, 6, 12]


def test_negligible_negatives_are_not_evaluated():
    toy, latents = random_toy(16), draw(2, 1, 4, 4)
    sigma = torch.full((2,), 0.5, dtype=torch.float64)
    weights = torch.tensor([[-1.0, -5e-5], [-0.5, 0.0]])
    prompt = GuidedPrompt(text(1.0), text(0.0), 7.5, (text(0.5), text(-0.5)), weights)
    ours = guided_denoise(toy, latents, sigma, prompt)
    single = GuidedPrompt(text(1.0), text(0.0), 7.5, (text(0.5),), weights[:, :1])
    torch.testing.assert_close(ours, guided_denoise(toy, latents, sigma, single))
    assert toy.entries == [6, 6]


def test_prompt_mix_is_front_side_back_at_the_poles():
    mix = view_prompt_mix(torch.tensor([0.0, 90.0, -90.0, 180.0, -180.0, 45.0, 360.0]))
    front, side, back = torch.eye(3)
    torch.testing.assert_close(
        mix, torch.stack([front, side, side, back, back, (front + side) / 2, front])
    )


def test_view_tables_match_the_goldens(shared_dir):
    golden = np.load(shared_dir / "goldens" / "ge3d_tables.npz")
    azimuths = torch.from_numpy(golden["azimuth"])
    np.testing.assert_allclose(
        view_prompt_mix(azimuths), golden["positive_mix_front_side_back"], atol=1e-6
    )
    ours = view_negative_weights(azimuths)
    theirs = torch.zeros_like(ours)
    for i, (weights, prompts) in enumerate(
        zip(golden["perpneg_weights"], golden["negative_prompt_index"], strict=True)
    ):
        for weight, prompt in zip(weights[1:], prompts, strict=True):
            theirs[i, prompt] += float(weight)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("law", ["ge3d", "threestudio"])
def test_negative_weights_are_even_and_nowhere_positive(law):
    azimuths = torch.linspace(0.0, 180.0, 181)
    weights = view_negative_weights(azimuths, law)
    torch.testing.assert_close(view_negative_weights(-azimuths, law), weights)
    assert bool((weights <= 1e-3).all())


def test_negative_weights_are_continuous_at_the_side():
    near = view_negative_weights(torch.tensor([89.999, 90.001]))
    torch.testing.assert_close(near[0], near[1], atol=1e-3, rtol=0)


def test_half_given_negatives_are_refused():
    with pytest.raises(ValueError, match="negatives and negative_weights together"):
        GuidedPrompt(text(1.0), text(0.0), 7.5, (text(0.5),))
    with pytest.raises(ValueError, match="unconditional"):
        GuidedPrompt(text(1.0), None, 7.5, (text(0.5),), torch.zeros(1, 1))


def test_an_unknown_law_is_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="Unknown Perp-Neg law"):
        view_negative_weights(torch.zeros(1), "other")
