"""The bundle trainer finds colour directions, uses its words, and learns a single bundle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lift3d.core.training.flux_bundle import (
    FluxBundleParams,
    FluxBundleTraining,
    fit_color_directions,
    make_text_encoder,
    tokenize,
)
from lift3d.core.training.loop import LoopParams, TrainingLoop
from lift3d.core.training.picture_shards import PictureRecord
from lift3d.core.training.words import make_word_tokenizer

TINY = FluxBundleParams(
    heads=1, double_blocks=1, single_blocks=1, text_width=64, text_tokens=6, batch=4,
    loop=LoopParams(steps=60, learning_rate=3e-3, warmup_steps=5, report_every=100, save_every=0),
)  # fmt: skip


@pytest.fixture
def training() -> FluxBundleTraining:
    torch.manual_seed(0)
    latents = torch.randn(2, 16, 4, 8, generator=torch.Generator().manual_seed(1)).half()
    records = [PictureRecord("0", ("a red mug",), {}), PictureRecord("1", ("a mug", "mug"), {})]
    tokenizer = make_word_tokenizer(["a", "red", "mug"], max_length=6)
    return FluxBundleTraining(latents, records, tokenizer, torch.zeros(3, 16), TINY)


def test_colour_directions_are_found_where_colour_is_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(8, 5, 4, 6, generator=generator)
    true = torch.randn(3, 5, generator=generator) * 0.05
    colors = torch.einsum("kc,bchw->bkhw", true, latents) + 0.2
    pixels = colors.repeat_interleave(8, 2).repeat_interleave(8, 3)
    pictures = [((p.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy() for p in pixels]
    found, share = fit_color_directions(latents, pictures)
    torch.testing.assert_close(found, true, atol=2e-3, rtol=0)
    assert share > 0.99


def test_pictures_without_any_order_have_no_colour_directions() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (32, 48, 3)).astype(np.uint8) for _ in range(8)]
    _, share = fit_color_directions(torch.randn(8, 5, 4, 6), pictures)
    assert share < 0.2


def test_words_change_the_velocity(training) -> None:
    tokenizer = make_word_tokenizer(["a", "red", "mug"], max_length=6)
    tokens = tokenize(tokenizer, ["a red mug", ""])
    latents = torch.randn(1, 16, 4, 8).expand(2, -1, -1, -1)
    said = training.velocity(latents, torch.full((2,), 0.9), tokens)
    assert said.shape == latents.shape and not torch.allclose(said[0], said[1], atol=1e-5)


def test_the_order_of_words_reaches_the_tokens(training) -> None:
    tokenizer = make_word_tokenizer(["a", "red", "mug", "blue", "with", "handle"], max_length=8)
    encoder = make_text_encoder(TINY, len(tokenizer))
    tokens = tokenize(tokenizer, ["a red mug with blue handle", "a blue mug with red handle"])
    first, second = encoder(input_ids=tokens).last_hidden_state
    mug, handle, red = 2, 5, 1
    scale = first[mug].norm()
    assert (first[mug] - second[mug]).norm() > 0.2 * scale
    assert (first[handle] - second[handle]).norm() > 0.2 * scale
    # "red" means something else before "mug" (place 1) than before "handle" (place 4)
    assert (first[red] - second[4]).norm() > 0.2 * scale
    assert not any(value.requires_grad for value in encoder.parameters())


def test_the_text_encoder_is_always_the_same() -> None:
    torch.manual_seed(1)
    first = make_text_encoder(TINY, 7).state_dict()
    torch.manual_seed(2)
    second = make_text_encoder(TINY, 7).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_errors_along_colour_count_by_their_weight(training) -> None:
    training.params = replace(TINY, color_weight=2.0)
    training.color_directions = torch.eye(16)[:3]
    losses = training.loss(0, torch.Generator().manual_seed(3))
    expected = losses["plain"] + 2.0 * losses["color"]
    torch.testing.assert_close(losses["total"], expected)
    assert float(losses["color"]) > 0


def test_it_learns_two_bundles(training, tmp_path) -> None:
    def mean_loss() -> float:
        values = [training.loss(0, torch.Generator().manual_seed(i))["plain"] for i in range(6)]
        return float(torch.stack(values).mean().detach())

    before = mean_loss()
    TrainingLoop(training, tmp_path, TINY.loop).run(training.loss)
    assert mean_loss() < 0.75 * before
