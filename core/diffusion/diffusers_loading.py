"""Contains the making of a model's parts from a folder: family, networks, texts, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .diffusers_files import (
    TOKENIZER_CLASSES,
    read_index,
    read_json,
    read_network,
    read_tokenizer,
    require_parts,
)
from .embedded import embedded_path, list_embedded, read_defaults
from .flux_network import FluxNetwork
from .image_codec import ImageCodec, codec_dtype, vae_latent_format
from .model import ModelDefaults
from .model_parts import Backbone, ModelParts
from .placement import Placement
from .single_file import read_checkpoint
from .text_encoding import FluxText, SdxlText, StableDiffusionText, TextEncoder
from .unet_network import UNetNetwork, scheduler_sigmas

USED_PARTS = (
    "transformer", "unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2",
    "image_encoder",
)  # fmt: skip
NETWORK_CLASSES = {
    "FluxTransformer2DModel": "Flux",
    "UNet2DConditionModel": "Stable Diffusion",
    "UNetSpatioTemporalConditionModel": "Stable Video Diffusion",
}


@dataclass(frozen=True)
class LoadedParts:
    """Networks, tokenizers and settings of a model as they were read.

    Attributes:
        name: of the folder or file.
        networks: by part.
        tokenizers: by part.
        scheduler: configuration of the training schedule.
        folder: where ``lift3d.json`` may lie.
    """

    name: str
    networks: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    folder: Path


def find_model(path: Path | str) -> Path:
    """Path of a model: an existing path, or the name of an embedded one.

    Raises:
        FileNotFoundError: there is neither.
    """
    found = Path(path)
    if found.exists():
        return found
    embedded = embedded_path(str(path))
    if embedded is not None:
        return embedded
    known = ", ".join(list_embedded("model")) or "none"
    raise FileNotFoundError(
        f"There is no diffusion model at {path}; expected a folder in diffusers layout, a "
        f"checkpoint file, or the name of an embedded model ({known})."
    )


def read_single_file(
    path: Path,
    dtype: torch.dtype,
    config: Path | None = None,
    tokenizers: Mapping[str, Path] | None = None,
) -> LoadedParts:
    """Read all parts of a model from one checkpoint file; see `read_checkpoint`."""
    parts = read_checkpoint(path, dtype, config=config, tokenizers=tokenizers)
    folder = path.with_suffix("") if config is None else config
    return LoadedParts(path.name, parts.networks, parts.tokenizers, parts.scheduler, folder)


def check_files(path: Path, *, link: str = "") -> None:
    """Quick check that a folder in diffusers layout is complete; nothing is loaded.

    Raises:
        FileNotFoundError: files are missing; the message names them.
        ValueError: the model is of an unknown kind, or its index is damaged.
    """
    if path.is_dir():
        require_parts(path, _known_index(path), link)


def read_folder(folder: Path, dtype: torch.dtype, *, link: str = "") -> LoadedParts:
    """Read all parts of a folder in diffusers layout that are used here.

    Raises:
        FileNotFoundError: files are missing; all are named before any is read.
        ValueError: files are damaged or of an unknown kind.
    """
    index = _known_index(folder)
    require_parts(folder, index, link)
    networks, tokenizers = {}, {}
    for part, kind in index.items():
        if kind in TOKENIZER_CLASSES:
            tokenizers[part] = read_tokenizer(folder / part, kind)
        else:
            part_type = codec_dtype(dtype) if part == "vae" else dtype
            networks[part] = read_network(folder / part, kind, part_type)
    schedule = folder / "scheduler" / "scheduler_config.json"
    scheduler = read_json(schedule).data if schedule.is_file() else {}
    return LoadedParts(folder.name, networks, tokenizers, scheduler, folder)


def _known_index(folder: Path) -> dict[str, str]:
    index = {part: kind for part, kind in read_index(folder).items() if part in USED_PARTS}
    network = index.get("transformer", index.get("unet", ""))
    if network not in NETWORK_CLASSES:
        raise ValueError(
            f"{folder} holds a model with the network {network or 'none'}, which is not known "
            f"here; supported are {', '.join(NETWORK_CLASSES)}."
        )
    return index


def assemble(loaded: LoadedParts, dtype: torch.dtype, placement: Placement) -> ModelParts:
    """Put the networks of a model together with the arithmetic of their family."""
    network = loaded.networks.get("transformer", loaded.networks.get("unet"))
    architecture = NETWORK_CLASSES[type(network).__name__]
    make = {"Flux": _flux, "Stable Diffusion": _stable_diffusion}[architecture]
    latent_format = vae_latent_format(loaded.networks["vae"])
    backbone, text, fallback = make(network, loaded, latent_format.downscale)
    multiple = latent_format.downscale * (2 if architecture == "Flux" else 1)
    return ModelParts(
        name=loaded.name,
        backbone=backbone,
        codec=ImageCodec(loaded.networks["vae"], latent_format, placement, multiple),
        text=text,
        placement=placement,
        defaults=read_defaults(loaded.folder, fallback),
        dtype=dtype,
    )


Made = tuple[Backbone, TextEncoder, ModelDefaults]


def _flux(network: Any, loaded: LoadedParts, downscale: int) -> Made:
    networks, tokenizers = loaded.networks, loaded.tokenizers
    text = FluxText(
        networks["text_encoder_2"],
        tokenizers["tokenizer_2"],
        networks.get("text_encoder"),
        tokenizers.get("tokenizer"),
    )
    distilled = bool(network.config.guidance_embeds)
    fallback = ModelDefaults(guidance_kind="distilled" if distilled else "classifier_free")
    defaults = read_defaults(loaded.folder, fallback)
    return FluxNetwork(network, defaults.guidance), text, fallback


def _stable_diffusion(network: Any, loaded: LoadedParts, downscale: int) -> Made:
    networks, tokenizers = loaded.networks, loaded.tokenizers
    unet = UNetNetwork(
        network,
        loaded.scheduler.get("prediction_type", "epsilon"),
        downscale,
        scheduler_sigmas(loaded.scheduler),
    )
    fallback = ModelDefaults(guidance=7.5)
    if not unet.is_sdxl:
        clip, tokenizer = networks["text_encoder"], tokenizers["tokenizer"]
        return unet, StableDiffusionText(clip, tokenizer), fallback
    text = SdxlText(
        (networks["text_encoder"], networks["text_encoder_2"]),
        (tokenizers["tokenizer"], tokenizers["tokenizer_2"]),
    )
    return unet, text, fallback
