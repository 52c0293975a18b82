"""Original names of layers cover the networks, against diffusers' conversion of checkpoints."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.diffusion.lora_names import flux_names, unet_original_names
from torch import Tensor


def original_unet_names(name: str) -> str:
    """The one original name of a layer of the tiny UNet, norms included (test only)."""
    if "upsamplers" in name:
        with_attention = "up_blocks.0" in name
        return unet_original_names(name, 1)[with_attention]
    norms = {"norm1": "conv1", "norm2": "conv2"}
    for norm, neighbour in norms.items():
        if name.endswith(f".{norm}") and "resnets" in name:
            original = unet_original_names(name.replace(norm, neighbour), 1)[0]
            return original.replace("layers.2", "layers.0").replace("layers.3", "layers.0")
    return {"conv_norm_out": "out.0"}.get(name) or unet_original_names(name, 1)[0]


@pytest.mark.parametrize("sdxl", [False, True])
def test_every_unet_layer_is_found_by_its_original_name(sdxl: bool) -> None:
    """Oracle: diffusers' conversion of original checkpoints, run on one number per tensor."""
    import tiny_models
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = tiny_models.make_tiny_unet(sdxl=sdxl)
    expected: dict[str, float] = {}
    originals: dict[str, Tensor] = {}
    for number, name in enumerate(unet.state_dict()):
        layer, _, kind = name.rpartition(".")
        expected[name] = float(number)
        key = f"model.diffusion_model.{original_unet_names(layer)}.{kind}"
        originals[key] = torch.tensor(float(number))
    converted = convert_ldm_unet_checkpoint(originals, {**unet.config, "class_embed_type": None})
    assert {name: float(value) for name, value in converted.items()} == expected


def test_flux_names_cover_every_layer_of_the_transformer() -> None:
    import tiny_models

    network = tiny_models.make_tiny_flux_transformer(guidance=True)
    layers = {n for n, m in network.named_modules() if isinstance(m, torch.nn.Linear)}
    assert {part for target in flux_names(1, 1).values() for part in target.names} == layers
