"""A tiny random model of the Zero123++ family in the published folder layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_models import (
    TEXT_WIDTH,
    make_tiny_clip,
    make_tiny_unet,
    make_tiny_vae,
    make_word_tokenizer,
    seeded,
)

TOKENS = 77
VISION_PX = 24


def make_tiny_vision() -> Any:
    """Two layers of CLIP's vision encoder, patches of 8 pixels."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=VISION_PX, patch_size=8, projection_dim=TEXT_WIDTH,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval()


def make_tiny_zero123plus(path: Path, seed: int = 0, *, with_unet: bool = True) -> Path:
    """Folder of a model; its scheduler names a pipeline of its own, which must not be run."""
    with seeded(seed):
        tokenizer = make_word_tokenizer(max_length=TOKENS, start=True)
        parts = {
            "vae": make_tiny_vae(channels=4, scale=0.18215, shift=None),
            "text_encoder": make_tiny_clip(tokenizer),
            "vision_encoder": make_tiny_vision(),
        }
        if with_unet:
            parts["unet"] = make_tiny_unet()
    for name, part in parts.items():
        part.save_pretrained(path / name)
    tokenizer.save_pretrained(path / "tokenizer")
    pixels = {"do_resize": True, "do_center_crop": False, "do_normalize": True, "resample": 3}
    ramp = [round(0.1 + index / TOKENS, 3) for index in range(TOKENS)]
    settings = {
        "model_index.json": {
            "_class_name": ["pipeline", "Zero123PlusPipeline"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            "ramping_coefficients": ramp,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "EulerAncestralDiscreteScheduler", "beta_schedule": "linear",
            "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000,
            "prediction_type": "v_prediction", "timestep_spacing": "linspace",
        },
        "feature_extractor_vae/preprocessor_config.json": {
            **pixels, "size": {"height": 48, "width": 48},
            "image_mean": [0.5] * 3, "image_std": [0.8] * 3,
        },
        "feature_extractor_clip/preprocessor_config.json": {
            **pixels, "size": {"shortest_edge": VISION_PX},
            "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
        },
    }  # fmt: skip
    for name, values in settings.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(values), encoding="utf-8")
    return path


def make_picture(side: int = 64) -> torch.Tensor:
    """A ball on white, square."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    inside = (x**2 + y**2 < 0.6)[..., None]
    color = torch.stack([0.5 + x / 2, 0.5 + y / 2, torch.full_like(x, 0.2)], dim=-1)
    return torch.where(inside, color, torch.ones(3)).clamp(0, 1)
