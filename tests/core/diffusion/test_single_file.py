"""Checkpoints in one file: every weight finds its place, and what lacks is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from lift3d.core.diffusion.diffusers_model import DiffusersModel, load_diffusers_model
from lift3d.core.diffusion.lora_names import flux_names
from lift3d.core.diffusion.original_names import (
    open_clip_state,
    unet_layer_names,
    unet_state,
    vae_layer_name,
    vae_state,
)
from lift3d.core.diffusion.single_file import CONFIG_FILE, checkpoint_kind
from safetensors.torch import save_file
from torch import Tensor

PROMPT = "a red mug"


def original_flux(network) -> dict[str, Tensor]:
    """Weights of a Flux transformer as its authors store them."""
    state = network.state_dict()
    made: dict[str, Tensor] = {}
    for original, target in flux_names(1, 1).items():
        for kind in ("weight", "bias"):
            parts = [state[f"{name}.{kind}"] for name in target.names if f"{name}.{kind}" in state]
            if parts:
                value = torch.cat(parts)
                made[f"{original}.{kind}"] = (
                    torch.cat(value.chunk(2)[::-1]) if target.swapped else value
                )
    double, single = "transformer_blocks.0.attn", "single_transformer_blocks.0.attn"
    for side in ("query", "key"):
        short = side[0]
        made[f"double_blocks.0.img_attn.norm.{side}_norm.scale"] = state[
            f"{double}.norm_{short}.weight"
        ]
        made[f"double_blocks.0.txt_attn.norm.{side}_norm.scale"] = state[
            f"{double}.norm_added_{short}.weight"
        ]
        made[f"single_blocks.0.norm.{side}_norm.scale"] = state[f"{single}.norm_{short}.weight"]
    return made


def original_unet(network) -> dict[str, Tensor]:
    made = {}
    for name, value in network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        names = unet_layer_names(layer, 1)
        made[f"{names[-1] if 'up_blocks.0' in layer else names[0]}.{kind}"] = value
    return made


def original_vae(network) -> dict[str, Tensor]:
    made = {}
    for name, value in network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        made[f"{vae_layer_name(layer, 4)}.{kind}"] = value
    return made


def clip_keys(network) -> dict[str, Tensor]:
    return {
        f"text_model.{key.removeprefix('text_model.')}": value
        for key, value in network.state_dict().items()
    }


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value.clone().contiguous() for key, value in state.items()}


@pytest.fixture(scope="module")
def flux(tiny_folders: dict[str, Path]) -> DiffusersModel:
    return load_diffusers_model(tiny_folders["flux_published"], device="cpu")


def flux_checkpoint(model: DiffusersModel) -> dict[str, Tensor]:
    """A file as ComfyUI publishes Flux: everything in one."""
    text = model.parts.text.networks
    return {
        **prefixed("model.diffusion_model.", original_flux(model.parts.backbone.network)),
        **prefixed("vae.", original_vae(model.parts.codec.vae)),
        **prefixed("text_encoders.clip_l.transformer.", clip_keys(text["text_encoder"])),
        **prefixed("text_encoders.t5xxl.transformer.", text["text_encoder_2"].state_dict()),
    }


def only_configurations(folder: Path, target: Path) -> Path:
    """The folder without its weights."""
    return shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))


def denoised(model: DiffusersModel) -> Tensor:
    channels = model.latent_format.channels
    latents = torch.randn(1, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    return model.denoise(latents, torch.tensor([0.7]), model.encode_text([PROMPT]))


def require_equal(first: DiffusersModel, second: DiffusersModel) -> None:
    assert torch.allclose(denoised(first), denoised(second), atol=1e-5)
    images = torch.rand(1, 32, 32, 3)
    assert torch.equal(first.encode_image(images), second.encode_image(images))
    latents = torch.randn(1, first.latent_format.channels, 4, 4)
    assert torch.equal(first.decode_latents(latents), second.decode_latents(latents))


def test_a_flux_file_equals_its_folder(flux, tiny_folders, tmp_path) -> None:
    path = tmp_path / "flux.safetensors"
    save_file(flux_checkpoint(flux), path)
    only_configurations(tiny_folders["flux_published"], tmp_path / "flux")
    require_equal(load_diffusers_model(path, device="cpu"), flux)


def test_parts_that_a_file_lacks_come_from_the_folder_beside_it(
    flux, tiny_folders, tmp_path
) -> None:
    path = tmp_path / "alone.safetensors"
    save_file(prefixed("", original_flux(flux.parts.backbone.network)), path)
    shutil.copytree(tiny_folders["flux_published"], tmp_path / "alone")
    (tmp_path / "alone" / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    require_equal(load_diffusers_model(path, device="cpu"), flux)


def test_eight_bit_weights_are_widened(flux, tiny_folders, tmp_path) -> None:
    path = tmp_path / "flux.safetensors"
    state = flux_checkpoint(flux)
    save_file({k: v.to(torch.float8_e4m3fn) for k, v in state.items()}, path)
    only_configurations(tiny_folders["flux_published"], tmp_path / "flux")
    coarse = load_diffusers_model(path, device="cpu")
    assert coarse.parts.backbone.dtype == torch.float32
    assert (denoised(coarse) - denoised(flux)).abs().max() < 1.0


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_stable_diffusion_file_equals_its_folder(name, tiny_folders, tmp_path) -> None:
    model = load_diffusers_model(tiny_folders[name], device="cpu")
    text = model.parts.text.networks
    state = {
        **prefixed("model.diffusion_model.", original_unet(model.parts.backbone.network)),
        **prefixed("first_stage_model.", original_vae(model.parts.codec.vae)),
    }
    if name == "sd15":
        state |= prefixed("cond_stage_model.transformer.", clip_keys(text["text_encoder"]))
    else:
        state |= prefixed("conditioner.embedders.0.transformer.", clip_keys(text["text_encoder"]))
        state |= prefixed("conditioner.embedders.1.model.", open_clip_keys(text["text_encoder_2"]))
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    only_configurations(tiny_folders[name], tmp_path / "model")
    require_equal(load_diffusers_model(path, device="cpu"), model)


def open_clip_keys(network) -> dict[str, Tensor]:
    """Weights of a CLIP text encoder as OpenCLIP stores them."""
    state = {k.removeprefix("text_model."): v for k, v in network.state_dict().items()}
    made = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T,
    }
    for i in range(2):
        old, new = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            made[f"{new}.attn.in_proj_{kind}"] = torch.cat(
                [state[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            )
            made[f"{new}.attn.out_proj.{kind}"] = state[f"{old}.self_attn.out_proj.{kind}"]
            made[f"{new}.ln_1.{kind}"] = state[f"{old}.layer_norm1.{kind}"]
            made[f"{new}.ln_2.{kind}"] = state[f"{old}.layer_norm2.{kind}"]
            made[f"{new}.mlp.c_fc.{kind}"] = state[f"{old}.mlp.fc1.{kind}"]
            made[f"{new}.mlp.c_proj.{kind}"] = state[f"{old}.mlp.fc2.{kind}"]
    return made


# -- names against the library's conversion --------------------------------------------------


@pytest.mark.parametrize("sdxl", [False, True])
def test_unet_weights_are_taken_as_by_diffusers(sdxl: bool) -> None:
    import tiny_models
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    network = tiny_models.make_tiny_unet(sdxl=sdxl)
    originals = original_unet(network)
    theirs = convert_ldm_unet_checkpoint(
        prefixed("model.diffusion_model.", originals), {**network.config, "class_embed_type": None}
    )
    ours = unet_state(network, originals)
    assert set(ours) == set(theirs) == set(network.state_dict())
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_autoencoder_weights_are_taken_as_by_diffusers() -> None:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    network = AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    originals = {}
    for name, value in network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        # The original attention is a 1x1 convolution.
        is_attention = ".attentions." in name and kind == "weight" and value.ndim == 2
        originals[f"{vae_layer_name(layer, 2)}.{kind}"] = (
            value[..., None, None] if is_attention else value
        )
    theirs = convert_ldm_vae_checkpoint(prefixed("first_stage_model.", originals), network.config)
    ours = vae_state(network, originals)
    assert set(ours) == set(theirs) == set(network.state_dict())
    assert all(torch.equal(ours[key], theirs[key].reshape(ours[key].shape)) for key in ours)


def test_open_clip_weights_are_taken_as_by_diffusers() -> None:
    import tiny_models
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    tokenizer = tiny_models.make_word_tokenizer(max_length=77, start=True)
    network = tiny_models.make_tiny_clip(tokenizer, projection=True)
    originals = open_clip_keys(network)
    theirs = convert_open_clip_checkpoint(network, prefixed("x.", originals), prefix="x.")
    ours = open_clip_state(network, originals)
    assert set(ours) == set(network.state_dict())
    known = set(theirs) & set(ours)
    assert len(known) > 20
    assert all(torch.equal(ours[key], theirs[key]) for key in known)


@pytest.mark.parametrize("name", ["flux", "sd15", "sd21", "sdxl"])
def test_published_sizes_build_on_the_meta_device(name: str) -> None:
    """Parameter counts in millions, as published."""
    from accelerate import init_empty_weights
    from lift3d.core.diffusion.diffusers_files import network_class
    from lift3d.core.diffusion.single_file import _from_sizes
    from omegaconf import OmegaConf

    millions = {
        "flux": {"transformer": 11901, "vae": 84, "text_encoder": 123, "text_encoder_2": 4762},
        "sd15": {"unet": 860, "vae": 84, "text_encoder": 123},
        "sd21": {"unet": 866, "vae": 84, "text_encoder": 340},
        "sdxl": {"unet": 2567, "vae": 84, "text_encoder": 123, "text_encoder_2": 695},
    }
    content = OmegaConf.to_container(OmegaConf.load(CONFIG_FILE).models[name])
    counts = {}
    for part in millions[name]:
        with init_empty_weights():
            network = _from_sizes(network_class(content[part]["kind"]), content[part]["config"])
        if part == "text_encoder_2":
            network.tie_weights()  # undone by the block above; the reader ties them too
        counts[part] = round(sum(p.numel() for p in network.parameters()) / 1e6)
    assert counts == pytest.approx(millions[name], abs=1)


# -- bad input -------------------------------------------------------------------------------


def test_everything_that_lacks_is_named_before_anything_is_made(flux, tmp_path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(prefixed("", original_flux(flux.parts.backbone.network)), path)
    with pytest.raises(FileNotFoundError) as error:
        load_diffusers_model(path)
    text = str(error.value)
    for word in (
        "lacks vae, text_encoder, text_encoder_2, tokenizer (",
        "FLUX.1-dev",
        str(tmp_path),
    ):
        assert word in text


def test_other_files_are_refused(flux, tiny_folders, tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"something.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="no checkpoint of Flux.*something.weight"):
        load_diffusers_model(path)
    save_file({"a.scale_weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="scaled fp8.*Wrap Native Model"):
        load_diffusers_model(path)
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(ValueError, match="truncated"):
        load_diffusers_model(path)
    state = flux_checkpoint(flux)
    del state["model.diffusion_model.single_blocks.0.linear2.bias"]
    save_file(state, path)
    only_configurations(tiny_folders["flux_published"], tmp_path / "other")
    with pytest.raises(ValueError, match="missing: single_transformer_blocks.0.proj_out.bias"):
        load_diffusers_model(path)


def test_kinds_are_told_apart_by_keys() -> None:
    one = torch.ones(1)
    head = "model.diffusion_model.input_blocks.0.0.weight"
    assert checkpoint_kind({"double_blocks.0.img_attn.qkv.weight": one}) == "flux"
    assert checkpoint_kind({head: one}) == "sd15"
    assert checkpoint_kind({head: one, "cond_stage_model.model.ln_final.bias": one}) == "sd21"
    assert checkpoint_kind({head: one, "model.diffusion_model.label_emb.0.0.weight": one}) == "sdxl"
    assert checkpoint_kind({"x": one}) == ""
