"""LoRA files of every dialect, against weights changed by hand and against diffusers' own loaders."""

from __future__ import annotations

import copy
import gc
import logging
from pathlib import Path

import pytest
import torch
from lift3d.core.diffusion.diffusers_model import DiffusersModel, load_diffusers_model
from lift3d.core.diffusion.lora_files import parse_lora, read_lora
from lift3d.core.diffusion.lora_targets import guess_architecture
from safetensors.torch import save_file
from torch import Tensor

PROMPT = "a red mug"
SIZE = 32  # of the tiny Flux: 2 heads x 16
RANK = 3


@pytest.fixture
def flux(tiny_folders: dict[str, Path]) -> DiffusersModel:
    return load_diffusers_model(tiny_folders["flux_published"], device="cpu")


@pytest.fixture
def sd15(tiny_folders: dict[str, Path]) -> DiffusersModel:
    return load_diffusers_model(tiny_folders["sd15"], device="cpu")


def pair(outputs: int, inputs: int, seed: int, rank: int = RANK) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rank, inputs, generator=generator) * 0.3,
        torch.randn(outputs, rank, generator=generator) * 0.3,
    )


def denoised(model: DiffusersModel) -> Tensor:
    channels = model.latent_format.channels
    latents = torch.randn(1, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    return model.denoise(latents, torch.tensor([0.7]), model.encode_text([PROMPT]))


def with_weights(model: DiffusersModel, folder: str, changes: dict[str, Tensor]) -> DiffusersModel:
    """The model with changes added to weights of one network: what a LoRA must amount to."""
    assert not model.parts.banks, "a copy would carry the LoRAs along"
    parts = copy.copy(model.parts)
    changed = copy.deepcopy(parts.networks()[folder])
    for name, delta in changes.items():
        weight = changed.get_submodule(name).weight
        weight.data += delta.reshape(weight.shape)
    if folder == parts.backbone.folder:
        object.__setattr__(parts, "backbone", copy.copy(parts.backbone))
        object.__setattr__(parts.backbone, "network", changed)
    else:
        object.__setattr__(parts, "text", copy.copy(parts.text))
        object.__setattr__(parts.text, "clip", changed)
    object.__setattr__(parts, "banks", {})
    return DiffusersModel(parts)


def save(state: dict[str, Tensor], path: Path) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


# -- dialects of Flux ------------------------------------------------------------------------


def peft_state() -> dict[str, Tensor]:
    state = {}
    for i, (name, outputs, inputs) in enumerate(
        [
            ("transformer_blocks.0.attn.to_q", SIZE, SIZE),
            ("transformer_blocks.0.ff.net.2", SIZE, 4 * SIZE),
            ("single_transformer_blocks.0.proj_out", SIZE, 5 * SIZE),
            ("proj_out", 64, SIZE),
        ]
    ):
        # Another rank for each: names that end alike must not be mixed up.
        down, up = pair(outputs, inputs, i, rank=i + 1)
        state |= {
            f"transformer.{name}.lora_A.weight": down,
            f"transformer.{name}.lora_B.weight": up,
        }
    return state


def kohya_state(alpha: float = 1.5) -> dict[str, Tensor]:
    state = {}
    for i, (name, outputs, inputs) in enumerate(
        [
            ("double_blocks_0_img_attn_qkv", 3 * SIZE, SIZE),
            ("double_blocks_0_txt_attn_qkv", 3 * SIZE, SIZE),
            ("double_blocks_0_txt_attn_proj", SIZE, SIZE),
            ("double_blocks_0_img_mlp_0", 4 * SIZE, SIZE),
            ("double_blocks_0_txt_mod_lin", 6 * SIZE, SIZE),
            ("single_blocks_0_linear1", 7 * SIZE, SIZE),
            ("single_blocks_0_linear2", SIZE, 5 * SIZE),
        ]
    ):
        down, up = pair(outputs, inputs, i)
        key = f"lora_unet_{name}"
        state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        state[f"{key}.alpha"] = torch.tensor(alpha)
    return state


def xlabs_state() -> dict[str, Tensor]:
    state = {}
    for i, (name, outputs, inputs) in enumerate(
        [
            ("double_blocks.0.processor.qkv_lora1", 3 * SIZE, SIZE),
            ("double_blocks.0.processor.qkv_lora2", 3 * SIZE, SIZE),
            ("double_blocks.0.processor.proj_lora1", SIZE, SIZE),
            ("double_blocks.0.processor.proj_lora2", SIZE, SIZE),
            ("single_blocks.0.processor.qkv_lora", 3 * SIZE, SIZE),
            ("single_blocks.0.processor.proj_lora", SIZE, 5 * SIZE),
        ]
    ):
        down, up = pair(outputs, inputs, i)
        state |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
    return state


def kohya_state_for_diffusers() -> dict[str, Tensor]:
    # Its conversion takes linear1 apart at the published sizes only; see the test by hand below.
    return {key: value for key, value in kohya_state().items() if "linear1" not in key}


@pytest.mark.parametrize("state", [peft_state(), kohya_state_for_diffusers(), xlabs_state()])
def test_flux_dialects_act_as_in_diffusers(state, flux, tiny_folders, tmp_path) -> None:
    from diffusers import FluxPipeline

    path = save(state, tmp_path / "lora.safetensors")
    ours = denoised(flux.with_lora(path, 0.8))
    other = load_diffusers_model(tiny_folders["flux_published"], device="cpu")
    pipeline = FluxPipeline.from_pretrained(
        tiny_folders["flux_published"], transformer=other.parts.backbone.network
    )
    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors", adapter_name="theirs")
    pipeline.set_adapters(["theirs"], [0.8])
    assert (ours - denoised(flux)).abs().max() > 1e-2
    assert torch.allclose(ours, denoised(other), atol=1e-5)


def test_kohya_is_scaled_by_alpha_over_rank(flux, tmp_path) -> None:
    """W + strength * alpha / rank * up @ down, for a fused layer by rows."""
    state = kohya_state(alpha=1.5)
    key = "lora_unet_single_blocks_0_linear1"
    only = {name: value for name, value in state.items() if name.startswith(key)}
    down, up = only[f"{key}.lora_down.weight"], only[f"{key}.lora_up.weight"]
    change = 0.7 * 1.5 / RANK * (up @ down)
    block = "single_transformer_blocks.0"
    names = [f"{block}.attn.to_q", f"{block}.attn.to_k", f"{block}.attn.to_v", f"{block}.proj_mlp"]
    rows = change.split([SIZE, SIZE, SIZE, 4 * SIZE])
    expected = denoised(with_weights(flux, "transformer", dict(zip(names, rows, strict=True))))
    ours = denoised(flux.with_lora(save(only, tmp_path / "k.safetensors"), 0.7))
    assert torch.allclose(ours, expected, atol=1e-5)
    assert not torch.allclose(ours, denoised(flux), atol=1e-2)


def test_peft_alpha_is_used_where_it_is_stored(flux, tmp_path) -> None:
    down, up = pair(SIZE, SIZE, 0)
    name = "transformer_blocks.0.attn.to_q"
    state = {
        f"transformer.{name}.lora_A.weight": down,
        f"transformer.{name}.lora_B.weight": up,
        f"transformer.{name}.alpha": torch.tensor(6.0),
    }
    expected = denoised(with_weights(flux, "transformer", {name: 6.0 / RANK * (up @ down)}))
    ours = denoised(flux.with_lora(save(state, tmp_path / "p.safetensors")))
    assert torch.allclose(ours, expected, atol=1e-5)


def test_the_last_modulation_has_its_halves_in_the_other_order(flux, tmp_path) -> None:
    down, up = pair(2 * SIZE, SIZE, 0)
    key = "diffusion_model.final_layer.adaLN_modulation.1"
    state = {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
    shift, scale = (up @ down).chunk(2)
    expected = with_weights(flux, "transformer", {"norm_out.linear": torch.cat([scale, shift])})
    ours = denoised(flux.with_lora(save(state, tmp_path / "f.safetensors")))
    assert torch.allclose(ours, denoised(expected), atol=1e-5)


# -- Stable Diffusion ------------------------------------------------------------------------


def sd_state(prefix: str = "lora_unet_") -> dict[str, Tensor]:
    layers = {
        f"{prefix}mid_block_attentions_0_transformer_blocks_0_attn2_to_k": (32, 32),
        f"{prefix}down_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj": (256, 32),
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (32, 32),
        "lora_te_text_model_encoder_layers_1_mlp_fc1": (64, 32),
    }
    state = {}
    for i, (key, (outputs, inputs)) in enumerate(layers.items()):
        down, up = pair(outputs, inputs, i)
        state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        state[f"{key}.alpha"] = torch.tensor(2.0)
    key = f"{prefix}mid_block_attentions_0_proj_in"  # a 1x1 convolution
    down, up = pair(32, 32, 9)
    state |= {
        f"{key}.lora_down.weight": down[..., None, None],
        f"{key}.lora_up.weight": up[..., None, None],
        f"{key}.alpha": torch.tensor(3.0),
    }
    return state


def test_unet_loras_act_as_in_diffusers(sd15, tiny_folders, tmp_path) -> None:
    from diffusers import StableDiffusionPipeline

    state = {key: value for key, value in sd_state().items() if "_te_" not in key}
    ours = sd15.with_lora(save(state, tmp_path / "lora.safetensors"), 0.6)
    other = load_diffusers_model(tiny_folders["sd15"], device="cpu")
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_folders["sd15"], unet=other.parts.backbone.network
    )
    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors", adapter_name="theirs")
    pipeline.set_adapters(["theirs"], [0.6])
    assert (denoised(ours) - denoised(sd15)).abs().max() > 1e-2
    assert torch.allclose(denoised(ours), denoised(other), atol=1e-5)


def test_text_encoder_loras_change_its_weights(sd15, tmp_path) -> None:
    """Diffusers 0.42 misses these keys with transformers 5, so the oracle is by hand."""
    state = sd_state()
    changes = {}
    for layer, short in (("0_self_attn_q_proj", "0.self_attn.q_proj"), ("1_mlp_fc1", "1.mlp.fc1")):
        key = f"lora_te_text_model_encoder_layers_{layer}"
        change = state[f"{key}.lora_up.weight"] @ state[f"{key}.lora_down.weight"]
        name = next(
            name
            for name, _ in sd15.parts.networks()["text_encoder"].named_modules()
            if name.endswith(f"layers.{short}")
        )
        changes[name] = 0.6 * 2.0 / RANK * change
    expected = with_weights(sd15, "text_encoder", changes).encode_text([PROMPT])
    ours = sd15.with_lora(save(state, tmp_path / "lora.safetensors"), 0.6).encode_text([PROMPT])
    assert torch.allclose(ours.tokens, expected.tokens, atol=1e-5)
    assert not torch.allclose(ours.tokens, sd15.encode_text([PROMPT]).tokens, atol=1e-2)


# -- strengths, several files, the original --------------------------------------------------


def test_the_original_is_unchanged_bit_for_bit(flux, tmp_path) -> None:
    before, text = denoised(flux), flux.encode_text([PROMPT])
    strong = flux.with_lora(save(kohya_state(), tmp_path / "a.safetensors"))
    during = denoised(strong)
    assert torch.equal(denoised(flux), before)
    assert torch.equal(denoised(strong), during)
    assert torch.equal(flux.encode_text([PROMPT]).tokens, text.tokens)
    assert torch.equal(denoised(strong.with_lora(tmp_path / "a.safetensors", -1.0)), before) or (
        torch.allclose(denoised(strong.with_lora(tmp_path / "a.safetensors", -1.0)), before)
    )


def test_files_add_up_and_strength_is_linear(flux, tmp_path) -> None:
    first = save(peft_state(), tmp_path / "first.safetensors")
    second = save(kohya_state(), tmp_path / "second.safetensors")
    both = denoised(flux.with_lora(first, 0.5).with_lora(second, 0.25))
    swapped = denoised(flux.with_lora(second, 0.25).with_lora(first, 0.5))
    twice = denoised(flux.with_lora(first, 0.2).with_lora(first, 0.3).with_lora(second, 0.25))
    assert torch.allclose(both, swapped, atol=1e-5) and torch.allclose(both, twice, atol=1e-5)
    assert torch.equal(denoised(flux.with_lora(first, 0.0)), denoised(flux))


def test_forgotten_files_leave_the_network(flux, tmp_path) -> None:
    def names() -> set[str]:
        return {
            key
            for module in flux.parts.backbone.network.modules()
            if hasattr(module, "lora_A")
            for key in module.lora_A
        }

    first = flux.with_lora(save(peft_state(), tmp_path / "first.safetensors"))
    denoised(first)
    assert len(names()) == 1
    del first
    gc.collect()
    second = flux.with_lora(save(kohya_state(), tmp_path / "second.safetensors"))
    assert names() == {second.loras[0][1].adapter.name}
    denoised(second)


def test_loras_work_on_models_of_inference_mode(tiny_folders, tmp_path) -> None:
    path = save(peft_state(), tmp_path / "a.safetensors")
    with torch.inference_mode():
        model = load_diffusers_model(tiny_folders["flux_published"], device="cpu").with_lora(path)
    images = torch.rand(1, 16, 16, 3, requires_grad=True)
    model.encode_image(images).sum().backward()
    assert images.grad.abs().sum() > 0
    assert not any(p.is_inference() for p in model.parts.backbone.network.parameters())
    denoised(model)


# -- bad input -------------------------------------------------------------------------------


def test_a_lora_for_another_architecture_is_refused(flux, sd15, tmp_path) -> None:
    for_flux = save(kohya_state(), tmp_path / "flux.safetensors")
    with pytest.raises(ValueError, match="None of the layers.*looks made for Flux"):
        sd15.with_lora(for_flux)
    for_sd = save(sd_state(), tmp_path / "sd.safetensors")
    with pytest.raises(ValueError, match="fits this Flux model; it looks made for Stable Diff"):
        flux.with_lora(for_sd)


def test_a_lora_for_another_size_is_refused_with_the_shapes(flux, tmp_path) -> None:
    down, up = pair(3 * 48, 48, 0)
    key = "lora_unet_double_blocks_0_img_attn_qkv"
    path = save(
        {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, tmp_path / "w.safetensors"
    )
    with pytest.raises(ValueError, match=r"\[144, 48\] for \[96, 32\]"):
        flux.with_lora(path)


def test_layers_that_fit_nowhere_are_named(flux, tmp_path, caplog) -> None:
    down, up = pair(SIZE, SIZE, 0)
    state = {
        "transformer.transformer_blocks.7.attn.to_q.lora_A.weight": down,
        "transformer.transformer_blocks.7.attn.to_q.lora_B.weight": up,
        "transformer.half.lora_A.weight": torch.ones(1, 1),
        "lora_te2_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight": down.clone(),
        "lora_te2_encoder_block_0_layer_0_SelfAttention_q.lora_up.weight": up.clone(),
    }
    path = save({**peft_state(), **state}, tmp_path / "more.safetensors")
    with caplog.at_level(logging.WARNING):
        model = flux.with_lora(path)
    assert "transformer_blocks.7.attn.to_q" in caplog.text and "transformer.half" in caplog.text
    assert {folder for folder, _ in model.loras} == {"transformer", "text_encoder_2"}


def test_other_kinds_and_damaged_files_are_refused(tmp_path) -> None:
    down, up = pair(4, 4, 0)
    with pytest.raises(ValueError, match="dora_scale"):
        parse_lora({"a.lora_A.weight": down, "a.lora_B.weight": up, "a.dora_scale": up})
    with pytest.raises(ValueError, match="lokr_w1"):
        parse_lora({"a.lokr_w1": down})
    with pytest.raises(ValueError, match="holds no LoRA.*first keys: conv.weight"):
        parse_lora({"conv.weight": down})
    with pytest.raises(ValueError, match="damaged LoRA"):
        parse_lora({"a.lora_A.weight": down, "a.lora_B.weight": up.T})
    with pytest.raises(ValueError, match="NaN or infinite"):
        parse_lora({"a.lora_A.weight": down * torch.nan, "a.lora_B.weight": up})
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_lora(tmp_path / "none.safetensors")
    path = save({"a.lora_A.weight": down, "a.lora_B.weight": up}, tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="truncated"):
        read_lora(path)


def test_architectures_are_guessed_from_the_keys() -> None:
    def guess(key: str, inputs: int = 8) -> str:
        down, up = pair(8, inputs, 0)
        return guess_architecture(
            parse_lora({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up})
        )

    attention = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    assert guess(attention, 768) == "Stable Diffusion 1.5"
    assert guess(attention, 2048) == "SDXL"
    assert guess("lora_unet_double_blocks_3_img_attn_qkv") == "Flux"
    assert guess("blocks.0.cross_attn.q") == "an unknown kind of model"
