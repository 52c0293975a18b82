"""Tiny stand-ins for published files, so that the native workflows run in ComfyUI's executor."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_native import (
    WIDTH,
    load_flux_clip,
    load_sd,
    load_vae,
    write_flux,
    write_flux_control,
    write_peft_lora,
    write_sd,
)
from tiny_orbit import TOKEN_WIDTH, load_sv3d

PUBLISHED_FILES = {
    "diffusion_models/flux1-dev.safetensors": "flux/transformer/diffusion_pytorch_model.safetensors",
    "text_encoders/clip_l.safetensors": "flux/text_encoder/model.safetensors",
    "text_encoders/t5xxl_fp16.safetensors": "flux/text_encoder_2/model.safetensors",
    "vae/ae.safetensors": "flux/vae/diffusion_pytorch_model.safetensors",
    "loras/rgb_normal.safetensors": "lora.safetensors",
    "loras/rgb_normal_redux.safetensors": "lora.safetensors",
    "controlnet/flux1-dev-controlnet-union.safetensors": "control/diffusion_pytorch_model.safetensors",
    # Never read: their loaders are replaced.
    "checkpoints/v2-1_512-ema-pruned.safetensors": "lora.safetensors",
    "checkpoints/sd_xl_base_1.0.safetensors": "lora.safetensors",
    "checkpoints/sv3d_p.safetensors": "lora.safetensors",
    "clip_vision/sigclip_vision_patch14_384.safetensors": "lora.safetensors",
    "style_models/flux1-redux-dev.safetensors": "lora.safetensors",
    "background_removal/birefnet.safetensors": "lora.safetensors",
}


def write_published(models: Path, comfyui: Path) -> None:
    """Tiny weights below ComfyUI's model folders, under the names of the published files."""
    import shutil

    from orbit_scenes import write_tiny_sv3d

    source = models / "tiny"
    source.mkdir(parents=True)
    write_flux(source / "flux", comfyui)
    write_flux_control(source / "control")
    write_sd(source / "sd", comfyui)
    write_tiny_sv3d(source / "sv3d_p.safetensors")
    write_peft_lora(source / "lora.safetensors", source / "flux")
    for name, original in PUBLISHED_FILES.items():
        (models / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / original, models / name)


def register_published(models: Path) -> None:
    """Tell ComfyUI of the files, and replace loaders whose architectures have fixed sizes.

    UNETLoader, LoraLoaderModelOnly and ControlNetLoader stay as they are.
    """
    from types import SimpleNamespace

    import folder_paths
    from comfy_api.latest import io

    import nodes

    for folder in models.iterdir():
        folder_paths.add_model_folder_path(folder.name, str(folder))
    known = nodes.NODE_CLASS_MAPPINGS
    flux = models / "tiny" / "flux"
    vision = SimpleNamespace(
        encode_image=lambda image, crop: SimpleNamespace(last_hidden_state=image.mean((1, 2)))
    )
    style = SimpleNamespace(
        get_cond=lambda seen: seen.last_hidden_state.mean() * torch.ones(1, 9, WIDTH)
    )
    known["DualCLIPLoader"].load_clip = lambda self, **_: (load_flux_clip(flux),)
    known["CheckpointLoaderSimple"].load_checkpoint = lambda self, ckpt_name: load_sd(
        models / "tiny" / "sd"
    )
    known["ImageOnlyCheckpointLoader"].load_checkpoint = lambda self, ckpt_name: _sv3d(
        models / "tiny" / "sv3d_p.safetensors"
    )
    known["VAELoader"].load_vae = lambda self, vae_name: (load_vae(flux, 16),)
    known["CLIPVisionLoader"].load_clip = lambda self, clip_name: (vision,)
    known["StyleModelLoader"].load_style_model = lambda self, style_model_name: (style,)
    known["LoadBackgroundRemovalModel"].execute = classmethod(
        lambda cls, bg_removal_name: io.NodeOutput("remover")
    )
    known["RemoveBackground"].execute = classmethod(
        lambda cls, image, bg_removal_model: io.NodeOutput(_disc_like(image))
    )


def _sv3d(path: Path) -> tuple[object, object, object]:
    """MODEL, CLIP_VISION and VAE."""
    from types import SimpleNamespace

    model, vae = load_sv3d(path)

    def encode_image(image: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(image_embeds=image.mean() * torch.ones(len(image), TOKEN_WIDTH))

    return model, SimpleNamespace(encode_image=encode_image), vae


def _disc_like(image: torch.Tensor) -> torch.Tensor:
    """Mask of a disc in the middle of a picture."""
    height, width = image.shape[1:3]
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    inside = rows[:, None] ** 2 + columns[None] ** 2 < 0.5
    return inside.float().expand(image.shape[0], -1, -1)
