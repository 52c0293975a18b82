"""Contains the search for the layers that a LoRA file changes, under all names they are known by.

A network's layers are looked up by their names in diffusers or transformers, by the names of the
original code bases (Flux: ``double_blocks.0.img_attn.qkv``; Stable Diffusion:
``input_blocks.1.1...``), and by both with underscores for dots (kohya). A fused layer of the
original code is several layers in diffusers; its LoRA is taken apart by rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .lora_files import LoraFile, LoraLayer
from .lora_names import Target, flux_names, unet_original_names
from .orbit_names import orbit_layer_names

NETWORK_PREFIXES = (
    "base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.",
    "lora_unet_", "lora_transformer_",
)  # fmt: skip
ENCODER_PREFIXES: dict[str, tuple[str, ...]] = {
    "text_encoder": (
        "text_encoder.", "lora_te_", "lora_te1_", "text_encoders.clip_l.transformer.", "clip_l.",
    ),
    "text_encoder_2": (
        "text_encoder_2.", "lora_te2_", "lora_te3_", "text_encoders.t5xxl.transformer.", "t5xxl.",
        "text_encoders.clip_g.transformer.", "clip_g.",
    ),
}  # fmt: skip
LISTED_KEYS = 8


@dataclass
class LoraMatch:
    """What of a LoRA file belongs to a network.

    Attributes:
        layers: changes by the network's own layer names.
        unmatched: names of the file that belong to no layer.
        misshaped: names of the file whose shapes do not fit their layer, with the shapes.
    """

    layers: dict[str, LoraLayer] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)

    def describe_rest(self) -> str:
        """What did not fit, for people; empty when all did."""
        kinds = (("unknown", self.unmatched), ("of another shape", self.misshaped))
        lines = []
        for kind, names in kinds:
            if names:
                more = f" and {len(names) - LISTED_KEYS} more" if len(names) > LISTED_KEYS else ""
                lines.append(f"{len(names)} layers {kind}: {', '.join(names[:LISTED_KEYS])}{more}")
        return "; ".join(lines)


def match_lora(
    names: Iterable[str], file: LoraFile, network: nn.Module, prefixes: tuple[str, ...]
) -> LoraMatch:
    """Find the layers of a network that some layers of a LoRA file change.

    Args:
        names: layers of the file that are meant for this network.
        file: holds them.
        network: of diffusers or transformers.
        prefixes: that the file may put before the names.
    """
    modules = layers_of(network)
    targets = known_names(network, modules)
    match = LoraMatch()
    for name in names:
        target = _find_target(name, targets, prefixes)
        if target is None:
            match.unmatched.append(name)
            continue
        parts = _take_apart(file.layers[name], target, modules)
        if parts is None:
            match.misshaped.append(_describe_shapes(name, file.layers[name], target, modules))
        else:
            match.layers.update(parts)
    return match


def layers_of(network: Any) -> dict[str, Any]:
    """Linear and convolution layers by name; those that carry LoRAs by their outer name."""
    found: dict[str, Any] = {}
    for name, module in network.named_modules():
        if name.endswith(".base_layer"):
            found[name.removesuffix(".base_layer")] = module
        elif isinstance(module, (nn.Linear, nn.Conv2d)) and not _is_adapter_part(name):
            found.setdefault(name, module)
    return found


def _is_adapter_part(name: str) -> bool:
    return any(part in (".lora_A.", ".lora_B.") for part in re.findall(r"\.lora_[AB]\.", name))


def known_names(network: Any, modules: Mapping[str, Any]) -> dict[str, Target]:
    """All names under which LoRA files know a network's layers."""
    targets = {name: Target((name,)) for name in modules}
    if hasattr(network, "single_transformer_blocks"):
        double, single = network.transformer_blocks, network.single_transformer_blocks
        targets |= flux_names(len(double), len(single))
    elif hasattr(network, "down_blocks"):
        per_level = max(len(block.resnets) for block in network.down_blocks)
        is_video = any(".temporal_transformer_blocks." in name for name in modules)
        originals = orbit_layer_names if is_video else unet_original_names
        targets |= {
            original: target
            for name, target in list(targets.items())
            for original in originals(name, per_level)
        }
    else:  # transformers 5 dropped this level of CLIP's names in one of its classes
        targets |= {f"text_model.{name}": target for name, target in targets.items()}
    flat = {name.replace(".", "_"): target for name, target in targets.items()}
    return {**flat, **targets}


def _find_target(
    name: str, targets: Mapping[str, Target], prefixes: tuple[str, ...]
) -> Target | None:
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return targets.get(name)


def _take_apart(
    layer: LoraLayer, target: Target, modules: Mapping[str, Any]
) -> dict[str, LoraLayer] | None:
    """The parts of a LoRA for each layer of a target, None when shapes do not fit.

    A LoRA may cover the first layers of a fused one only (XLabs: q, k, v without the feed-forward
    part).
    """
    if target.swapped:
        first, second = layer.up.chunk(2)
        layer = LoraLayer(layer.down, torch.cat([second, first]))
    parts: dict[str, LoraLayer] = {}
    start = 0
    for name in target.names:
        module = modules.get(name)
        if module is None or start == layer.num_outputs:
            break
        stop = start + module.weight.shape[0]
        part = _shaped_like(layer.rows(start, stop), module)
        if part is None:
            return None
        parts[name] = part
        start = stop
    return parts if parts and start == layer.num_outputs else None


def _shaped_like(layer: LoraLayer, module: Any) -> LoraLayer | None:
    """The layer with matrices in the module's form; 1x1 convolutions are stored either way."""
    weight = module.weight
    if isinstance(module, nn.Conv2d):
        down = layer.down.reshape(*layer.down.shape[:2], *layer.down.shape[2:] or (1, 1))
        up = layer.up.reshape(*layer.up.shape[:2], 1, 1) if layer.up[0, 0].numel() == 1 else None
        fits = up is not None and down.shape[1:] == weight.shape[1:]
    else:
        down, up = layer.down.flatten(1), layer.up.flatten(1)
        fits = down.shape[1] == weight.shape[1] and up.shape[1] == down.shape[0]
    if up is None or not fits or up.shape[0] != weight.shape[0]:
        return None
    return LoraLayer(down, up)


def _describe_shapes(
    name: str, layer: LoraLayer, target: Target, modules: Mapping[str, Any]
) -> str:
    rows = sum(modules[part].weight.shape[0] for part in target.names if part in modules)
    inputs = next((modules[p].weight.shape[1] for p in target.names if p in modules), 0)
    found = f"[{layer.num_outputs}, {layer.down.shape[1]}]"
    return f"{name} {found} for [{rows}, {inputs}]"


def guess_architecture(file: LoraFile) -> str:
    """The kind of model that a LoRA file looks made for, for messages."""
    listed = list(file.layers)
    text = "\n".join(listed).replace(".", "_")
    if re.search(r"(double|single)_blocks_|single_transformer_blocks_|add_q_proj", text):
        return "Flux"
    if "joint_blocks_" in text or "attn_add_k_proj" in text:
        return "Stable Diffusion 3"
    if not re.search(r"(down|up|input|output|mid)_blocks?_|middle_block_", text):
        return "an unknown kind of model"
    widths = {
        int(file.layers[name].down.shape[1])
        for name in listed
        if re.search(r"attn2[._]to_[kv]$", name)
    }
    by_width = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2.1", 2048: "SDXL"}
    return next((by_width[width] for width in widths if width in by_width), "Stable Diffusion")
