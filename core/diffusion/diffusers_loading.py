"""Contains the making of a model's parts from a folder: family, networks, texts, schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..networks.image_processor import ImageProcessor, read_image_processor
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
from .image_prompt import ImagePromptEncoder
from .model import ModelDefaults
from .model_parts import Backbone, ModelParts
from .placement import Placement
from .single_file import read_checkpoint
from .text_encoding import FluxText, NoText, SdxlText, StableDiffusionText, TextEncoder
from .unet_network import UNetNetwork, scheduler_sigmas
from .video_network import VideoNetwork, VideoPrompt

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

    def network(self, part: str) -> Any:
        """Network that every model of the family has.

        Raises:
            ValueError: this one has not.
        """
        return self._part(part, self.networks)

    def tokenizer(self, part: str) -> Any:
        """Tokenizer that every model of the family has; ValueError as `network`."""
        return self._part(part, self.tokenizers)

    def _part(self, part: str, parts: Mapping[str, Any]) -> Any:
        if part not in parts:
            raise ValueError(
                f"The model {self.name} lacks the part '{part}': its model_index.json does not "
                "name it. Copy the whole folder of the model again."
            )
        return parts[part]


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
    latent_format = vae_latent_format(loaded.network("vae"))
    _require_plain_inputs(loaded.name, network, latent_format.channels * _PER_TOKEN[architecture])
    multiple = latent_format.downscale * (2 if architecture == "Flux" else 1)
    codec = ImageCodec(loaded.network("vae"), latent_format, placement, multiple)
    made = _MAKERS[architecture](network, loaded, codec)
    return ModelParts(
        name=loaded.name,
        backbone=made.backbone,
        codec=codec,
        text=made.text,
        placement=placement,
        defaults=read_defaults(loaded.folder, made.defaults),
        dtype=dtype,
        image_prompt=made.image_prompt,
    )


_PER_TOKEN = {"Flux": 4, "Stable Diffusion": 1, "Stable Video Diffusion": 2}
"""Input channels of the network per latent channel."""


def _require_plain_inputs(name: str, network: Any, channels: int) -> None:
    """Refuse models that want more than noisy latents, such as those made for inpainting."""
    found = int(network.config.in_channels)
    if found != channels:
        raise ValueError(
            f"The network of {name} takes {found} channels instead of {channels}: it was made for "
            "inpainting or editing, or its VAE belongs to another model. Use the plain model."
        )


@dataclass(frozen=True)
class _Made:
    backbone: Backbone
    text: TextEncoder
    defaults: ModelDefaults
    image_prompt: ImagePromptEncoder | None = None


def _flux(network: Any, loaded: LoadedParts, codec: ImageCodec) -> _Made:
    text = FluxText(
        loaded.network("text_encoder_2"),
        loaded.tokenizer("tokenizer_2"),
        loaded.networks.get("text_encoder"),
        loaded.tokenizers.get("tokenizer"),
    )
    distilled = bool(network.config.guidance_embeds)
    fallback = ModelDefaults(guidance_kind="distilled" if distilled else "classifier_free")
    defaults = read_defaults(loaded.folder, fallback)
    return _Made(FluxNetwork(network, defaults.guidance), text, fallback)


def _stable_diffusion(network: Any, loaded: LoadedParts, codec: ImageCodec) -> _Made:
    unet = UNetNetwork(
        network,
        loaded.scheduler.get("prediction_type", "epsilon"),
        codec.latent_format.downscale,
        scheduler_sigmas(loaded.scheduler),
    )
    fallback = ModelDefaults(guidance=7.5)
    if not unet.is_sdxl:
        clip, tokenizer = loaded.network("text_encoder"), loaded.tokenizer("tokenizer")
        return _Made(unet, StableDiffusionText(clip, tokenizer), fallback)
    text = SdxlText(
        (loaded.network("text_encoder"), loaded.network("text_encoder_2")),
        (loaded.tokenizer("tokenizer"), loaded.tokenizer("tokenizer_2")),
    )
    return _Made(unet, text, fallback)


def _stable_video(network: Any, loaded: LoadedParts, codec: ImageCodec) -> _Made:
    vision: Any = loaded.network("image_encoder")
    side = int(vision.config.image_size)
    published = read_image_processor(loaded.folder / "feature_extractor")
    processor = ImageProcessor(size_px=(side, side), mean=published.mean, std=published.std)
    prompt = VideoPrompt(vision, processor, codec, int(network.config.num_frames))
    text = NoText(int(vision.config.projection_dim))
    return _Made(VideoNetwork(network), text, ModelDefaults(guidance=2.5, steps=25), prompt)


_MAKERS: Mapping[str, Callable[[Any, LoadedParts, ImageCodec], _Made]] = {
    "Flux": _flux,
    "Stable Diffusion": _stable_diffusion,
    "Stable Video Diffusion": _stable_video,
}
