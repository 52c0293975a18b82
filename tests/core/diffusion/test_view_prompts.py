"""View-dependent prompts: which text is said where, and what it costs."""

from __future__ import annotations

import pytest
import torch
from diffusion_toy import random_toy
from lift3d.core.diffusion.guidance import guided_denoise, view_negative_weights
from lift3d.core.diffusion.model import Conditioning
from lift3d.core.diffusion.view_prompts import (
    VIEWS,
    embed_view_prompts,
    name_view,
    view_shares,
    write_view_prompt,
)


def encode(prompts) -> Conditioning:
    """A text becomes its length and its first letters' codes: enough to tell texts apart."""
    rows = [[float(len(p)), *(float(ord(c)) for c in p[:3].ljust(3))] for p in prompts]
    return Conditioning(torch.tensor(rows, dtype=torch.float64)[:, None])


def test_views_are_named_by_the_nearest_prompt() -> None:
    named = [name_view(a) for a in (0, 44, -44, 46, 134, -134, 136, 180, -180, 359, 271)]
    assert named == [
        "front", "front", "front", "side", "side", "side", "back", "back", "back", "front", "side",
    ]  # fmt: skip


def test_the_name_is_the_view_with_the_largest_share() -> None:
    azimuths = torch.linspace(-179.0, 180.0, 173)
    shares = view_shares(azimuths, torch.zeros_like(azimuths))
    assert [VIEWS[i] for i in shares.argmax(dim=1)] == [name_view(float(a)) for a in azimuths]


def test_shares_sum_to_one_and_fade_to_the_overhead_prompt() -> None:
    elevations = torch.tensor([0.0, 60.0, 67.5, 75.0, 90.0])
    shares = view_shares(torch.full((5,), 90.0), elevations)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(shares[:, 3], torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    torch.testing.assert_close(shares[0], torch.tensor([0.0, 1.0, 0.0, 0.0]))


def test_texts_are_said_for_each_view() -> None:
    assert write_view_prompt(" a red mug ", "side") == "a red mug, side view"
    assert write_view_prompt("a cat", "back", "The {view} view of {text}") == (
        "The back view of a cat"
    )


def test_what_is_asked_follows_the_camera() -> None:
    prompts = embed_view_prompts(encode, "a mug", scale=7.5)
    front, side, back = (encode([f"a mug, {view} view"]).tokens for view in VIEWS[:3])
    prompt = prompts.guided(torch.tensor([0.0, 90.0, 180.0, 135.0]), torch.zeros(4))
    expected = torch.cat([front, side, back, (side + back) / 2])
    torch.testing.assert_close(prompt.positive.tokens, expected)
    assert prompt.negatives == () and prompt.scale == 7.5
    torch.testing.assert_close(prompts.inversion.tokens, encode([""]).tokens)


def test_negative_prompts_go_where_they_are_told() -> None:
    prompts = embed_view_prompts(
        encode, "a mug", unconditional_text="ugly", inversion_text="ugly", scale=7.5
    )
    assert torch.equal(prompts.unconditional.tokens, encode(["ugly"]).tokens)
    assert torch.equal(prompts.inversion.tokens, encode(["ugly"]).tokens)


def test_perp_neg_asks_front_and_side_at_most() -> None:
    prompts = embed_view_prompts(encode, "a mug", law="ge3d")
    azimuths = torch.tensor([0.0, 60.0, 170.0])
    prompt = prompts.guided(azimuths, torch.zeros(3))
    assert len(prompt.negatives) == 2
    torch.testing.assert_close(prompt.negative_weights, view_negative_weights(azimuths)[:, :2])
    above = prompts.guided(azimuths, torch.full((3,), 90.0))
    assert above.negatives == ()


def test_only_entries_with_a_weight_are_evaluated() -> None:
    prompts = embed_view_prompts(encode, "a mug", law="ge3d")
    azimuths = torch.tensor([0.0, 40.0, 90.0, 180.0])
    prompt = prompts.guided(azimuths, torch.zeros(4))
    toy, latents = random_toy(16), torch.randn(4, 1, 4, 4, dtype=torch.float64)
    sigma = torch.full((4,), 0.5, dtype=torch.float64)
    batch = guided_denoise(toy, latents, sigma, prompt)
    wanted = int((prompt.negative_weights.abs() >= 1e-4).sum())
    assert toy.entries == [8 + wanted] and wanted < 8
    for i in range(4):  # one by one: the same answers
        alone = prompts.guided(azimuths[i : i + 1], torch.zeros(1))
        single = guided_denoise(toy, latents[i : i + 1], sigma[:1], alone)
        torch.testing.assert_close(batch[i : i + 1], single)


def test_a_distilled_model_is_told_its_guidance_and_asked_once() -> None:
    prompts = embed_view_prompts(encode, "a mug", scale=3.5, law="ge3d", guidance_kind="distilled")
    prompt = prompts.guided(torch.tensor([10.0]), torch.zeros(1))
    assert prompt.positive.guidance == 3.5 and prompts.inversion.guidance == 1.0
    assert prompt.unconditional is None and prompt.negatives == ()


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_prompts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        embed_view_prompts(encode, text)


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        embed_view_prompts(encode, "a mug", scale=0.0)
    with pytest.raises(ValueError, match=r"must contain \{text\}"):
        write_view_prompt("a mug", "front", "the {view} view")
