"""Contains the reading of a whole model from one checkpoint file of the original code or ComfyUI.

Such a file holds weights only. Sizes come from ``configs/diffusers.yaml`` or a folder in diffusers
layout beside the file with the same name, which may also hold the parts that the file lacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.weights import load_weights, read_weights
from .diffusers_files import (
    freeze,
    has_weights,
    network_class,
    read_json,
    read_network,
    read_tokenizer,
    require_libraries,
)
from .image_codec import codec_dtype
from .original_names import (
    clip_state,
    flux_state,
    open_clip_state,
    t5_state,
    unet_state,
    vae_state,
)
from .placement import plain_tensors

CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "diffusers.yaml"
TOKENIZER_KINDS = {
    "clip": "CLIPTokenizer",
    "clip_zero_padded": "CLIPTokenizer",
    "t5": "T5TokenizerFast",
}
ZERO_TOKEN = "!"  # the first word of CLIP's vocabulary; SD 2.1 and SDXL pad with it
TOKENIZER_LINKS = {
    "clip": "https://huggingface.co/openai/clip-vit-large-patch14 (vocab.json, merges.txt)",
    "t5": "https://huggingface.co/google/t5-v1_1-xxl (spiece.model or tokenizer.json)",
}
_SOURCES: dict[str, Callable[[Any, Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "flux": flux_state,
    "unet": unet_state,
    "vae": vae_state,
    "clip": clip_state,
    "open_clip": open_clip_state,
    "t5": t5_state,
}


@dataclass(frozen=True)
class CheckpointLayout:
    """What a kind of checkpoint holds.

    Attributes:
        name: "flux", "sd15", "sd21" or "sdxl".
        link: of the published model, for messages.
        parts: settings of each network by part; see ``configs/diffusers.yaml``.
        tokenizers: kinds by part.
        scheduler: configuration of the training schedule.
    """

    name: str
    link: str
    parts: Mapping[str, Mapping[str, Any]]
    tokenizers: Mapping[str, str]
    scheduler: Mapping[str, Any]


@dataclass(frozen=True)
class CheckpointParts:
    """Networks and tokenizers out of a checkpoint, by part, with its training schedule."""

    networks: Mapping[str, nn.Module]
    tokenizers: Mapping[str, Any]
    scheduler: Mapping[str, Any]


def read_checkpoint(
    path: Path,
    dtype: torch.dtype,
    *,
    config: Path | None = None,
    tokenizers: Mapping[str, Path] | None = None,
) -> CheckpointParts:
    """Read a model from one file.

    Args:
        path: ``.safetensors`` or a pickle of tensors.
        dtype: number type of the networks.
        config: folder in diffusers layout; by default the one beside the file with its name.
        tokenizers: folders of tokenizers that the host brings along: "clip", "t5".

    Raises:
        FileNotFoundError: parts are neither in the file nor in the folder; all are named.
        ValueError: the file is damaged, or of a kind that is not known.
    """
    require_libraries("A checkpoint in a single file", "accelerate", "omegaconf")
    folder = path.with_suffix("") if config is None else Path(config)
    state = read_weights(path)
    layout = _layout(path, state)
    sources = {part: _part_of(state, spec) for part, spec in layout.parts.items()}
    _require_all(path, folder, layout, sources, tokenizers or {})
    networks: dict[str, nn.Module] = {}
    for part, spec in layout.parts.items():
        part_type = codec_dtype(dtype) if part == "vae" else dtype
        networks[part] = (
            _make(path, folder / part, spec, sources[part], part_type)
            if sources[part]
            else read_network(folder / part, spec["kind"], part_type)
        )
    made = {
        part: _tokenizer(folder / part, kind, tokenizers or {})
        for part, kind in layout.tokenizers.items()
    }
    schedule = folder / "scheduler" / "scheduler_config.json"
    scheduler = read_json(schedule).data if schedule.is_file() else layout.scheduler
    return CheckpointParts(networks, made, scheduler)


def _layout(path: Path, state: Mapping[str, Tensor]) -> CheckpointLayout:
    """Kind of a checkpoint by its keys."""
    from omegaconf import OmegaConf

    scaled = [key for key in state if key.endswith((".scale_weight", "scaled_fp8"))]
    if scaled:
        raise ValueError(
            f"{path.name} holds scaled fp8 weights ({scaled[0]}), which only ComfyUI's own loaders "
            "read; load it there and use the node 'Wrap Native Model'."
        )
    name = checkpoint_kind(state)
    if not name:
        first = ", ".join(list(state)[:3])
        raise ValueError(
            f"{path.name} is no checkpoint of Flux, Stable Diffusion 1.5, 2.1 or SDXL (first keys: "
            f"{first}); choose another file or a folder in diffusers layout."
        )
    content: Any = OmegaConf.to_container(OmegaConf.load(CONFIG_FILE).models[name])
    link, tokenizers, scheduler = (content.pop(k) for k in ("link", "tokenizers", "scheduler"))
    return CheckpointLayout(name, link, content, tokenizers, scheduler)


def checkpoint_kind(state: Mapping[str, Tensor]) -> str:
    """Which model a checkpoint holds, by its keys: a name of ``configs/diffusers.yaml`` or ""."""
    if any(re.search(r"(^|\.)double_blocks\.0\.img_attn\.qkv\.weight$", key) for key in state):
        return "flux"
    head = "model.diffusion_model."
    if f"{head}input_blocks.0.0.weight" not in state:
        return ""
    if f"{head}label_emb.0.0.weight" in state:
        return "sdxl"
    text = "cond_stage_model.model."
    return "sd21" if any(key.startswith(text) for key in state) else "sd15"


def _part_of(state: Mapping[str, Tensor], spec: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of one part under the first prefix that any key has; other parts are left out."""
    for prefix in spec["prefixes"]:
        found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if found and (prefix or checkpoint_kind(found)):
            return found
    return {}


