"""Stable Video Diffusion behind the protocol, against diffusers' own pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lift3d.core.diffusion.diffusers_model import DiffusersModel, load_diffusers_model
from lift3d.core.diffusion.guidance import GuidedPrompt, guided_denoise
from lift3d.core.diffusion.model import Control, DiffusionModel
from lift3d.core.diffusion.sampling import sample_latents
from torch import Tensor

FRAMES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny_models

    return tiny_models.make_tiny_svd_folder(tmp_path_factory.mktemp("svd") / "svd", frames=FRAMES)


@pytest.fixture(scope="module")
def model(folder: Path) -> DiffusersModel:
    return load_diffusers_model(folder, device="cpu")


def picture() -> Tensor:
    return torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))


def test_a_guided_run_gives_the_frames_of_the_pipeline(model, folder) -> None:
    from diffusers import StableVideoDiffusionPipeline

    pipeline = StableVideoDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(FRAMES, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = pipeline(
        picture().movedim(-1, 1), height=32, width=32, num_frames=FRAMES, num_inference_steps=4,
        min_guidance_scale=2.0, max_guidance_scale=2.0, noise_aug_strength=0.0,
        latents=noise[None], output_type="latent",
    ).frames[0]  # fmt: skip
    plain = model.encode_text([""])
    prompt = GuidedPrompt(
        model.with_image_prompt(plain, picture(), 1.0),
        model.with_image_prompt(plain, picture(), 0.0),
        scale=2.0,
    )

    def denoise(latents: Tensor, sigma: Tensor, conditioning: GuidedPrompt) -> Tensor:
        return guided_denoise(model.denoise, latents, sigma, conditioning)

    begin = noise * pipeline.scheduler.init_noise_sigma
    ours = sample_latents(denoise, begin, pipeline.scheduler.sigmas, prompt, method="euler")
    assert torch.allclose(ours, expected, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
def test_frames_are_decoded_together(model, folder) -> None:
    from diffusers import AutoencoderKLTemporalDecoder

    vae = AutoencoderKLTemporalDecoder.from_pretrained(folder / "vae")
    latents = torch.randn(FRAMES, 4, 4, 4)
    expected = vae.decode(latents / vae.config.scaling_factor, num_frames=FRAMES).sample
    expected = (expected / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    assert torch.allclose(model.decode_latents(latents), expected, atol=1e-5)


def test_it_follows_the_protocol_with_its_limits(model) -> None:
    assert isinstance(model, DiffusionModel)
    assert model.sigma_range == (0.002, 700.0)
    latents, sigma = torch.randn(FRAMES, 4, 4, 4), torch.full((FRAMES,), 2.0)
    plain = model.encode_text([""])
    with pytest.raises(ValueError, match="knows no text, but was given 'a mug'"):
        model.encode_text(["a mug"])
    with pytest.raises(ValueError, match="needs a picture"):
        model.denoise(latents, sigma, plain)
    seen = model.with_image_prompt(plain, picture(), 1.0)
    with pytest.raises(ValueError, match="4 latents is no whole number of videos of 3 frames"):
        model.denoise(torch.randn(4, 4, 4, 4), torch.full((4,), 2.0), seen)
    assert model.denoise(latents, sigma, seen).shape == latents.shape
    shorter = replace(seen, extras={**seen.extras, "frames": 1})
    assert model.denoise(latents[:1], sigma[:1], shorter).shape == (1, 4, 4, 4)
    with pytest.raises(ValueError, match="load it with the loader"):
        model.denoise(latents, sigma, replace(seen, controls=(Control(object(), picture()),)))
