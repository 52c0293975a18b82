"""Contains the loading of orbit models: SV3D's single files, and folders of our own.

A folder holds ``orbit.json`` (the facts), ``unet``, ``image_encoder`` and ``vae`` in the layout of
diffusers; ``orbit.json`` may name an embedded autoencoder instead of ``vae``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..formats.json_fields import JsonObject
from ..networks.image_processor import ImageProcessor
from ..networks.orbit_unet import OrbitUNet
from ..networks.weights import load_weights, read_weights
from .adapters import ActiveAdapter, AdapterBank
from .diffusers_files import (
    freeze,
    read_json,
    read_network,
    require_libraries,
    require_parts,
)
from .embedded import embedded_path
from .image_codec import codec_dtype
from .lora_attach import adapter_name
from .lora_files import read_lora
from .lora_targets import NETWORK_PREFIXES, match_lora
from .orbit_conditioning import VECTOR_CHANNELS, OrbitKind
from .orbit_model import OrbitFacts, OrbitModel
from .orbit_names import open_clip_vision_state, orbit_unet_state
from .original_names import vae_state
from .placement import FixedPlacement, plain_tensors

CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "sv3d.yaml"
FACTS_FILE = "orbit.json"
LINK = "https://huggingface.co/stabilityai/sv3d"
UNET_PREFIX = "model.diffusion_model."
VISION_PREFIX = "conditioner.embedders.0.open_clip.model.visual."
# The encoder of the picture is the same autoencoder once more; ComfyUI reads that copy.
VAE_PREFIXES = ("first_stage_model.", "conditioner.embedders.1.encoder.")
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
UNET_CLASS = "UNetSpatioTemporalConditionModel"
VISION_CLASS = "CLIPVisionModelWithProjection"
VAE_CLASS = "AutoencoderKL"
LISTED_ROOTS = 6


def load_orbit_model(path: Path | str, *, dtype: torch.dtype = torch.float32) -> OrbitModel:
    """Orbit model for inference, on the CPU.

    Args:
        path: ``sv3d_p.safetensors``, ``sv3d_u.safetensors``, a folder of our own layout, or the
            name of an embedded model.
        dtype: of the UNet and the vision encoder.

    Raises:
        FileNotFoundError: it is not there, or parts are missing; the message names them.
        ValueError: it is damaged or of another kind or size.
    """
    found = _find(path)
    return _from_folder(found, dtype) if found.is_dir() else _from_file(found, dtype)


def with_orbit_lora(model: OrbitModel, path: Path | str, strength: float = 1.0) -> OrbitModel:
    """Orbit model with a LoRA in its UNet; the original is unchanged.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no LoRA, or one for another model; every layer must fit.
    """
    require_libraries("A LoRA", "peft")
    path = Path(path)
    file = read_lora(path)
    network = model.unet.unet
    match = match_lora(file.layers, file, network, NETWORK_PREFIXES)
    if match.describe_rest() or not match.layers:
        raise ValueError(
            f"The LoRA {file.name} does not fit '{model.name}': {match.describe_rest()}."
        )
    bank = model.bank or AdapterBank(network)
    placement = FixedPlacement(next(network.parameters()).device)
    adapter = bank.attach(adapter_name(path), match.layers, placement)
    return replace(model, bank=bank, loras=(*model.loras, ActiveAdapter(adapter, strength)))


def _find(path: Path | str) -> Path:
    found = Path(path)
    if found.exists():
        return found
    embedded = embedded_path(str(path))
    if embedded is not None:
        return embedded
    raise FileNotFoundError(f"There is no orbit model at {path}; download {LINK}.")


# -- folders ---------------------------------------------------------------------------------


def _from_folder(folder: Path, dtype: torch.dtype) -> OrbitModel:
    index = read_json(folder / FACTS_FILE, f"{folder} is no orbit model")
    parts = {"unet": UNET_CLASS, "image_encoder": VISION_CLASS}
    vae_folder = folder / "vae"
    if index.has("vae"):
        name = index.text("vae")
        shared = embedded_path(name)
        if shared is None:
            raise FileNotFoundError(
                f"{folder / FACTS_FILE} names the embedded autoencoder '{name}', which is not "
                "there; take a whole copy of Lift3D."
            )
        vae_folder = shared
    else:
        parts["vae"] = VAE_CLASS
    require_parts(folder, parts, LINK)
    unet: Any = read_network(folder / "unet", UNET_CLASS, dtype)
    vision: Any = read_network(folder / "image_encoder", VISION_CLASS, dtype)
    return OrbitModel(
        name=folder.name,
        unet=OrbitUNet(unet),
        vae=read_network(vae_folder, VAE_CLASS, codec_dtype(dtype)),
        vision=vision,
        processor=vision_processor(vision),
        facts=read_orbit_facts(index),
        report=f"{folder.name}: {_count(unet) + _count(vision):,} parameters.",
    )


def read_orbit_facts(index: JsonObject) -> OrbitFacts:
    """Facts of an ``orbit.json``; what it omits is SV3D's."""
    usual, data = OrbitFacts(), index.data
    try:
        return OrbitFacts(
            kind=data.get("kind", usual.kind),
            num_frames=index.integer("num_frames", usual.num_frames),
            size_px=index.integer("size_px", usual.size_px),
            order=data.get("order", usual.order),
            sigma_range=_pair(index, "sigma_range", usual.sigma_range),
            steps=index.integer("steps", usual.steps),
            guidance=index.number("guidance", usual.guidance),
            radius=index.number("radius", usual.radius),
            fov_y_deg=index.number("fov_y_deg", usual.fov_y_deg),
            elevation_deg=_pair(index, "elevation_deg", usual.elevation_deg),
        )
    except ValueError as error:
        raise ValueError(f"{FACTS_FILE}: {error}") from error


