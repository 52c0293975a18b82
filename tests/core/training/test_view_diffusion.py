"""Training of the embedded view model: captions with views, targets, files that diffusers reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lift3d.core.diffusion.schedules import alphas_to_sigmas
from lift3d.core.training.loop import LoopParams, TrainingLoop
from lift3d.core.training.picture_shards import PictureRecord
from lift3d.core.training.view_dataset import (
    ViewDatasetParams,
    draw_training_view,
    draw_view_dataset,
)
from lift3d.core.training.view_diffusion import (
    ViewDiffusionParams,
    ViewDiffusionTraining,
    draw_timesteps,
    make_view_tokenizer,
    save_view_model,
    tokenize,
)
from lift3d.core.training.view_samples import TrainedDenoiser

TINY = ViewDiffusionParams(
    widths=(16, 32), text_width=32, text_layers=1, batch=4,
    loop=LoopParams(steps=120, learning_rate=3e-3, warmup_steps=5, save_every=0),
)  # fmt: skip
RECORDS = [
    PictureRecord("a", ("a red mug", "red mug"), {"view": "front"}),
    PictureRecord("b", ("a blue car", "blue car"), {"view": "back"}),
]


def training(params: ViewDiffusionParams = TINY) -> ViewDiffusionTraining:
    torch.manual_seed(0)
    latents = torch.stack([torch.full((4, 8, 8), 1.0), torch.full((4, 8, 8), -1.0)])
    return ViewDiffusionTraining(
        latents, RECORDS, make_view_tokenizer(params), torch.eye(3, 4), params
    )


# -- data ------------------------------------------------------------------------------------


def test_a_view_is_drawn_with_its_caption_and_direction() -> None:
    params = ViewDatasetParams(10, ("mug", "car"), size_px=32)
    picture, record = draw_training_view(3, params)
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
    assert record.tags["category"] in ("mug", "car") and record.tags["view"] in record.tags["view"]
    assert record.tags["hue"] in record.captions[0] and "view" not in record.captions[0]
    again, same = draw_training_view(3, params)
    assert np.array_equal(picture, again) and record == same
    assert not np.array_equal(picture, draw_training_view(4, params)[0])


def test_views_come_from_all_sides_on_all_backgrounds() -> None:
    params = ViewDatasetParams(60, ("mushroom",), size_px=16, supersampling=1)
    drawn = [draw_training_view(i, params) for i in range(60)]
    assert {record.tags["view"] for _, record in drawn} == {"front", "side", "back"}
    corners = np.stack([picture[0, 0] for picture, _ in drawn])
    white, black = (corners == 255).all(axis=1).mean(), (corners == 0).all(axis=1).mean()
    assert 0.4 < white < 0.8 and 0.03 < black < 0.35
    assert white + black < 1


def test_drawing_can_be_resumed(tmp_path: Path) -> None:
    params = ViewDatasetParams(3, ("mug",), size_px=16)
    draw_view_dataset(tmp_path, params)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    draw_view_dataset(tmp_path, params)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_shares_of_backgrounds_must_fit() -> None:
    with pytest.raises(ValueError, match="sum to at most 1"):
        ViewDatasetParams(1, white_share=0.8, black_share=0.3)


# -- texts and timesteps ---------------------------------------------------------------------


def test_captions_name_the_view_except_for_their_share() -> None:
    tokenizer = make_view_tokenizer(TINY)
    said = tokenize(tokenizer, ["a red mug", "a red mug, front view", ""])
    assert not torch.equal(said[0], said[1])
    always = training(replace(TINY, empty_share=0.0, plain_share=0.0, canonical_share=1.0))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert torch.equal(always._caption(0, generator), said[1])
    never = training(replace(TINY, empty_share=0.0, plain_share=1.0, canonical_share=1.0))
    assert torch.equal(never._caption(0, generator), said[0])
    empty = training(replace(TINY, empty_share=1.0))
    assert torch.equal(empty._caption(0, generator), said[2])


def test_every_caption_word_is_known() -> None:
    from lift3d.core.datasets.procedural_objects import make_random_object

    tokenizer = make_view_tokenizer(TINY)
    for seed in range(30):
        for caption in make_random_object(seed).captions:
            tokens = tokenize(tokenizer, [f"{caption}, side view"])[0]
            assert tokenizer.unk_token_id not in tokens.tolist(), caption
            assert int(tokens[-1]) == tokenizer.pad_token_id, f"{caption} is cut off"


def test_more_timesteps_are_near() -> None:
    params = ViewDiffusionParams(batch=20_000, near_share=0.5, near_limit=600)
    drawn = draw_timesteps(params, torch.Generator().manual_seed(0))
    assert 0 <= int(drawn.min()) and int(drawn.max()) <= 999
    # half of them below 600 by choice, and 60 % of the other half by chance
    assert float((drawn < 600).float().mean()) == pytest.approx(0.5 + 0.5 * 0.6, abs=0.01)


# -- training --------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_a_perfect_network_gives_the_clean_latents_back_and_has_no_loss(prediction) -> None:
    """The network is replaced by one that knows the clean latents of every text."""
    params = replace(TINY, prediction=prediction, empty_share=0.0, plain_share=1.0)
    model, tokenizer = training(params), make_view_tokenizer(params)
    red = tokenize(tokenizer, ["red"])[0, 0]

    def predict(noised, timesteps, tokens):
        is_red = (tokens == red).any(dim=1).float().reshape(-1, 1, 1, 1)
        clean = 2 * is_red - 1
        alpha = model.alphas[timesteps].reshape(-1, 1, 1, 1)
        noise = (noised - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        return velocity if prediction == "v_prediction" else noise

    model.predict = predict
    assert float(model.loss(0, torch.Generator().manual_seed(0))["total"]) < 1e-8
    denoise = TrainedDenoiser(model, tokenizer, ["a red mug", "blue car"], 1.0)
    sigma = denoise.sigmas[[500, 500]]
    clean = denoise(torch.randn(2, 4, 8, 8), sigma, None)
    torch.testing.assert_close(clean[0], torch.ones(4, 8, 8), atol=1e-4, rtol=0)
    torch.testing.assert_close(clean[1], -torch.ones(4, 8, 8), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_training_learns_which_text_means_which_picture(tmp_path: Path) -> None:
    params = replace(TINY, near_share=0.0, empty_share=0.0, batch=8)
    model, tokenizer = training(params), make_view_tokenizer(params)
    TrainingLoop(model, tmp_path, params.loop).run(model.loss)
    denoise = TrainedDenoiser(model.eval(), tokenizer, ["a red mug, front view", "blue car"], 1.0)
    generator = torch.Generator().manual_seed(9)
    noise = torch.randn(1, 4, 8, 8, generator=generator).expand(2, -1, -1, -1)
    with torch.no_grad():
        red, blue = denoise(4 * noise, torch.full((2,), 4.0), None).mean(dim=(1, 2, 3)).tolist()
    assert red - blue > 0.3, "the same noise becomes what the text says"


def test_latents_and_records_must_match() -> None:
    with pytest.raises(ValueError, match="3 latents for 2 records"):
        ViewDiffusionTraining(
            torch.zeros(3, 4, 8, 8), RECORDS, make_view_tokenizer(TINY), torch.eye(3, 4), TINY
        )


def test_other_views_make_up_their_share_of_every_batch() -> None:
    params = replace(TINY, batch=400)
    latents = torch.zeros(2, 4, 8, 8)
    other = torch.ones(3, 4, 8, 8), [*RECORDS, RECORDS[0]]
    mixed = ViewDiffusionTraining(
        latents, RECORDS, make_view_tokenizer(params), torch.eye(3, 4), params,
        more=other, more_share=0.75,
    )  # fmt: skip
    chosen = mixed._choose(torch.Generator().manual_seed(0))
    assert 0.7 < (chosen >= 2).float().mean() < 0.8
    assert set(chosen.tolist()) == {0, 1, 2, 3, 4} and len(mixed.captions) == 5


def test_other_views_must_fit() -> None:
    with pytest.raises(ValueError, match="expected one record each"):
        ViewDiffusionTraining(
            torch.zeros(2, 4, 8, 8), RECORDS, make_view_tokenizer(TINY), torch.eye(3, 4), TINY,
            more=(torch.zeros(3, 4, 8, 8), RECORDS), more_share=0.5,
        )  # fmt: skip


def test_the_saved_folder_is_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    model, tokenizer = training(), make_view_tokenizer(TINY)
    sigma = torch.full((1,), 1.0)
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        before = TrainedDenoiser(model.eval(), tokenizer, ["a red mug"], 1.0)(latents, sigma, None)
    save_view_model(model, tokenizer, tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path, vae=None, torch_dtype=torch.float32
    )
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    alphas = pipeline.scheduler.alphas_cumprod
    torch.testing.assert_close(alphas_to_sigmas(alphas), alphas_to_sigmas(model.alphas), rtol=1e-4, atol=1e-5)  # fmt: skip
    model.unet, model.text_encoder = pipeline.unet, pipeline.text_encoder
    with torch.no_grad():
        after = TrainedDenoiser(model, pipeline.tokenizer, ["a red mug"], 1.0)(latents, sigma, None)
    torch.testing.assert_close(after, before, atol=2e-2, rtol=2e-2)  # half precision on disk
