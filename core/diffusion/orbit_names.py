"""Contains where the weights of SV3D lie in its checkpoint, for the classes of diffusers.

A spatio-temporal UNet is the UNet of Stable Diffusion with a temporal part behind each residual
block and each transformer; its names are made of those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .original_names import open_clip_block_value, unet_layer_names

State = Mapping[str, Tensor]

_SPATIAL, _TEMPORAL, _MIXER = "spatial_res_block.", "temporal_res_block.", "time_mixer"
_POSITION = {
    "time_pos_embed.linear_1": "time_pos_embed.0",
    "time_pos_embed.linear_2": "time_pos_embed.2",
}
_TEMPORAL_BLOCKS = "temporal_transformer_blocks."
_RESNET = re.compile(r"(.*resnets\.\d+)\.(.+)")


def orbit_layer_names(layer: str, per_level: int) -> tuple[str, ...]:
    """Names that a layer of a spatio-temporal UNet can have in the original code.

    Args:
        layer: in diffusers' UNetSpatioTemporalConditionModel.
        per_level: residual blocks per level on the way down.
    """
    resnet = _RESNET.fullmatch(layer)
    if resnet:
        return _resnet_names(resnet.group(1), resnet.group(2), per_level)
    if "attentions" in layer:
        for ours, original in _POSITION.items():
            if layer.endswith(ours):
                layer = layer.removesuffix(ours) + original
        layer = layer.replace(_TEMPORAL_BLOCKS, "time_stack.")
    return unet_layer_names(layer, per_level)


def _resnet_names(block: str, rest: str, per_level: int) -> tuple[str, ...]:
    if rest.startswith(_SPATIAL):
        return unet_layer_names(f"{block}.{rest.removeprefix(_SPATIAL)}", per_level)
    if rest == _MIXER:
        stems = _stems(block, per_level)
        return tuple(f"{stem}.{_MIXER}" for stem in stems)
    plain = unet_layer_names(f"{block}.{rest.removeprefix(_TEMPORAL)}", per_level)
    stems = _stems(block, per_level)
    return tuple(
        f"{stem}.time_stack.{name.removeprefix(f'{stem}.')}"
        for stem, name in zip(stems, plain, strict=True)
    )


def _stems(block: str, per_level: int) -> tuple[str, ...]:
    """Original names of a residual block itself."""
    inner = unet_layer_names(f"{block}.conv1", per_level)
    return tuple(name.removesuffix(".in_layers.2") for name in inner)


def orbit_unet_names(network: Any) -> dict[str, tuple[str, ...]]:
    """Keys of a spatio-temporal UNet with the keys that they can have in the original code."""
    per_level = max(len(block.resnets) for block in network.down_blocks)
    names = {}
    for key in network.state_dict():
        layer, _, kind = key.rpartition(".")
        names[key] = tuple(f"{name}.{kind}" for name in orbit_layer_names(layer, per_level))
    return names


def orbit_unet_state(network: Any, state: State) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of a spatio-temporal UNet out of an original checkpoint, and the keys left over."""
    found: dict[str, Tensor] = {}
    used = set()
    for key, originals in orbit_unet_names(network).items():
        for original in originals:
            if original in state:
                found[key] = state[original]
                used.add(original)
    return found, [key for key in state if key not in used]


_VISION_NAMES = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",  # transformers' own spelling
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}


def open_clip_vision_state(network: nn.Module, state: State) -> dict[str, Tensor]:
    """Weights of a CLIPVisionModelWithProjection out of keys of OpenCLIP's ``visual``."""
    found = {}
    for key in network.state_dict():
        name = key.removeprefix("vision_model.")
        if name == "visual_projection.weight":
            projection = state.get("proj")
            value = None if projection is None else projection.T
        elif name in _VISION_NAMES:
            value = state.get(_VISION_NAMES[name])
        else:
            value = open_clip_block_value(name, state)
        if value is not None:
            found[key] = value
    return found
