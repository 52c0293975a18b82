"""Tiny random models that both diffusers and ComfyUI can load, and ComfyUI's objects of them.

The `write_*` functions make folders in diffusers layout and need diffusers; the `load_*` functions
run inside a ComfyUI process. Sizes are the smallest that ComfyUI's detection and its fixed group
norms of 32 channels allow; tokenizers are those that ComfyUI ships.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

WIDTH = 32
"""Of text tokens and pooled vectors."""

FLUX_HIDDEN = 128
CLIP_CONFIG = {
    "hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 4,
    "num_hidden_layers": 3, "projection_dim": WIDTH,
}  # fmt: skip
T5_CONFIG = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
UNET_CHANNELS = (32, 64)
SDXL_SIZES = 6 * 256


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Block with its own global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fill_zero_layers(network: torch.nn.Module) -> None:
    """Random values for weights that are all zero, so that tests see the layers behind them."""
    with torch.no_grad():
        for value in network.parameters():
            if value.ndim > 1 and not value.any():
                value.normal_(std=0.1)


# -- diffusers layout ------------------------------------------------------------------------


def _tokenizers(comfyui: Path) -> tuple[Any, Any]:
    from transformers import CLIPTokenizerFast, T5TokenizerFast

    return (
        CLIPTokenizerFast.from_pretrained(
            str(comfyui / "comfy" / "sd1_tokenizer"), model_max_length=77
        ),
        T5TokenizerFast.from_pretrained(
            str(comfyui / "comfy" / "text_encoders" / "t5_tokenizer"), model_max_length=512
        ),
    )


def _clip(*, projection: bool = False, activation: str = "quick_gelu") -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        **CLIP_CONFIG, vocab_size=49408, hidden_act=activation, bos_token_id=49406,
        eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def _vae(channels: int, scale: float, shift: float | None) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=32,
        scaling_factor=scale,
        shift_factor=shift,
        force_upcast=False,
    ).eval()


def write_flux(folder: Path, comfyui: Path, seed: int = 0) -> Path:
    """A Flux pipeline: one double and one single block of one head."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    clip_tokenizer, t5_tokenizer = _tokenizers(comfyui)
    with seeded(seed):
        transformer = FluxTransformer2DModel(
            in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=FLUX_HIDDEN,
            num_attention_heads=1, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH,
            guidance_embeds=True, axes_dims_rope=(16, 56, 56),
        ).eval()  # fmt: skip
        config = T5Config(**T5_CONFIG, vocab_size=32128, feed_forward_proj="gated-gelu")
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(16, 0.3611, 0.1159),
            text_encoder=_clip(),
            tokenizer=clip_tokenizer,
            text_encoder_2=T5EncoderModel(config).eval(),
            tokenizer_2=t5_tokenizer,
            transformer=transformer,
        )
    pipeline.save_pretrained(folder)
    return folder


def write_flux_control(folder: Path, seed: int = 1, *, num_modes: int | None = 7) -> Path:
    """A Flux union ControlNet that works on latents."""
    from diffusers import FluxControlNetModel

    with seeded(seed):
        network = FluxControlNetModel(
            in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=FLUX_HIDDEN,
            num_attention_heads=1, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH,
            guidance_embeds=True, axes_dims_rope=[16, 56, 56], num_mode=num_modes,
        )  # fmt: skip
        fill_zero_layers(network)
    network.save_pretrained(folder)
    return folder


