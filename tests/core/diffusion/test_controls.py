"""ControlNets: residuals as in diffusers' pipelines, true mode indices, several at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lift3d.core.diffusion.control_files import flux_control_config, load_control_network
from lift3d.core.diffusion.controls import UNION_MODES, ControlNetwork, full_residuals
from lift3d.core.diffusion.diffusers_model import DiffusersModel, load_diffusers_model
from lift3d.core.diffusion.guidance import GuidedPrompt, guided_denoise
from lift3d.core.diffusion.model import Control
from lift3d.core.diffusion.sampling import sample_latents
from lift3d.core.diffusion.schedules import signal_scale
from torch import Tensor

PROMPT = "a red mug"
HEIGHT, WIDTH = 64, 128


@pytest.fixture(scope="module")
def control_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import tiny_models

    root = tmp_path_factory.mktemp("controls")
    return {
        "plain": tiny_models.make_tiny_flux_control(root / "plain", seed=1),
        "union": tiny_models.make_tiny_flux_control(root / "union", seed=2, num_modes=7),
        "sd": tiny_models.make_tiny_sd_control(root / "sd", seed=3),
    }


@pytest.fixture(scope="module")
def flux(tiny_folders: dict[str, Path]) -> DiffusersModel:
    return load_diffusers_model(tiny_folders["flux_published"], device="cpu")


@pytest.fixture(scope="module")
def sd15(tiny_folders: dict[str, Path]) -> DiffusersModel:
    return load_diffusers_model(tiny_folders["sd15"], device="cpu")


@pytest.fixture
def no_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers draws a sample of the encoded condition picture; we take the mode."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


def noise(model: DiffusersModel, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    channels = model.latent_format.channels
    return torch.randn(batch, channels, HEIGHT // 8, WIDTH // 8, generator=generator)


def flux_pipeline(folder: Path, networks):
    from diffusers import FluxControlNetPipeline, FluxPipeline

    parts = FluxPipeline.from_pretrained(folder).components
    pipeline = FluxControlNetPipeline(controlnet=networks, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(("name", "mode"), [("plain", None), ("union", 1), ("union", 3)])
def test_a_flux_run_with_a_control_gives_the_latents_of_the_pipeline(
    name, mode, flux, tiny_folders, control_folders, no_sampling
) -> None:
    """The control acts in the first half only, so that the gate is compared too."""
    network = flux.load_control(control_folders[name])
    pipeline = flux_pipeline(tiny_folders["flux_published"], network.network)
    start, image = noise(flux), picture()
    expected = pipeline(
        prompt=PROMPT, prompt_2=PROMPT, height=HEIGHT, width=WIDTH, num_inference_steps=4,
        guidance_scale=2.5, latents=pipeline._pack_latents(start, 1, 16, 8, 16),
        control_image=image.movedim(-1, 1) * 2 - 1, control_mode=mode,
        controlnet_conditioning_scale=0.7, control_guidance_end=0.5, output_type="latent",
    ).images  # fmt: skip
    control = Control(network, image, scale=0.7, end=0.5, mode=mode)
    plain = replace(flux.encode_text([PROMPT]), guidance=2.5)
    conditioning = replace(plain, controls=(control,))
    sigmas = pipeline.scheduler.sigmas
    ours = sample_latents(flux.denoise, start, sigmas, conditioning, method="euler")
    without = sample_latents(flux.denoise, start, sigmas, plain, method="euler")
    assert torch.allclose(pipeline._pack_latents(ours, 1, 16, 8, 16), expected, atol=1e-4)
    assert (ours - without).abs().max() > 1e-2


def test_several_controls_add_up_as_in_the_pipeline(
    flux, tiny_folders, control_folders, no_sampling
) -> None:
    from diffusers import FluxMultiControlNetModel

    network = flux.load_control(control_folders["union"])
    pipeline = flux_pipeline(
        tiny_folders["flux_published"], FluxMultiControlNetModel([network.network])
    )
    start, images = noise(flux), [picture(0), picture(1)]
    expected = pipeline(
        prompt=PROMPT, prompt_2=PROMPT, height=HEIGHT, width=WIDTH, num_inference_steps=2,
        latents=pipeline._pack_latents(start, 1, 16, 8, 16),
        control_image=[image.movedim(-1, 1) * 2 - 1 for image in images], control_mode=[1, 2],
        controlnet_conditioning_scale=[0.7, 0.3], output_type="latent", guidance_scale=3.5,
        control_guidance_start=[0.0, 0.0], control_guidance_end=[1.0, 1.0],
    ).images  # fmt: skip
    controls = (
        Control(network, images[0], scale=0.7, mode=1),
        Control(network, images[1], scale=0.3, mode=2),
    )
    conditioning = replace(flux.encode_text([PROMPT]), guidance=3.5, controls=controls)
    ours = sample_latents(
        flux.denoise, start, pipeline.scheduler.sigmas, conditioning, method="euler"
    )
    assert torch.allclose(pipeline._pack_latents(ours, 1, 16, 8, 16), expected, atol=1e-4)


def test_a_stable_diffusion_run_with_a_control_gives_the_latents_of_the_pipeline(
    sd15, tiny_folders, control_folders
) -> None:
    from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline

    network = sd15.load_control(control_folders["sd"])
    parts = StableDiffusionPipeline.from_pretrained(tiny_folders["sd15"]).components
    pipeline = StableDiffusionControlNetPipeline(
        controlnet=network.network, requires_safety_checker=False, **parts
    )
    pipeline.set_progress_bar_config(disable=True)
    start, image = noise(sd15), picture()
    expected = pipeline(
        prompt=PROMPT, negative_prompt="", image=image.movedim(-1, 1), height=HEIGHT, width=WIDTH,
        num_inference_steps=3, guidance_scale=4.0, latents=start,
        controlnet_conditioning_scale=0.6, output_type="latent",
    ).images  # fmt: skip
    table = sd15.parts.backbone.sigmas
    sigmas = torch.cat([table[pipeline.scheduler.timesteps], table[:1]])
    control = Control(network, image, scale=0.6)

    def denoise(latents: Tensor, sigma: Tensor, prompt: GuidedPrompt) -> Tensor:
        return guided_denoise(sd15.denoise, latents, sigma, prompt)

    positive, negative = (
        replace(sd15.encode_text([text]), controls=(control,)) for text in (PROMPT, "")
    )
    begin = start / signal_scale(sigmas[:1], "variance_preserving").float()
    ours = sample_latents(
        denoise, begin, sigmas, GuidedPrompt(positive, negative, scale=4.0), method="euler"
    )
    ours = ours * signal_scale(sigmas[-1:], "variance_preserving").float()
    assert torch.allclose(ours, expected, atol=1e-4)


def test_residuals_are_stretched_or_cycled_over_the_blocks() -> None:
    samples = [torch.tensor(0.0), torch.tensor(1.0)]
    stretched = full_residuals(samples, 5, cycled=False)
    cycled = full_residuals(samples, 5, cycled=True)
    assert stretched is not None and [int(v) for v in stretched] == [0, 0, 0, 1, 1]
    assert cycled is not None and [int(v) for v in cycled] == [0, 1, 0, 1, 0]
    assert full_residuals(None, 5, cycled=False) is None


def test_the_true_index_of_tile_is_one() -> None:
    assert UNION_MODES == {
        "canny": 0, "tile": 1, "depth": 2, "blur": 3, "pose": 4, "gray": 5, "low quality": 6,
    }  # fmt: skip


def test_a_picture_is_encoded_once_and_fitted_to_the_size(
    flux, control_folders, monkeypatch
) -> None:
    calls = []
    encode = flux.parts.codec.vae.encode
    monkeypatch.setattr(
        flux.parts.codec.vae, "encode", lambda x, **kw: (calls.append(tuple(x.shape)), encode(x))[1]
    )
    control = Control(flux.load_control(control_folders["plain"]), picture(5, 40, 50))
    conditioning = replace(flux.encode_text([PROMPT]), controls=(control,))
    for _ in range(3):
        flux.denoise(noise(flux, batch=2), torch.tensor([0.5, 0.5]), conditioning)
    assert calls == [(1, 3, HEIGHT, WIDTH)]


def test_a_single_file_is_read_without_its_configuration(tmp_path) -> None:
    import tiny_models
    from diffusers import FluxControlNetModel

    with tiny_models.seeded(0):
        network = FluxControlNetModel(
            num_layers=2, num_single_layers=1, num_attention_heads=1, joint_attention_dim=32,
            pooled_projection_dim=24, guidance_embeds=True, num_mode=7,
        )  # fmt: skip
        tiny_models.fill_zero_layers(network)
    network.save_pretrained(tmp_path / "folder")
    file = tmp_path / "folder" / "diffusion_pytorch_model.safetensors"
    config = flux_control_config(network.state_dict())
    assert all(
        network.config[key] == value for key, value in config.items() if key != "axes_dims_rope"
    )
    alone = load_control_network(file, torch.float32)
    assert alone.num_modes == 7 and alone.architecture == "Flux"
    for key, value in alone.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[key])


# -- bad input -------------------------------------------------------------------------------


def test_a_mode_that_the_network_lacks_is_refused_at_once(flux, control_folders) -> None:
    union = flux.load_control(control_folders["union"])
    with pytest.raises(ValueError, match="modes 0..6 .*tile 1.*mode 7 was asked for"):
        Control(union, picture(), mode=7)
    with pytest.raises(ValueError, match="mode None was asked for"):
        Control(union, picture())
    plain = flux.load_control(control_folders["plain"])
    with pytest.raises(ValueError, match=r"has no modes, but mode 1 \(tile\)"):
        Control(plain, picture(), mode=1)


def test_a_control_for_another_architecture_is_refused(flux, sd15, control_folders) -> None:
    with pytest.raises(ValueError, match="made for Stable Diffusion models, but .* Flux model"):
        flux.load_control(control_folders["sd"])
    control = Control(flux.load_control(control_folders["plain"]), picture())
    conditioning = replace(sd15.encode_text([PROMPT]), controls=(control,))
    with pytest.raises(ValueError, match="made for Flux models, but this is a Stable Diffusion"):
        sd15.denoise(noise(sd15), torch.tensor([0.5]), conditioning)
    foreign = replace(conditioning, controls=(Control(object(), picture()),))
    with pytest.raises(ValueError, match="holds a object; load it with the loader"):
        sd15.denoise(noise(sd15), torch.tensor([0.5]), foreign)


def test_a_control_for_another_size_is_refused(tiny_folders, control_folders) -> None:
    sdxl = load_diffusers_model(tiny_folders["sdxl"], device="cpu")
    with pytest.raises(ValueError, match="cross_attention_dim is 32, the model's 64"):
        sdxl.load_control(control_folders["sd"])


def test_folders_without_a_control_are_refused(
    flux, tiny_folders, control_folders, tmp_path
) -> None:
    import shutil

    with pytest.raises(FileNotFoundError, match="is no ControlNet"):
        flux.load_control(tmp_path)
    with pytest.raises(ValueError, match="AutoencoderKL, which is no ControlNet"):
        flux.load_control(tiny_folders["flux"] / "vae")
    folder = shutil.copytree(control_folders["plain"], tmp_path / "cn")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="cn/diffusion_pytorch_model.safetensors missing"):
        flux.load_control(folder)
    with pytest.raises(ValueError, match="no ControlNet known here"):
        flux.load_control(tiny_folders["flux"] / "vae" / "diffusion_pytorch_model.safetensors")


def test_pictures_must_fit_the_batch(flux, control_folders) -> None:
    network = flux.load_control(control_folders["plain"])
    images = torch.cat([picture(0), picture(1)])
    conditioning = replace(flux.encode_text([PROMPT]), controls=(Control(network, images),))
    flux.denoise(noise(flux, batch=4), torch.full((4,), 0.5), conditioning)
    with pytest.raises(ValueError, match="2 pictures for a batch of 3"):
        flux.denoise(noise(flux, batch=3), torch.full((3,), 0.5), conditioning)


def test_handles_know_their_modes() -> None:
    handle = ControlNetwork(torch.nn.Identity(), "Flux", "net", num_modes=2)
    handle.require_mode(1)
    with pytest.raises(ValueError, match=r"modes 0\.\.1 \(canny 0, tile 1\), but mode 2"):
        handle.require_mode(2)
