"""Our denoisers against diffusers' own pipelines, on tiny random models with equal weights."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lift3d.core.diffusion.diffusers_model import DiffusersModel, load_diffusers_model
from lift3d.core.diffusion.guidance import GuidedPrompt, guided_denoise
from lift3d.core.diffusion.model import DiffusionModel, ModelDefaults
from lift3d.core.diffusion.placement import OneAtATimePlacement, SequentialPlacement
from lift3d.core.diffusion.sampling import sample_latents
from lift3d.core.diffusion.schedules import signal_scale
from torch import Tensor

FAMILIES = ("flux", "flux_published", "sd15", "sd21", "sdxl")
PROMPT = "a red mug with blue handle"
PREFIX = "a grid of view"


@pytest.fixture(scope="module")
def models(tiny_folders: dict[str, Path]) -> dict[str, DiffusersModel]:
    return {
        name: load_diffusers_model(folder, device="cpu") for name, folder in tiny_folders.items()
    }


def noise(model: DiffusersModel, batch: int = 1, height: int = 8, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, model.latent_format.channels, height, width, generator=generator)


def pipeline_of(folder: Path, **parts: object):
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# -- known answers: a whole run of the library's pipeline ------------------------------------


def test_a_flux_run_gives_the_latents_of_the_flux_pipeline(tiny_folders, models) -> None:
    model = models["flux_published"]
    pipeline = pipeline_of(tiny_folders["flux_published"])
    start = noise(model, height=8, width=16)
    packed = pipeline._pack_latents(start, 1, 16, 8, 16)
    expected = pipeline(
        prompt=PREFIX, prompt_2=PROMPT, height=64, width=128, num_inference_steps=4,
        guidance_scale=2.5, latents=packed, output_type="latent",
    ).images  # fmt: skip
    conditioning = replace(model.encode_text([PROMPT], pooled_prompts=[PREFIX]), guidance=2.5)
    ours = sample_latents(
        model.denoise, start, pipeline.scheduler.sigmas, conditioning, method="euler"
    )
    assert torch.allclose(pipeline._pack_latents(ours, 1, 16, 8, 16), expected, atol=1e-4)


def test_a_flux_run_without_clip_gives_the_latents_of_the_flux_pipeline(
    tiny_folders, models
) -> None:
    model = models["flux"]
    pipeline = pipeline_of(tiny_folders["flux"], text_encoder=None, tokenizer=None)
    ids = pipeline.tokenizer_2(
        PROMPT, padding="max_length", max_length=16, return_tensors="pt"
    ).input_ids
    tokens = pipeline.text_encoder_2(ids)[0].detach()
    start = noise(model)
    packed = pipeline._pack_latents(start, 1, 16, 8, 16)
    expected = pipeline(
        prompt_embeds=tokens, pooled_prompt_embeds=tokens.mean(dim=1), height=64, width=128,
        num_inference_steps=4, latents=packed, output_type="latent",
    ).images  # fmt: skip
    conditioning = model.encode_text([PROMPT], pooled_prompts=["never seen"])
    ours = sample_latents(
        model.denoise, start, pipeline.scheduler.sigmas, conditioning, method="euler"
    )
    assert torch.allclose(pipeline._pack_latents(ours, 1, 16, 8, 16), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_a_guided_run_gives_the_latents_of_the_stable_diffusion_pipelines(
    name: str, tiny_folders, models
) -> None:
    model, pipeline = models[name], pipeline_of(tiny_folders[name])
    start = noise(model, height=8, width=8)
    expected = pipeline(
        prompt=PROMPT, negative_prompt="", height=64, width=64, num_inference_steps=5,
        guidance_scale=7.5, latents=start, output_type="latent",
    ).images  # fmt: skip
    table = model.parts.backbone.sigmas
    steps = pipeline.scheduler.timesteps
    sigmas = torch.cat([table[steps], table[:1]])  # DDIM ends at the first training level here
    prompt = GuidedPrompt(model.encode_text([PROMPT]), model.encode_text([""]), scale=7.5)

    def denoise(latents: Tensor, sigma: Tensor, conditioning: GuidedPrompt) -> Tensor:
        return guided_denoise(model.denoise, latents, sigma, conditioning)

    begin = start / signal_scale(sigmas[:1], "variance_preserving").float()
    ours = sample_latents(denoise, begin, sigmas, prompt, method="euler")
    ours = ours * signal_scale(sigmas[-1:], "variance_preserving").float()
    assert torch.allclose(ours, expected, atol=1e-4)


@torch.no_grad()
def test_texts_are_encoded_as_by_the_pipelines(tiny_folders, models) -> None:
    for name in ("flux_published", "sd15", "sdxl"):
        model, pipeline = models[name], pipeline_of(tiny_folders[name])
        ours = model.encode_text([PROMPT, ""])
        if name == "flux_published":
            tokens, pooled, _ = pipeline.encode_prompt([PROMPT, ""], None)
        elif name == "sdxl":
            tokens, _, pooled, _ = pipeline.encode_prompt(
                [PROMPT, ""], do_classifier_free_guidance=False
            )
        else:
            tokens, _ = pipeline.encode_prompt([PROMPT, ""], "cpu", 1, False)
            pooled = None
        assert torch.allclose(ours.tokens, tokens, atol=1e-5)
        assert (pooled is None) == (ours.pooled is None)
        if pooled is not None:
            assert torch.allclose(ours.pooled, pooled, atol=1e-5)


def test_images_are_encoded_and_decoded_as_by_the_flux_pipeline(tiny_folders, models) -> None:
    model, vae = models["flux_published"], pipeline_of(tiny_folders["flux_published"]).vae
    images = torch.rand(2, 32, 64, 3)
    pixels = images.movedim(-1, 1) * 2 - 1
    encoded = vae.encode(pixels).latent_dist.mode()
    latents = model.encode_image(images)
    assert torch.allclose(latents, (encoded - 0.1159) * 0.3611, atol=1e-5)
    decoded = (vae.decode(encoded).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    assert torch.allclose(model.decode_latents(latents), decoded, atol=1e-5)


# -- the protocol ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_follows_the_protocol(name: str, models) -> None:
    model = models[name]
    assert isinstance(model, DiffusionModel)
    low, high = model.sigma_range
    assert 0 < low < high
    latents = noise(model, batch=2).double()
    sigma = torch.tensor([0.3, 0.6])
    conditioning = model.encode_text([PROMPT])
    denoised = model.denoise(latents, sigma, conditioning)
    assert denoised.dtype == torch.float64 and denoised.shape == latents.shape
    single = model.denoise(latents[1:], sigma[1:], conditioning)
    assert torch.allclose(denoised[1:], single, atol=1e-5)
    preview = model.preview_latents(latents.float())
    assert preview.shape == (64, 128, 3) and 0 <= preview.min() and preview.max() <= 1


@pytest.mark.parametrize("name", ["flux", "sd15"])
def test_encoding_is_differentiable_even_when_loaded_in_inference_mode(
    name: str, tiny_folders
) -> None:
    with torch.inference_mode():
        model = load_diffusers_model(tiny_folders[name], device="cpu")
        conditioning = model.encode_text([PROMPT])
    images = torch.rand(1, 32, 32, 3, requires_grad=True)
    weights = torch.randn(1, model.latent_format.channels, 4, 4)
    (model.encode_image(images) * weights).sum().backward()
    direction = images.grad / images.grad.norm()
    step = 1e-2
    with torch.no_grad():
        ahead = (model.encode_image(images + step * direction) * weights).sum()
        behind = (model.encode_image(images - step * direction) * weights).sum()
    numeric = (ahead - behind) / (2 * step)
    assert torch.allclose((images.grad * direction).sum(), numeric, rtol=1e-2)
    latents = noise(model, height=4, width=4).requires_grad_()
    assert not model.denoise(latents, torch.tensor([0.5]), conditioning).requires_grad


def test_half_precision_files_are_computed_in_single_precision(tmp_path: Path) -> None:
    import tiny_models

    folder = tiny_models.make_tiny_flux_folder(tmp_path / "half", dtype=torch.float16)
    model = load_diffusers_model(folder, device="cpu")
    dtypes = {p.dtype for net in model.parts.networks().values() for p in net.parameters()}
    assert dtypes == {torch.float32}
    assert model.encode_text([PROMPT]).tokens.dtype == torch.float32


def test_bfloat16_stays_near_single_precision(tiny_folders, models) -> None:
    coarse = load_diffusers_model(tiny_folders["flux"], device="cpu", dtype=torch.bfloat16)
    fine = models["flux"]
    latents, sigma = noise(fine), torch.tensor([0.5])
    ours = coarse.denoise(latents, sigma, coarse.encode_text([PROMPT]))
    exact = fine.denoise(latents, sigma, fine.encode_text([PROMPT]))
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().max() < 0.1


def test_the_autoencoder_is_never_in_half_precision(tiny_folders) -> None:
    model = load_diffusers_model(tiny_folders["sd15"], device="cpu", dtype=torch.float16)
    assert model.parts.codec.vae.dtype == torch.float32


def test_defaults_come_from_the_folder(tiny_folders, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(tiny_folders["flux"], tmp_path / "flux")
    (folder / "lift3d.json").write_text(
        '{"defaults": {"tile_px": 64, "guidance": 2.5, "guidance_kind": "classifier_free"}}'
    )
    assert load_diffusers_model(folder, device="cpu").defaults == ModelDefaults(
        64, 2.5, "classifier_free", 20
    )
    (folder / "lift3d.json").write_text('{"defaults": {"guidance_kind": "magic"}}')
    with pytest.raises(ValueError, match="guidance_kind must be one of distilled"):
        load_diffusers_model(folder, device="cpu")


def test_distilled_models_take_their_default_guidance(models) -> None:
    model = models["flux_published"]
    latents, sigma = noise(model), torch.tensor([0.5])
    plain = model.encode_text([PROMPT])
    silent = model.denoise(latents, sigma, plain)
    spoken = model.denoise(latents, sigma, replace(plain, guidance=model.defaults.guidance))
    other = model.denoise(latents, sigma, replace(plain, guidance=1.0))
    assert model.defaults.guidance_kind == "distilled"
    assert torch.equal(silent, spoken) and not torch.allclose(silent, other)


@pytest.mark.parametrize("way", [OneAtATimePlacement, SequentialPlacement])
def test_every_placement_gives_the_same_results(way, tiny_folders, models, tmp_path) -> None:
    """With the CPU as the device: hooks and moves run, and LoRAs come to offloaded networks."""
    from safetensors.torch import save_file

    name = "transformer.transformer_blocks.0.attn.to_q"
    lora = {f"{name}.lora_A.weight": torch.ones(2, 32), f"{name}.lora_B.weight": torch.ones(32, 2)}
    save_file(lora, tmp_path / "lora.safetensors")
    plain = models["flux"]
    offloaded = load_diffusers_model(tiny_folders["flux"], placement=way(torch.device("cpu")))
    latents, sigma = noise(plain), torch.tensor([0.5])
    for first, second in (
        (plain, offloaded),
        (
            plain.with_lora(tmp_path / "lora.safetensors"),
            offloaded.with_lora(tmp_path / "lora.safetensors"),
        ),
        (plain, offloaded),
    ):
        results = [
            model.denoise(latents, sigma, model.encode_text([PROMPT])) for model in (first, second)
        ]
        assert torch.allclose(*results, atol=1e-6)
    gradients = []
    for model in (plain, offloaded):
        images = torch.full((1, 32, 32, 3), 0.3, requires_grad=True)
        model.encode_image(images).square().sum().backward()
        gradients.append(images.grad)
    assert torch.allclose(*gradients, atol=1e-5)


# -- words that are lost ---------------------------------------------------------------------


def test_unknown_words_are_named(models, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        models["flux"].encode_text(["a red zebra, and a Quokka"])
    assert "zebra, Quokka" in caplog.text and "red" not in caplog.text


def test_words_beyond_the_length_are_named(models, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        models["flux"].encode_text(["a red mug " * 5 + "with green roof"])
    assert "16 tokens" in caplog.text and "green roof" in caplog.text


# -- bad input -------------------------------------------------------------------------------


def test_odd_sizes_are_refused(models) -> None:
    conditioning = models["flux"].encode_text([PROMPT])
    with pytest.raises(ValueError, match="multiple of 16 pixels"):
        models["flux"].denoise(noise(models["flux"], height=7), torch.tensor([0.5]), conditioning)
    with pytest.raises(ValueError, match="multiples of 16 pixels, got 40 x 32"):
        models["flux"].encode_image(torch.rand(1, 32, 40, 3))


def test_an_image_prompt_without_an_encoder_says_what_to_load(models) -> None:
    conditioning = models["flux"].encode_text([PROMPT])
    with pytest.raises(ValueError, match="FLUX.1-Redux-dev"):
        models["flux"].with_image_prompt(conditioning, torch.rand(1, 32, 32, 3), 1.0)


def test_missing_weights_are_all_named_before_anything_is_read(tiny_folders, tmp_path) -> None:
    import shutil

    folder = shutil.copytree(tiny_folders["flux"], tmp_path / "flux")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(folder / "tokenizer_2")
    with pytest.raises(FileNotFoundError) as error:
        load_diffusers_model(folder)
    assert "transformer/diffusion_pytorch_model.safetensors" in str(error.value)
    assert "tokenizer_2/" in str(error.value) and str(folder) in str(error.value)


def test_a_missing_model_names_the_embedded_ones() -> None:
    with pytest.raises(FileNotFoundError, match="no diffusion model at no/such.*embedded"):
        load_diffusers_model("no/such")


def test_a_truncated_file_is_reported(tiny_folders, tmp_path) -> None:
    import shutil

    folder = shutil.copytree(tiny_folders["flux"], tmp_path / "flux")
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="transformer cannot be read"):
        load_diffusers_model(folder)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def test_a_pickle_with_code_is_refused(tiny_folders, tmp_path) -> None:
    import shutil

    folder = shutil.copytree(tiny_folders["sd15"], tmp_path / "sd")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"conv_in.weight": Evil()}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="unet cannot be read"):
        load_diffusers_model(folder)


def test_weights_that_lack_keys_are_refused(tiny_folders, tmp_path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    for part, name, file in (
        ("transformer", "x_embedder.bias", "diffusion_pytorch_model"),
        ("text_encoder_2", "encoder.final_layer_norm.weight", "model"),
    ):
        folder = shutil.copytree(tiny_folders["flux"], tmp_path / part)
        path = folder / part / f"{file}.safetensors"
        state = load_file(path)
        del state[name]
        save_file(state, path, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=f"missing or of another shape .*{name}"):
            load_diffusers_model(folder)


def test_a_model_without_a_text_encoder_is_refused(tiny_folders, tmp_path) -> None:
    import json
    import shutil

    folder = shutil.copytree(tiny_folders["flux"], tmp_path / "flux")
    index = json.loads((folder / "model_index.json").read_text())
    index["text_encoder_2"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="flux lacks the part 'text_encoder_2'"):
        load_diffusers_model(folder)


def test_an_inpainting_model_is_refused(tiny_folders, tmp_path) -> None:
    import shutil

    import tiny_models

    folder = shutil.copytree(tiny_folders["sd15"], tmp_path / "sd")
    unet = tiny_models.make_tiny_unet()
    sizes = {key: value for key, value in unet.config.items() if not key.startswith("_")}
    type(unet)(**{**sizes, "in_channels": 9}).save_pretrained(folder / "unet")
    with pytest.raises(ValueError, match="takes 9 channels instead of 4: it was made for inpaint"):
        load_diffusers_model(folder)


def test_a_missing_library_is_an_error_with_its_remedy(tiny_folders, monkeypatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "diffusers" else find(name)
    )
    with pytest.raises(ImportError, match="pip install diffusers"):
        load_diffusers_model(tiny_folders["flux"])


def test_a_model_of_an_unknown_kind_is_refused(tiny_folders, tmp_path) -> None:
    import shutil

    folder = shutil.copytree(tiny_folders["flux"], tmp_path / "flux")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("FluxTransformer2DModel", "SomeModel"))
    with pytest.raises(ValueError, match="network SomeModel, which is not known"):
        load_diffusers_model(folder)