def write_sd(
    folder: Path, comfyui: Path, seed: int = 2, *, sdxl: bool = False, velocity: bool = False
) -> Path:
    """A Stable Diffusion pipeline with two levels; SDXL with its two text encoders."""
    from diffusers import (
        DDIMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    extra: dict[str, Any] = {"cross_attention_dim": WIDTH, "attention_head_dim": 8}
    if sdxl:
        extra = {
            "cross_attention_dim": 2 * WIDTH, "attention_head_dim": 1,
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": SDXL_SIZES + WIDTH,
            "use_linear_projection": True,
        }  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
        prediction_type="v_prediction" if velocity else "epsilon",
    )  # fmt: skip
    tokenizer, _ = _tokenizers(comfyui)
    with seeded(seed):
        parts = {
            "unet": UNet2DConditionModel(
                sample_size=8,
                block_out_channels=UNET_CHANNELS,
                layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                norm_num_groups=32,
                **extra,
            ).eval(),
            "vae": _vae(4, 0.13025 if sdxl else 0.18215, None),
            "text_encoder": _clip(),
            "tokenizer": tokenizer,
            "scheduler": scheduler,
        }
        if sdxl:
            second_tokenizer, _ = _tokenizers(comfyui)
            second_tokenizer.pad_token = "!"  # number 0, as published
            pipeline = StableDiffusionXLPipeline(
                **parts,
                text_encoder_2=_clip(projection=True, activation="gelu"),
                tokenizer_2=second_tokenizer,
            )
        else:
            pipeline = StableDiffusionPipeline(
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
    pipeline.save_pretrained(folder)
    return folder


def write_peft_lora(path: Path, flux_folder: Path, seed: int = 3) -> Path:
    """A LoRA of rank 4 on the attention of a tiny Flux model, in peft's format."""
    from diffusers import FluxTransformer2DModel
    from safetensors.torch import save_file

    network = FluxTransformer2DModel.from_pretrained(flux_folder / "transformer")
    state = {}
    with seeded(seed):
        for name, layer in network.named_modules():
            if name.endswith(("to_q", "to_k", "to_v", "to_out.0", "proj_out")) and "blocks" in name:
                state[f"transformer.{name}.lora_A.weight"] = torch.randn(4, layer.in_features) / 8
                state[f"transformer.{name}.lora_B.weight"] = torch.randn(layer.out_features, 4) / 8
    save_file(state, path)
    return path


# -- ComfyUI's objects -----------------------------------------------------------------------


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    import comfy.utils

    state: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state.update(comfy.utils.load_torch_file(str(file), safe_load=True))
    return state


def _text_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a text encoder; newer transformers leave CLIP's prefix out."""
    state = _weights(folder)
    return {
        f"text_model.{key}"
        if key.startswith(("embeddings.", "encoder.layers.", "final_"))
        else key: value
        for key, value in state.items()
    }


def _load_strictly(network: Any, state: dict[str, Any]) -> None:
    missing, unexpected = network.load_sd(dict(state))
    left = [key for key in missing if "text_projection" not in key and "logit_scale" not in key]
    assert not left and not unexpected, (left, unexpected)


def load_vae(folder: Path, channels: int) -> Any:
    """VAE with the sizes of `_vae`."""
    import comfy.sd

    sizes = {
        "double_z": True, "z_channels": channels, "resolution": 64, "in_channels": 3, "out_ch": 3,
        "ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [],
        "dropout": 0.0,
    }  # fmt: skip
    config = {"params": {"ddconfig": sizes, "embed_dim": channels}}
    vae = comfy.sd.VAE(sd=_weights(folder / "vae"), config=config, dtype=torch.float32)
    vae.latent_channels = channels
    return vae


def _load_clip(target_clip: Any, tokenizer: Any, states: list[dict[str, Any]]) -> Any:
    import comfy.sd
    import comfy.supported_models_base

    target = comfy.supported_models_base.ClipTarget(tokenizer, target_clip)
    options = {
        "clip_l_model_config": CLIP_CONFIG, "clip_g_model_config": CLIP_CONFIG,
        "t5xxl_model_config": T5_CONFIG, "dtype": torch.float32,
    }  # fmt: skip
    clip = comfy.sd.CLIP(target, model_options=options)
    for state in states:
        _load_strictly(clip, state)
    return clip


def load_flux_clip(folder: Path) -> Any:
    """CLIP-L and T5 as DualCLIPLoader gives them for Flux."""
    import comfy.text_encoders.flux

    flux = comfy.text_encoders.flux
    return _load_clip(
        flux.flux_clip(dtype_t5=torch.float32),
        flux.FluxTokenizer,
        [_text_weights(folder / "text_encoder"), _text_weights(folder / "text_encoder_2")],
    )


def load_flux(folder: Path) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of `write_flux`."""
    import comfy.sd

    options = {"dtype": torch.float32}
    state = _weights(folder / "transformer")
    model = comfy.sd.load_diffusion_model_state_dict(state, model_options=options)
    return model, load_flux_clip(folder), load_vae(folder, 16)


def _unet_config(sdxl: bool) -> dict[str, Any]:
    return {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "dtype": torch.float32,
        "model_channels": UNET_CHANNELS[0], "channel_mult": [1, 2], "num_res_blocks": [1, 1],
        "use_spatial_transformer": True, "legacy": False, "use_temporal_attention": False,
        "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1],
        "transformer_depth_middle": 1, "use_linear_in_transformer": sdxl,
        "context_dim": (2 if sdxl else 1) * WIDTH, "use_temporal_resblock": False,
        **({"num_classes": "sequential", "adm_in_channels": SDXL_SIZES + WIDTH} if sdxl
           else {"adm_in_channels": None}),
    }  # fmt: skip


def load_sd(folder: Path, *, sdxl: bool = False, velocity: bool = False) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of `write_sd`."""
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import comfy.supported_models
    import comfy.utils

    unet_config = _unet_config(sdxl)
    kind = comfy.supported_models.SDXL if sdxl else comfy.supported_models.SD15
    config = kind(unet_config)
    config.set_inference_dtype(torch.float32, None)
    state = _weights(folder / "unet")
    names = comfy.utils.unet_to_diffusers(unet_config)
    native = {names[key]: value for key, value in state.items()}
    if sdxl:
        network = config.get_model(native)
    else:
        types = comfy.model_base.ModelType
        network = comfy.model_base.BaseModel(config, types.V_PREDICTION if velocity else types.EPS)
    network.load_model_weights(native)
    cpu = torch.device("cpu")
    model = comfy.model_patcher.ModelPatcher(network, cpu, cpu)
    states = [_text_weights(folder / "text_encoder")]
    if sdxl:
        states.append(_text_weights(folder / "text_encoder_2"))
        clip = _load_sdxl_clip(states)
    else:
        clip = _load_clip(comfy.sd1_clip.SD1ClipModel, comfy.sd1_clip.SD1Tokenizer, states)
    return model, clip, load_vae(folder, 4)


def _load_sdxl_clip(states: list[dict[str, Any]]) -> Any:
    """Both CLIPs; ComfyUI tells them apart by their depth, which tiny ones do not show."""
    import comfy.sdxl_clip

    clip = _load_clip(comfy.sdxl_clip.SDXLClipModel, comfy.sdxl_clip.SDXLTokenizer, [])
    _load_strictly(clip.cond_stage_model.clip_l, states[0])
    _load_strictly(clip.cond_stage_model.clip_g, states[1])
    return clip


def make_sd3(vae: Any, seed: int = 4) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of a Stable Diffusion 3 with random weights, made by ComfyUI itself."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.text_encoders.sd3_clip as sd3

    config = comfy.supported_models.SD3(
        {
            "in_channels": 16, "patch_size": 2, "depth": 2, "input_size": None,
            "adm_in_channels": WIDTH + 1280, "pos_embed_scaling_factor": None,
            "pos_embed_max_size": 32, "num_patches": 32 * 32, "qk_norm": "rms",
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": 4096, "out_features": 128},
            },
            "dtype": torch.float32,
        }
    )  # fmt: skip
    config.set_inference_dtype(torch.float32, None)
    network = comfy.model_base.SD3(config)
    clip = _load_clip(sd3.sd3_clip(clip_g=False, t5=False), sd3.SD3Tokenizer, [])
    with seeded(seed), torch.no_grad():
        for module in (network.diffusion_model, clip.cond_stage_model):
            for value in module.parameters():
                value.normal_(std=0.05)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(network, cpu, cpu), clip, vae
