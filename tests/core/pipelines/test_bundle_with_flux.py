"""Sampling and editing through real classes of diffusers, with tiny random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
import torch
from lift3d.core.bundle_image import BundleImage
from lift3d.core.diffusion.diffusers_model import DiffusersModel, load_diffusers_model
from lift3d.core.pipelines.bundle_presets import load_control_preset
from lift3d.core.pipelines.bundle_prompt import BundlePrompt, ImagePrompt
from lift3d.core.pipelines.enhance_bundle import ControlRequest, enhance_bundle
from lift3d.core.pipelines.text_to_bundle import BundleSampleParams, sample_bundle

# The tiny tokenizer holds 16 tokens, which the fixed prefix would fill.
PROMPT = BundlePrompt("a red mug", prefix="")
FEW = BundleSampleParams(steps=2, clean=False, tile_px=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flux")
    tiny_models.make_tiny_flux_folder(root / "embedded")
    tiny_models.make_tiny_flux_folder(root / "published", published=True)
    tiny_models.make_tiny_flux_control(root / "union", num_modes=7)
    tiny_models.make_tiny_flux_control(root / "tile")
    return root


@pytest.fixture(scope="module")
def embedded(folder: Path) -> DiffusersModel:
    return load_diffusers_model(folder / "embedded", device="cpu")


@pytest.fixture(scope="module")
def published(folder: Path) -> DiffusersModel:
    return load_diffusers_model(folder / "published", device="cpu")


def reference(seed: int = 0) -> BundleImage:
    generator = torch.Generator().manual_seed(seed)
    return BundleImage(*torch.rand(2, 4, 64, 64, 3, generator=generator).unbind(0))


def test_the_layout_of_the_embedded_models_is_sampled_with_the_empty_text(embedded):
    first = sample_bundle(embedded, PROMPT, FEW)
    again = sample_bundle(embedded, PROMPT, FEW)
    assert first.images().shape == (1, 128, 256, 3)
    assert torch.equal(first.latents, again.latents)
    assert embedded.defaults.guidance_kind == "classifier_free"
    other = sample_bundle(embedded, BundlePrompt("a blue car", prefix=""), FEW)
    assert not torch.equal(first.latents, other.latents)


def test_the_published_layout_takes_guidance_as_an_input(published):
    assert published.defaults.guidance_kind == "distilled"
    weak, strong = (
        sample_bundle(published, PROMPT, BundleSampleParams(2 * 32, 2, guidance=g)).latents
        for g in (1.0, 7.0)
    )
    assert not torch.allclose(weak, strong)


def test_the_tile_preset_of_a_union_network_steers_the_result(folder, published):
    union = published.load_control(folder / "union")
    request = ControlRequest.from_preset(union, load_control_preset("image"))
    free = enhance_bundle(published, reference(), PROMPT, FEW)
    held = enhance_bundle(published, reference(), PROMPT, FEW, controls=[request])
    assert not torch.allclose(free.latents, held.latents)
    off = ControlRequest(union, "tile", scale=0.0)
    without = enhance_bundle(published, reference(), PROMPT, FEW, controls=[off])
    torch.testing.assert_close(without.latents, free.latents, atol=1e-5, rtol=0)


def test_single_purpose_networks_work_with_guidance_by_the_empty_text(folder, embedded):
    tile = embedded.load_control(folder / "tile")
    made = enhance_bundle(embedded, reference(), PROMPT, FEW, controls=[ControlRequest(tile)])
    assert not torch.allclose(
        made.latents, enhance_bundle(embedded, reference(), PROMPT, FEW).latents
    )


def test_a_masked_edit_keeps_the_other_pixels_bit_by_bit(embedded):
    masks = torch.zeros(4, 64, 64)
    masks[0, 20:40, 20:40] = 1.0
    made = enhance_bundle(embedded, reference(), PROMPT, FEW, mask=masks).bundles[0]
    for before, after in (
        (reference().rgb_views, made.rgb_views),
        (reference().normal_views, made.normal_views),
    ):
        assert torch.equal(before[1:], after[1:])
        assert torch.equal(before[0, :16], after[0, :16])
        assert not torch.equal(before[0, 20:40], after[0, 20:40])


def test_models_without_an_encoder_for_pictures_say_so(embedded):
    prompt = BundlePrompt("a mug", image=ImagePrompt(torch.rand(1, 32, 32, 3)))
    with pytest.raises(ValueError, match="Redux"):
        sample_bundle(embedded, prompt, FEW)


def test_a_control_of_another_architecture_is_refused(tmp_path, embedded):
    tiny_models.make_tiny_sd_folder(tmp_path / "sd")
    tiny_models.make_tiny_sd_control(tmp_path / "sd_control")
    other = load_diffusers_model(tmp_path / "sd", device="cpu")
    network = other.load_control(tmp_path / "sd_control")
    with pytest.raises(ValueError, match="made for Stable Diffusion models"):
        enhance_bundle(embedded, reference(), PROMPT, FEW, controls=[ControlRequest(network)])
