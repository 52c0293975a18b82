"""Image prompts (Redux): token counts, order, and what the strength acts on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lift3d.core.diffusion.diffusers_model import DiffusersModel, load_diffusers_model
from torch import Tensor

PROMPT = "a red mug"


@pytest.fixture(scope="module")
def redux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny_models

    return tiny_models.make_tiny_redux_folder(tmp_path_factory.mktemp("redux") / "redux")


@pytest.fixture(scope="module")
def flux(tiny_folders: dict[str, Path], redux_folder: Path) -> DiffusersModel:
    model = load_diffusers_model(tiny_folders["flux_published"], device="cpu")
    return model.with_redux(redux_folder)


def picture(side: int = 80) -> Tensor:
    return torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0))


def test_512_text_tokens_are_followed_by_729_of_the_picture(flux) -> None:
    text = flux.encode_text([PROMPT])
    both = flux.with_image_prompt(text, picture(), 0.5)
    assert text.tokens.shape[1] == 512 and both.tokens.shape[1] == 512 + 729
    assert torch.equal(both.tokens[:, :512], text.tokens)
    assert torch.equal(both.pooled, text.pooled)


def test_strength_multiplies_the_tokens_of_the_picture_only(flux) -> None:
    text = flux.encode_text([PROMPT])
    whole = flux.with_image_prompt(text, picture(), 1.0)
    half = flux.with_image_prompt(text, picture(), 0.5)
    assert torch.equal(half.tokens[:, :512], whole.tokens[:, :512])
    assert torch.allclose(half.tokens[:, 512:], 0.5 * whole.tokens[:, 512:], atol=1e-6)
    assert whole.tokens[:, 512:].abs().mean() > 0.01


@torch.no_grad()
def test_the_tokens_are_those_of_the_pipeline(flux, redux_folder) -> None:
    """The pipeline resizes 8-bit pictures; at the encoder's own size nothing is resized."""
    from diffusers import ReduxImageEncoder
    from transformers import SiglipVisionModel

    vision = SiglipVisionModel.from_pretrained(redux_folder / "image_encoder")
    embedder = ReduxImageEncoder.from_pretrained(redux_folder / "image_embedder")
    image = picture(54)
    pixels = image.movedim(-1, 1) * 2 - 1
    expected = embedder(vision(pixel_values=pixels).last_hidden_state).image_embeds
    ours = flux.with_image_prompt(flux.encode_text([PROMPT]), image, 1.0)
    assert torch.allclose(ours.tokens[:, 512:], expected, atol=1e-5)


def test_the_network_sees_the_picture(flux) -> None:
    text = replace(flux.encode_text([PROMPT, ""]), guidance=1.0)
    latents, sigma = torch.randn(2, 16, 4, 4), torch.tensor([0.5, 0.5])
    plain = flux.denoise(latents, sigma, text)
    seen = flux.denoise(latents, sigma, flux.with_image_prompt(text, picture(), 1.0))
    assert seen.shape == plain.shape and (seen - plain).abs().max() > 1e-3


def test_bad_pictures_and_folders_are_refused(
    flux, tiny_folders, redux_folder, tmp_path, unchecked_shapes
) -> None:
    import shutil

    import tiny_models

    text = flux.encode_text([PROMPT])
    with pytest.raises(ValueError, match="one picture, got 2"):
        flux.with_image_prompt(text, picture().expand(2, -1, -1, -1), 1.0)
    other = tiny_models.make_tiny_redux_folder(tmp_path / "wide", width=48, side_tokens=3)
    with pytest.raises(ValueError, match="48 channels, but the model's have 32"):
        flux.with_redux(other).with_image_prompt(text, picture(), 1.0)
    with pytest.raises(ValueError, match="no image prompt encoder for Flux"):
        flux.with_redux(tiny_folders["flux"])
    folder = shutil.copytree(redux_folder, tmp_path / "cut")
    (folder / "image_encoder" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="image_encoder/model.safetensors missing"):
        flux.with_redux(folder)