def _pair(index: JsonObject, key: str, usual: tuple[float, float]) -> tuple[float, float]:
    low, high = index.numbers(key, 2, usual)
    return low, high


# -- single files ----------------------------------------------------------------------------


def _from_file(path: Path, dtype: torch.dtype) -> OrbitModel:
    state = read_weights(path)
    kind = _kind_of(path, state)
    folder = path.with_suffix("")
    sizes = _sizes(folder, kind)
    sources = {
        "unet": _below(state, UNET_PREFIX),
        "image_encoder": _below(state, VISION_PREFIX),
        "vae": next((found for p in VAE_PREFIXES if (found := _below(state, p))), {}),
    }
    missing = [part for part, source in sources.items() if not source]
    if missing:
        raise ValueError(
            f"{path.name} lacks the {', '.join(missing)}; take the whole checkpoint of {LINK}."
        )
    unet = _make_unet(path, sizes["unet"], sources["unet"], dtype)
    vision = _make_vision(path, sizes["image_encoder"], sources["image_encoder"], dtype)
    vae = _make_vae(path, sizes["vae"], sources["vae"], codec_dtype(dtype))
    size_px = int(unet.config.sample_size) * 2 ** (len(vae.config.block_out_channels) - 1)
    used = sum(len(source) for source in sources.values())
    return OrbitModel(
        name=path.name,
        unet=OrbitUNet(unet),
        vae=vae,
        vision=vision,
        processor=vision_processor(vision),
        facts=OrbitFacts(kind=kind, size_px=size_px),
        report=_report(path.name, kind, unet, state, used),
    )


