"""Tiny random orbit models: SV3D's single file with its folder of sizes, and our own folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_models import make_tiny_vae, seeded

TOKEN_WIDTH = 16
VISION_PX = 28


def tiny_unet_config(channels: int = 4) -> dict[str, Any]:
    """Two levels, the first with attention."""
    return {
        "sample_size": 4, "in_channels": 2 * channels, "out_channels": channels,
        "block_out_channels": (32, 64), "layers_per_block": 1, "num_attention_heads": (2, 4),
        "cross_attention_dim": TOKEN_WIDTH, "addition_time_embed_dim": 256,
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    }  # fmt: skip


def make_tiny_unet(told: int, seed: int = 0, channels: int = 4) -> Any:
    """UNet of diffusers that is told ``told`` numbers per frame."""
    from diffusers import UNetSpatioTemporalConditionModel

    with seeded(seed):
        unet: Any = UNetSpatioTemporalConditionModel(
            **tiny_unet_config(channels), projection_class_embeddings_input_dim=told
        )
        for value in unet.parameters():  # mixing factors at 0.5 would hide that they are swapped
            if value.numel() == 1:
                value.data.normal_()
    return unet.eval()


def make_tiny_vision(seed: int = 1) -> Any:
    """CLIP's vision encoder with two layers."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with seeded(seed):
        return CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                image_size=VISION_PX, patch_size=14, projection_dim=TOKEN_WIDTH, hidden_act="gelu",
            )
        ).eval()  # fmt: skip


def write_tiny_sv3d(path: Path, kind: str = "p", seed: int = 0) -> Path:
    """A checkpoint with the keys of the published one, and its sizes in a folder beside it."""
    from lift3d.core.diffusion.orbit_names import orbit_unet_names
    from safetensors.torch import save_file

    unet = make_tiny_unet({"p": 1280, "u": 256}[kind], seed)
    vision, vae = make_tiny_vision(seed + 1), make_tiny_vae(channels=4, scale=0.18215, shift=None)
    with seeded(seed + 2):
        for value in vae.parameters():
            value.data.normal_(std=0.2)
    state = {
        f"model.diffusion_model.{names[0]}": unet.state_dict()[key]  # no attention where it grows
        for key, names in orbit_unet_names(unet).items()
    }
    state |= {
        f"conditioner.embedders.0.open_clip.model.visual.{key}": value
        for key, value in open_clip_of(vision).items()
    }
    state |= {f"first_stage_model.{key}": value for key, value in original_vae(vae).items()}
    state["conditioner.embedders.0.open_clip.model.logit_scale"] = torch.zeros(())
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    folder = path.with_suffix("")
    for name, network in (("unet", unet), ("vae", vae)):
        network.save_config(folder / name)
    (folder / "image_encoder").mkdir()
    vision.config.to_json_file(folder / "image_encoder" / "config.json")
    return path


def open_clip_of(vision: Any) -> dict[str, torch.Tensor]:
    """Weights under the keys of OpenCLIP, written out by hand."""
    state = {k.removeprefix("vision_model."): v for k, v in vision.state_dict().items()}
    found = {
        "class_embedding": state["embeddings.class_embedding"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "conv1.weight": state["embeddings.patch_embedding.weight"],
        "proj": state["visual_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        found[f"ln_pre.{kind}"] = state[f"pre_layrnorm.{kind}"]
        found[f"ln_post.{kind}"] = state[f"post_layernorm.{kind}"]
        for layer in range(vision.config.num_hidden_layers):
            ours, theirs = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
            parts = [state[f"{ours}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(parts)
            for a, b in (
                ("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
            ):  # fmt: skip
                found[f"{theirs}.{b}.{kind}"] = state[f"{ours}.{a}.{kind}"]
    return found


def original_vae(vae: Any) -> dict[str, torch.Tensor]:
    """Weights under the keys of latent diffusion's code."""
    from lift3d.core.diffusion.original_names import vae_layer_name

    levels = len(vae.config.block_out_channels)
    return {
        f"{vae_layer_name(key.rpartition('.')[0], levels)}.{key.rpartition('.')[2]}": value
        for key, value in vae.state_dict().items()
    }


def write_tiny_orbit(folder: Path, seed: int = 0, *, num_frames: int = 4) -> Path:
    """A model in our own folder layout."""
    vae = make_tiny_vae(channels=4, scale=1.0, shift=None)
    parts = {"unet": make_tiny_unet(1280, seed), "image_encoder": make_tiny_vision(), "vae": vae}
    for name, network in parts.items():
        network.save_pretrained(folder / name)
    facts = {
        "kind": "p", "num_frames": num_frames, "size_px": 32, "order": "input first",
        "sigma_range": [0.02, 80.0], "steps": 3, "guidance": 2.0, "radius": 4.5, "fov_y_deg": 30.0,
    }  # fmt: skip
    (folder / "orbit.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder
