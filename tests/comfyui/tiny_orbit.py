"""ComfyUI's objects of a tiny SV3D checkpoint, as ImageOnlyCheckpointLoader gives the published one.

The file is that of `orbit_scenes.write_tiny_sv3d`; ComfyUI's own loader knows the published sizes
only. Runs inside a ComfyUI process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

HEAD_WIDTH, TOKEN_WIDTH = 16, 16
UNET = {
    "image_size": 32, "in_channels": 8, "out_channels": 4, "dtype": torch.float32,
    "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": [1, 1],
    "use_spatial_transformer": True, "legacy": False, "use_linear_in_transformer": True,
    "transformer_depth": [1, 0], "transformer_depth_output": [1, 1, 0, 0],
    "transformer_depth_middle": 1, "context_dim": TOKEN_WIDTH, "num_classes": "sequential",
    "adm_in_channels": 1280, "extra_ff_mix_layer": True, "use_spatial_context": True,
    "merge_strategy": "learned_with_images", "merge_factor": 0.0, "video_kernel_size": [3, 1, 1],
    "use_temporal_resblock": True, "use_temporal_attention": True,
    "disable_temporal_crossattention": False,
}  # fmt: skip
# ComfyUI's autoencoder has group norms of 32 channels, whatever its width.
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
HEADS = ("model.diffusion_model.", "first_stage_model.")


def load_sv3d(path: Path) -> tuple[Any, Any]:
    """MODEL of the file, and a VAE of the published kind with random weights."""
    import comfy.model_patcher
    import comfy.sd
    import comfy.supported_models
    import comfy.utils

    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    config = comfy.supported_models.SV3D_p(dict(UNET))
    config.unet_config["num_head_channels"] = HEAD_WIDTH
    config.set_inference_dtype(torch.float32, None)
    network = config.get_model(state)
    network.load_model_weights(state, HEADS[0])
    cpu = torch.device("cpu")
    first_stage = {
        name: _random_like(name, value, seed)
        for seed, (name, value) in enumerate(
            comfy.sd.AutoencoderKL(ddconfig=VAE, embed_dim=4).state_dict().items()
        )
    }
    vae = comfy.sd.VAE(
        sd=first_stage, config={"params": {"ddconfig": VAE, "embed_dim": 4}}, dtype=torch.float32
    )
    return comfy.model_patcher.ModelPatcher(network, cpu, cpu), vae


def _random_like(name: str, value: torch.Tensor, seed: int) -> torch.Tensor:
    """Weights that keep the size of what passes through; ComfyUI's layers begin uninitialised."""
    if value.ndim == 1:
        return torch.full_like(value, float(name.endswith("weight")))
    drawn = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
    return drawn / value[0].numel() ** 0.5
