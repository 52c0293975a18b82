"""Tiny random models of StdGEN's two diffusion stages in the published folder layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from multiview_scenes import VISION_PX, make_tiny_vision
from tiny_models import TEXT_WIDTH, make_tiny_clip, make_tiny_vae, make_word_tokenizer, seeded

WORDS = tuple(
    "high quality best a rendering image of 3d models view map color normal front front_right right "
    "back left front_left".split()
)
SIZES = {
    "_class_name": "UNetMV2DConditionModel", "sample_size": 16, "in_channels": 4,
    "out_channels": 4, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlockMV2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlockMV2DCrossAttn",
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlockMV2D"],
    "cross_attention_dim": TEXT_WIDTH, "attention_head_dim": [2, 4], "norm_num_groups": 4,
    "use_linear_projection": True,
}  # fmt: skip
POSE_CONFIG = {**SIZES, "in_channels": 8}
"""The published program overrides its channels to 4."""
VIEWS_CONFIG = {
    **SIZES, "in_channels": 8, "num_views": 6, "multiview_attention": True,
    "mvcd_attention": True, "cd_attention_mid": False, "cd_attention_last": False,
    "selfattn_block": "self_rowwise", "regress_elevation": True, "regress_focal_length": True,
    "num_regress_blocks": 2, "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 2 * TEXT_WIDTH,
}  # fmt: skip
ZERO_SNR = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True, "set_alpha_to_one": False, "steps_offset": 1,
    "timestep_spacing": "trailing",
}  # fmt: skip
ERA3D = {
    "beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False,
    "num_train_timesteps": 1000, "prediction_type": "v_prediction", "set_alpha_to_one": False,
    "steps_offset": 1, "timestep_spacing": "leading",
}  # fmt: skip


def fill(network: torch.nn.Module, seed: int) -> Any:
    """A network of the meta device with random values that keep signals at their size."""
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in network.named_parameters():
            if value.ndim < 2:
                noise = 0.1 * torch.randn(value.shape, generator=generator)
                is_scale = "norm" in key and key.endswith("weight")
                value.copy_(noise + 1 if is_scale else noise)
            else:
                value.normal_(std=value[0].numel() ** -0.5, generator=generator)
    return network.eval().requires_grad_(False)


def write_part(path: Path, config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """A network's folder."""
    from safetensors.torch import save_file

    write_json(path / "config.json", config)
    plain = {key: value.contiguous() for key, value in state.items()}
    save_file(plain, path / "diffusion_pytorch_model.safetensors")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """A configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def _write_shared_parts(path: Path, seed: int) -> None:
    with seeded(seed):
        tokenizer = make_word_tokenizer(max_length=77, start=True, words=WORDS)
        make_tiny_vae(channels=4, scale=0.18215, shift=None).save_pretrained(path / "vae")
        make_tiny_clip(tokenizer).save_pretrained(path / "text_encoder")
        make_tiny_vision().save_pretrained(path / "image_encoder")
    tokenizer.save_pretrained(path / "tokenizer")
    processor = {
        "do_resize": True, "do_center_crop": True, "do_normalize": True, "resample": 3,
        "size": {"shortest_edge": VISION_PX}, "crop_size": VISION_PX,
        "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
    }  # fmt: skip
    write_json(path / "feature_extractor" / "preprocessor_config.json", processor)


def make_tiny_pose_model(path: Path, seed: int = 0) -> Path:
    """Folder of an A-pose model, with the weights that only training needed."""
    from lift3d.core.diffusion.pose_canonicalizer import empty_pose_networks

    networks = fill(empty_pose_networks(POSE_CONFIG), seed + 1)
    unused = {
        "class_embedding.linear_1.weight": torch.zeros(32, 10),
        "camera_embedding.0.weight": torch.zeros(32, 12),
        "camera_embedding.2.bias": torch.zeros(32),
    }
    for part, network in (("unet", networks.unet), ("ref_unet", networks.reference)):
        write_part(path / part, POSE_CONFIG, {**network.state_dict(), **unused})
    write_json(path / "scheduler-zerosnr" / "scheduler_config.json", ZERO_SNR)
    _write_shared_parts(path, seed)
    return path


def make_tiny_views_model(path: Path, seed: int = 0) -> Path:
    """Folder of a model of character views."""
    from lift3d.core.diffusion.character_views_model import empty_views_unet

    unet = fill(empty_views_unet(VIEWS_CONFIG), seed + 1)
    write_part(path / "unet", VIEWS_CONFIG, unet.state_dict())
    generator = torch.Generator().manual_seed(seed)
    embeddings = {
        "mean": 0.1 * torch.randn(1, TEXT_WIDTH, generator=generator),
        "std": 0.5 + torch.rand(1, TEXT_WIDTH, generator=generator),
    }
    write_part(path / "image_normalizer", {"embedding_dim": TEXT_WIDTH}, embeddings)
    noising = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000}
    write_json(path / "image_noising_scheduler" / "scheduler_config.json", noising)
    write_json(path / "scheduler" / "scheduler_config.json", ERA3D)
    _write_shared_parts(path, seed)
    return path


def make_portrait(height: int = 128, width: int | None = None) -> torch.Tensor:
    """A figure on white, 5 : 8 unless a width is given."""
    width = height * 5 // 8 if width is None else width
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-0.6, 0.6, width), indexing="ij"
    )
    head, body = x**2 + (y + 0.6) ** 2 < 0.04, (x.abs() < 0.2) & (y.abs() < 0.5)
    color = torch.stack([0.5 + x / 2, 0.5 + y / 3, 0.3 + 0 * x], dim=-1)
    return torch.where((head | body)[..., None], color, torch.ones(3)).clamp(0, 1)