def _require_all(
    path: Path,
    folder: Path,
    layout: CheckpointLayout,
    sources: Mapping[str, Mapping[str, Tensor]],
    tokenizers: Mapping[str, Path],
) -> None:
    missing = [
        part for part, source in sources.items() if not source and not has_weights(folder / part)
    ]
    for part, kind in layout.tokenizers.items():
        if not (folder / part).is_dir() and _family(kind) not in tokenizers:
            missing.append(f"{part} ({TOKENIZER_LINKS[_family(kind)]})")
    if missing:
        raise FileNotFoundError(
            f"{path.name} lacks {', '.join(missing)}. Put them into the folder {folder} in "
            f"diffusers layout, from {layout.link}, or use the whole folder instead."
        )


def _family(kind: str) -> str:
    return kind.partition("_")[0]


def _make(
    path: Path, folder: Path, spec: Mapping[str, Any], source: dict[str, Tensor], dtype: torch.dtype
) -> nn.Module:
    """A network with the weights of the file."""
    from accelerate import init_empty_weights

    config = folder / "config.json"
    sizes = read_json(config).data if config.is_file() else dict(spec["config"])
    loader = network_class(spec["kind"])
    with plain_tensors():
        with init_empty_weights():
            network = _from_sizes(loader, sizes)
        nn.Module.to(network, dtype)  # the method of diffusers warns about types it need not
        weights = _SOURCES[spec["keys"]](network, source)
        load_weights(network, weights, name=f"{path.name}, part {folder.name},")
        if spec["keys"] == "t5":
            network.tie_weights()
    return freeze(network)


def _from_sizes(loader: Any, sizes: Mapping[str, Any]) -> Any:
    if hasattr(loader, "from_config"):
        return loader.from_config(sizes)
    return loader(loader.config_class(**sizes))


def _tokenizer(folder: Path, kind: str, tokenizers: Mapping[str, Path]) -> Any:
    if folder.is_dir():
        stated = folder / "tokenizer_config.json"
        name = read_json(stated).text("tokenizer_class", "") if stated.is_file() else ""
        return read_tokenizer(folder, name or TOKENIZER_KINDS[kind])
    tokenizer = read_tokenizer(tokenizers[_family(kind)], TOKENIZER_KINDS[kind])
    if kind == "clip_zero_padded":
        tokenizer.pad_token = ZERO_TOKEN
    tokenizer.model_max_length = 512 if kind == "t5" else 77
    return tokenizer
