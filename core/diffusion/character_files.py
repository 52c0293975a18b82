"""Contains what the loaders of StdGEN's two diffusion models share: sizes, weights and texts.

Their folders are in the layout of diffusers, but their UNets are classes of the authors' own code,
which is not run: sizes are read off ``config.json``, weights by their keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..formats.json_fields import JsonObject
from ..networks.image_processor import ImageProcessor, read_image_processor
from ..networks.weights import load_weights, read_weights
from .ddim import DdimSchedule, read_ddim_schedule
from .diffusers_files import (
    TOKENIZER_CLASSES,
    WEIGHT_PATTERNS,
    freeze,
    has_weights,
    read_json,
    read_network,
    read_tokenizer,
    require_parts,
)
from .placement import FixedPlacement, plain_tensors
from .text_encoding import StableDiffusionText

CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "stdgen.yaml"
LINK = "https://huggingface.co/hyz317/StdGEN"
PARTS = {
    "vae": "AutoencoderKL",
    "image_encoder": "CLIPVisionModelWithProjection",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
}
"""Parts that both models have beside their UNets."""

# Blocks of the authors' code by those of diffusers of the same size.
_PLAIN_BLOCKS = {
    "CrossAttnDownBlockMV2D": "CrossAttnDownBlock2D",
    "CrossAttnUpBlockMV2D": "CrossAttnUpBlock2D",
    "UNetMidBlockMV2DCrossAttn": "UNetMidBlock2DCrossAttn",
}
_SIZES = (
    "sample_size", "in_channels", "out_channels", "center_input_sample", "flip_sin_to_cos",
    "freq_shift", "down_block_types", "mid_block_type", "up_block_types", "block_out_channels",
    "layers_per_block", "downsample_padding", "mid_block_scale_factor", "act_fn",
    "norm_num_groups", "norm_eps", "cross_attention_dim", "attention_head_dim",
    "use_linear_projection", "resnet_time_scale_shift",
)  # fmt: skip


def require_folder(folder: Path, networks: Sequence[str], scheduler: str) -> None:
    """Check that a model's folder is complete before any long work.

    Args:
        folder: of the model.
        networks: folders of the authors' own UNets.
        scheduler: folder of the training schedule.

    Raises:
        FileNotFoundError: names each missing file and where to get it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The folder {folder} does not exist; download {folder.name} of {LINK} into it."
        )
    require_parts(folder, PARTS, LINK)
    missing = [f"{part}/{name}" for part in networks for name in _absent(folder / part)]
    if not (folder / scheduler / "scheduler_config.json").is_file():
        missing.append(f"{scheduler}/scheduler_config.json")
    if missing:
        raise FileNotFoundError(
            f"The model folder {folder} is not complete: {', '.join(missing)} missing. Copy the "
            f"missing files there from {LINK}."
        )


def _absent(part: Path) -> list[str]:
    config = [] if (part / "config.json").is_file() else ["config.json"]
    return config if has_weights(part) else [*config, "diffusion_pytorch_model.safetensors"]


def published_config(name: str) -> dict[str, Any]:
    """Sizes of a published UNet: "pose" or "views"."""
    from omegaconf import OmegaConf

    published: Any = OmegaConf.to_container(OmegaConf.load(CONFIG_FILE))
    return dict(published[name])


def empty_unet(config: Mapping[str, Any], **changes: Any) -> Any:
    """UNet of diffusers of a configuration's sizes, without values (on the meta device).

    Args:
        config: of the authors' classes or of diffusers'.
        changes: fields that replace those of the configuration.

    Raises:
        ValueError: the configuration describes no UNet.
    """
    from diffusers import UNet2DConditionModel

    sizes = {key: _plain(config[key]) for key in _SIZES if config.get(key) is not None}
    try:
        with torch.device("meta"):
            return UNet2DConditionModel.from_config({**sizes, **changes})
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise ValueError(f"config.json describes no usable UNet: {error}.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _PLAIN_BLOCKS.get(value, value)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def fill_network(network: nn.Module, state: Mapping[str, Tensor], name: str) -> Any:
    """A network on the meta device with its weights; every key must fit.

    Raises:
        ValueError: keys are missing, unknown or of another shape.
    """
    with plain_tensors():
        load_weights(network, state, name=name)
    return freeze(network)


def read_part_state(part: Path) -> dict[str, Tensor]:
    """Tensors of a part's folder; safetensors and full precision are preferred.

    Raises:
        FileNotFoundError: there is no weight file.
        ValueError: it is damaged.
    """
    files = [path for pattern in WEIGHT_PATTERNS for path in sorted(part.glob(pattern))]
    if not files:
        raise FileNotFoundError(f"{part} holds no weight file; download it from {LINK}.")
    best = min(files, key=lambda path: (path.suffix != ".safetensors", ".fp16." in path.name))
    if "-of-" not in best.name:
        return read_weights(best)
    shards = [path for path in files if path.suffix == best.suffix and "-of-" in path.name]
    return {key: value for path in shards for key, value in read_weights(path).items()}


def encode_prompts(folder: Path, prompts: Sequence[str]) -> Float[Tensor, "prompt token feature"]:
    """Tokens of fixed prompts; the text encoder is needed for nothing else and is let go."""
    encoder: Any = read_network(folder / "text_encoder", PARTS["text_encoder"], torch.float32)
    tokenizer = read_tokenizer(folder / "tokenizer", _tokenizer_class(folder / "tokenizer"))
    text = StableDiffusionText(encoder, tokenizer)
    with plain_tensors():
        return text.encode(prompts, None, FixedPlacement("cpu")).tokens.clone()


def _tokenizer_class(part: Path) -> str:
    path = part / "tokenizer_config.json"
    named = read_json(path).data.get("tokenizer_class") if path.is_file() else None
    return str(named) if named in TOKENIZER_CLASSES else PARTS["tokenizer"]


def read_vision_processor(folder: Path, vision: Any) -> ImageProcessor:
    """Pictures to the pixels of CLIP: squeezed to its square, published mean and spread."""
    published = read_image_processor(folder / "feature_extractor")
    side = int(vision.config.image_size)
    return ImageProcessor(size_px=(side, side), mean=published.mean, std=published.std)


def read_schedule(part: Path) -> DdimSchedule:
    """Training schedule of a scheduler's folder.

    Raises:
        ValueError: a schedule that is not supported; the message names the file.
    """
    path = part / "scheduler_config.json"
    config: JsonObject = read_json(path)
    try:
        return read_ddim_schedule(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
