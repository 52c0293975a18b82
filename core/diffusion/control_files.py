"""Contains the reading of ControlNets: a folder in diffusers layout, or a single file of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..networks.weights import load_weights, read_weights
from .controls import ControlNetwork
from .diffusers_files import freeze, read_json, read_network, require_parts
from .placement import plain_tensors

PUBLISHED_ROPE = (16, 56, 56)
"""Flux's division of a head's channels between index, row and column."""

ARCHITECTURES = {"FluxControlNetModel": "Flux", "ControlNetModel": "Stable Diffusion"}


def load_control_network(path: Path, dtype: torch.dtype, *, link: str = "") -> ControlNetwork:
    """ControlNet from a folder or a ``.safetensors`` file with keys of diffusers.

    Raises:
        FileNotFoundError: files are missing; the message names them.
        ValueError: it is damaged, or no ControlNet that is known.
    """
    path = Path(path)
    if path.is_file():
        return _from_file(path, dtype)
    kind = read_json(path / "config.json", f"{path} is no ControlNet").text("_class_name", "")
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"{path} holds a {kind or 'nameless network'}, which is no ControlNet known here; "
            f"expected one of {', '.join(ARCHITECTURES)}."
        )
    require_parts(path.parent, {path.name: kind}, link)
    return _control(read_network(path, kind, dtype), path.name)


def _control(network: Any, name: str) -> ControlNetwork:
    kind = type(network).__name__
    modes = getattr(network.config, "num_mode", None)
    return ControlNetwork(network, ARCHITECTURES[kind], name, modes)


def _from_file(path: Path, dtype: torch.dtype) -> ControlNetwork:
    """A Flux ControlNet without its configuration, which the shapes of its weights tell."""
    state = read_weights(path)
    if "controlnet_x_embedder.weight" not in state:
        _refuse_file(path, state)
    from diffusers import FluxControlNetModel

    try:
        config = flux_control_config(state)
    except (KeyError, StopIteration) as error:
        raise ValueError(f"{path.name} is damaged: it lacks the weight {error}.") from error
    with plain_tensors():
        with torch.device("meta"):
            network: Any = FluxControlNetModel(**config)
        nn.Module.to(network, dtype)  # the method of diffusers warns about types it need not
        load_weights(network, state, name=path.name)
        return _control(freeze(network), path.name)


def _refuse_file(path: Path, state: Mapping[str, Tensor]) -> NoReturn:
    if not any("zero_convs" in key or "controlnet_down_blocks" in key for key in state):
        first = ", ".join(list(state)[:3])
        raise ValueError(f"{path.name} is no ControlNet known here (first keys: {first}).")
    raise ValueError(
        f"{path.name} is a ControlNet for Stable Diffusion in a single file; use its folder in "
        "diffusers layout (config.json and diffusion_pytorch_model.safetensors) instead."
    )


def flux_control_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of a FluxControlNetModel, read off the shapes of its weights.

    Raises:
        KeyError: weights that every such network has are missing.
        ValueError: heads of another size than the published ones, whose positions are unknown.
    """
    inner = state["x_embedder.weight"].shape[0]
    head = _size(state, r"(single_)?transformer_blocks\.0\.attn\.norm_q\.weight")
    if head != sum(PUBLISHED_ROPE):
        raise ValueError(
            f"This Flux ControlNet has heads of {head} channels instead of {sum(PUBLISHED_ROPE)}; "
            "use its folder with config.json instead of a single file."
        )
    modes = state.get("controlnet_mode_embedder.weight")
    hint = state.get("input_hint_block.conv_out.weight")
    return {
        "in_channels": state["x_embedder.weight"].shape[1],
        "num_layers": _count(state, "transformer_blocks"),
        "num_single_layers": _count(state, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": inner // head,
        "joint_attention_dim": state["context_embedder.weight"].shape[1],
        "pooled_projection_dim": state["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        "guidance_embeds": any("guidance_embedder" in key for key in state),
        "axes_dims_rope": list(PUBLISHED_ROPE),
        "num_mode": None if modes is None else modes.shape[0],
        "conditioning_embedding_channels": None if hint is None else hint.shape[0],
    }


def _count(state: Mapping[str, Tensor], name: str) -> int:
    numbers = [m.group(1) for m in (re.match(rf"{name}\.(\d+)\.", key) for key in state) if m]
    return 1 + max(map(int, numbers), default=-1)


def _size(state: Mapping[str, Tensor], pattern: str) -> int:
    return next(int(v.shape[0]) for key, v in state.items() if re.fullmatch(pattern, key))


def list_controls(root: Path, *, max_depth: int = 3) -> list[str]:
    """ControlNet folders in diffusers layout below a folder, by their path below it."""
    patterns = ["/".join(["*"] * depth + ["config.json"]) for depth in range(1, max_depth + 1)]
    found = []
    for path in (path for pattern in patterns for path in root.glob(pattern)):
        if any(f'"{kind}"' in _head(path) for kind in ARCHITECTURES):
            found.append(path.parent.relative_to(root).as_posix())
    return sorted(found)


def _head(path: Path, length: int = 4096) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(length)