def _kind_of(path: Path, state: Mapping[str, Tensor]) -> OrbitKind:
    key = f"{UNET_PREFIX}label_emb.0.0.weight"
    is_video = any(name.startswith(UNET_PREFIX) and ".time_stack." in name for name in state)
    if key not in state or not is_video:
        raise ValueError(
            f"{path.name} is no checkpoint of SV3D (it has no {key} beside temporal layers); "
            f"download sv3d_p.safetensors or sv3d_u.safetensors of {LINK}."
        )
    told = int(state[key].shape[1])
    for kind, channels in VECTOR_CHANNELS.items():
        if told == channels:
            return kind
    raise ValueError(
        f"{path.name} is told {told} numbers per frame, SV3D 1280 (p) or 256 (u); 768 is Stable "
        "Video Diffusion, which knows no orbits."
    )


def _sizes(folder: Path, kind: OrbitKind) -> dict[str, dict[str, Any]]:
    """Configurations by part: the published ones, or those of the folder beside the file."""
    from omegaconf import OmegaConf

    published: Any = OmegaConf.to_container(OmegaConf.load(CONFIG_FILE))
    sizes = {}
    for part in ("unet", "image_encoder", "vae"):
        own = folder / part / "config.json"
        sizes[part] = read_json(own).data if own.is_file() else dict(published[part])
    sizes["unet"]["projection_class_embeddings_input_dim"] = VECTOR_CHANNELS[kind]
    return sizes


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def make_orbit_unet(config: Mapping[str, Any]) -> Any:
    """Spatio-temporal UNet of a configuration, without values (on the meta device)."""
    from diffusers import UNetSpatioTemporalConditionModel

    with torch.device("meta"):
        return UNetSpatioTemporalConditionModel.from_config(dict(config))


def _make_unet(
    path: Path, config: Mapping[str, Any], source: dict[str, Tensor], dtype: torch.dtype
) -> Any:
    with plain_tensors():
        unet = nn.Module.to(make_orbit_unet(config), dtype)
        found, left = orbit_unet_state(unet, source)
        load_weights(unet, found, name=f"{path.name}, the UNet,")
    if left:
        raise ValueError(
            f"{path.name} holds {len(left)} weights that a UNet of this size does not have, such "
            f"as {left[0]}; put a folder with its unet/config.json beside it."
        )
    return freeze(unet)


def _make_vision(
    path: Path, config: Mapping[str, Any], source: dict[str, Tensor], dtype: torch.dtype
) -> Any:
    from accelerate import init_empty_weights
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with plain_tensors():
        with init_empty_weights():
            vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
        nn.Module.to(vision, dtype)
        found = open_clip_vision_state(vision, source)
        load_weights(vision, found, name=f"{path.name}, the vision encoder,")
    return freeze(vision)


def _make_vae(
    path: Path, config: Mapping[str, Any], source: dict[str, Tensor], dtype: torch.dtype
) -> Any:
    from diffusers import AutoencoderKL

    with plain_tensors():
        with torch.device("meta"):
            vae = AutoencoderKL.from_config(dict(config))
        nn.Module.to(vae, dtype)
        load_weights(vae, vae_state(vae, source), name=f"{path.name}, the autoencoder,")
    return freeze(vae)


def vision_processor(vision: Any) -> ImageProcessor:
    """Pictures to the pixels of a CLIP vision encoder: squeezed to its square, not cropped."""
    side = int(vision.config.image_size)
    return ImageProcessor(size_px=(side, side), mean=CLIP_MEAN, std=CLIP_STD)


def _count(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def _report(name: str, kind: str, unet: Any, state: Mapping[str, Tensor], used: int) -> str:
    lines = [
        f"{name}: SV3D_{kind}, {len(unet.state_dict())} keys and {_count(unet):,} parameters of "
        "the UNet; all keys fit."
    ]
    if used < len(state):
        heads = (UNET_PREFIX, VISION_PREFIX, *VAE_PREFIXES)
        other = [key for key in state if not key.startswith(heads)]
        roots = sorted({".".join(key.split(".")[:3]) for key in other})[:LISTED_ROOTS]
        rest = f": {', '.join(roots)}" if roots else ""
        lines.append(f"{len(state) - used} keys are not needed and were ignored{rest}.")
    return "\n".join(lines)
