"""Contains where each weight of a network lies in a checkpoint of the original code.

For every key of a diffusers or transformers network the functions give the key (and the rows) in
the original file, so that a network of any size can be filled and nothing is guessed from shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .lora_names import flux_names, unet_original_names

State = Mapping[str, Tensor]

_FLUX_NORMS = {
    "norm_q": "norm.query_norm", "norm_k": "norm.key_norm",
    "norm_added_q": "norm.query_norm", "norm_added_k": "norm.key_norm",
}  # fmt: skip
_UNET_NORMS = {"norm1": "conv1", "norm2": "conv2"}
_VAE_BLOCK = re.compile(
    r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_VAE_MIDDLE = re.compile(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_VAE_ATTENTION = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip
_OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def flux_state(network: Any, state: State) -> dict[str, Tensor]:
    """Weights of a FluxTransformer2DModel out of an original checkpoint; what lacks is left out."""
    sizes = {name: value.shape[0] for name, value in network.state_dict().items()}
    found: dict[str, Tensor] = {}
    double, single = len(network.transformer_blocks), len(network.single_transformer_blocks)
    for original, target in flux_names(double, single).items():
        for kind in ("weight", "bias"):
            value = state.get(f"{original}.{kind}")
            if value is None:
                continue
            if target.swapped:
                value = torch.cat(value.chunk(2)[::-1])
            start = 0
            for name in target.names:
                stop = start + sizes.get(f"{name}.{kind}", 0)
                found[f"{name}.{kind}"] = value[start:stop]
                start = stop
    for name in sizes:
        scale = state.get(_flux_norm(name))
        if scale is not None:
            found[name] = scale
    return {name: value for name, value in found.items() if name in sizes}


def _flux_norm(name: str) -> str:
    """Original key of a query or key normalisation; empty for other weights."""
    parts = name.split(".")
    if len(parts) != 5 or parts[3] not in _FLUX_NORMS:
        return ""
    if parts[0] == "single_transformer_blocks":
        return f"single_blocks.{parts[1]}.{_FLUX_NORMS[parts[3]]}.scale"
    stream = "txt_attn" if "added" in parts[3] else "img_attn"
    return f"double_blocks.{parts[1]}.{stream}.{_FLUX_NORMS[parts[3]]}.scale"


def unet_state(network: Any, state: State) -> dict[str, Tensor]:
    """Weights of a UNet2DConditionModel out of an original checkpoint."""
    per_level = max(len(block.resnets) for block in network.down_blocks)
    wanted = network.state_dict()
    found = {}
    for name, target in wanted.items():
        layer, _, kind = name.rpartition(".")
        for original in unet_layer_names(layer, per_level):
            value = state.get(f"{original}.{kind}")
            if value is not None:
                found[name] = _shaped(value, target)
    return found


def unet_layer_names(layer: str, per_level: int) -> tuple[str, ...]:
    """Names that a layer, norms included, can have in the original code."""
    if layer == "conv_norm_out":
        return ("out.0",)
    head, _, last = layer.rpartition(".")
    if "resnets" in layer and last in _UNET_NORMS:
        neighbours = unet_original_names(f"{head}.{_UNET_NORMS[last]}", per_level)
        return tuple(f"{name.rpartition('.')[0]}.0" for name in neighbours)
    return unet_original_names(layer, per_level)


def vae_state(network: Any, state: State) -> dict[str, Tensor]:
    """Weights of an AutoencoderKL out of an original checkpoint."""
    levels = len(network.config.block_out_channels)
    found = {}
    for name, target in network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        value = state.get(f"{vae_layer_name(layer, levels)}.{kind}")
        if value is not None:
            found[name] = _shaped(value, target)
    return found


def vae_layer_name(layer: str, levels: int) -> str:
    """Name of an autoencoder's layer in the original code."""
    middle = _VAE_MIDDLE.fullmatch(layer)
    if middle:
        side, kind, index, rest = middle.groups()
        if kind == "attentions":
            return f"{side}.mid.attn_{int(index) + 1}.{_VAE_ATTENTION.get(rest, rest)}"
        return f"{side}.mid.block_{int(index) + 1}.{_vae_resnet(rest)}"
    block = _VAE_BLOCK.fullmatch(layer)
    if block:
        side, way, level, kind, index, rest = block.groups()
        number = int(level) if way == "down" else levels - 1 - int(level)
        if kind == "resnets":
            return f"{side}.{way}.{number}.block.{index}.{_vae_resnet(rest)}"
        return f"{side}.{way}.{number}.{way}sample.{rest}"
    return layer.replace("conv_norm_out", "norm_out")


def _vae_resnet(rest: str) -> str:
    return rest.replace("conv_shortcut", "nin_shortcut")


def clip_state(network: nn.Module, state: State) -> dict[str, Tensor]:
    """Weights of a CLIP text encoder out of keys of transformers, of whichever version."""
    wanted = network.state_dict()
    bare = {key.removeprefix("text_model."): value for key, value in state.items()}
    found = {}
    for name in wanted:
        value = bare.get(name.removeprefix("text_model."))
        if value is not None:
            found[name] = value
    return found


def open_clip_state(network: nn.Module, state: State) -> dict[str, Tensor]:
    """Weights of a CLIP text encoder out of keys of OpenCLIP (SD 2.1 and SDXL's second)."""
    found = {}
    for name in network.state_dict():
        value = _open_clip_value(name.removeprefix("text_model."), state)
        if value is not None:
            found[name] = value
    return found


def _open_clip_value(name: str, state: State) -> Tensor | None:
    plain = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    if name in plain:
        return state.get(plain[name])
    if name == "text_projection.weight":
        projection = state.get("text_projection")
        return state.get(name) if projection is None else projection.T
    return open_clip_block_value(name, state)


def open_clip_block_value(name: str, state: State) -> Tensor | None:
    """Weight of a CLIP layer (``encoder.layers.N...``, text or vision) out of OpenCLIP's keys."""
    parts = name.split(".", 3)  # encoder.layers.N.rest
    if len(parts) != 4:
        return None
    block, (layer, _, kind) = f"transformer.resblocks.{parts[2]}", parts[3].rpartition(".")
    if layer.startswith("self_attn.") and layer[-6] in "qkv" and layer.endswith("_proj"):
        fused = state.get(f"{block}.attn.in_proj_{kind}")
        return None if fused is None else fused.chunk(3)["qkv".index(layer[-6])]
    return state.get(f"{block}.{_OPEN_CLIP.get(layer, layer)}.{kind}")


def t5_state(network: nn.Module, state: State) -> dict[str, Tensor]:
    """Weights of T5's encoder; its two names for the word embedding are filled alike."""
    filled = dict(state)
    for first, second in (
        ("shared.weight", "encoder.embed_tokens.weight"),
        ("encoder.embed_tokens.weight", "shared.weight"),
    ):
        if first in filled:
            filled.setdefault(second, filled[first])
    wanted = network.state_dict()
    return {name: value for name, value in filled.items() if name in wanted}


def _shaped(value: Tensor, target: Tensor) -> Tensor:
    """1x1 convolutions and linear layers are stored either way."""
    return value.reshape(target.shape) if value.numel() == target.numel() else value
