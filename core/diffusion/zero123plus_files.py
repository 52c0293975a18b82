"""Contains the loading of Zero123++ and FlexGen from a diffusers folder and a UNet checkpoint.

The folder is that of `sudo-ai/zero123plus-v1.2`; the pipeline code that it names is not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..formats.json_fields import JsonObject
from ..networks.image_processor import read_image_processor
from ..networks.weights import load_weights, read_weights
from ..networks.zero123plus import NoiseSchedule, Zero123Plus
from .diffusers_files import (
    INDEX,
    freeze,
    read_index,
    read_json,
    read_network,
    read_tokenizer,
    require_parts,
)
from .placement import plain_tensors

CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "zero123plus.yaml"
FOLDER_LINK = "https://huggingface.co/sudo-ai/zero123plus-v1.2"
FLEXGEN_LINK = "https://huggingface.co/LTT/Kiss3DGen/resolve/main/flexgen.ckpt"
MAX_TOKENS = 512
PARTS = {
    "vae": "AutoencoderKL",
    "vision_encoder": "CLIPVisionModelWithProjection",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
}
UNET_CLASS = "UNet2DConditionModel"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
UNET_CONFIG = "unet/config.json"


def load_zero123plus(
    folder: Path | str,
    unet_path: Path | str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Zero123Plus:
    """Model for inference, on the CPU.

    Args:
        folder: in diffusers' layout; its UNet may be missing when ``unet_path`` is given.
        unet_path: state dict of the UNet (``flexgen.ckpt``), which replaces the folder's own;
            every key must fit.
        dtype: of all networks.

    Raises:
        FileNotFoundError: the folder or the file is missing or incomplete; the message names what
            and where to get it.
        ValueError: a file is damaged or does not fit.
    """
    folder = Path(folder)
    _require_files(folder, None if unet_path is None else Path(unet_path))
    ramp = _read_ramp(folder / INDEX)
    schedule = _read_schedule(folder / SCHEDULER_CONFIG)
    if unet_path is None:
        unet: Any = read_network(folder / "unet", UNET_CLASS, dtype)
    else:
        unet = _read_unet(folder / UNET_CONFIG, Path(unet_path), dtype)
    return Zero123Plus(
        unet=unet,
        vae=read_network(folder / "vae", PARTS["vae"], dtype),
        vision=read_network(folder / "vision_encoder", PARTS["vision_encoder"], dtype),
        empty_tokens=_encode_empty_prompt(folder),
        ramp=ramp,
        vae_processor=read_image_processor(folder / "feature_extractor_vae"),
        vision_processor=read_image_processor(folder / "feature_extractor_clip"),
        schedule=schedule,
    )


def make_unet(config: Mapping[str, Any] | None = None) -> Any:
    """UNet of a configuration, without values (on the meta device); None takes the published.

    Raises:
        ValueError: the configuration describes no UNet.
    """
    from diffusers import UNet2DConditionModel

    if config is None:
        from omegaconf import OmegaConf

        published: Any = OmegaConf.to_container(OmegaConf.load(CONFIG_FILE).unet)
        config = published
    try:
        with torch.device("meta"):
            return UNet2DConditionModel.from_config(dict(config))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{UNET_CONFIG} describes no usable UNet: {error}.") from error


def _require_files(folder: Path, unet_path: Path | None) -> None:
    """Check all files before any long work."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The folder {folder} does not exist; download {FOLDER_LINK} into it."
        )
    read_json(folder / INDEX, f"{folder} is no multiview model; download {FOLDER_LINK} into it")
    read_json(folder / SCHEDULER_CONFIG, f"Download {FOLDER_LINK} again")
    if unet_path is None:
        require_parts(folder, {**PARTS, "unet": UNET_CLASS}, FOLDER_LINK)
    else:
        require_parts(folder, PARTS, FOLDER_LINK)
        if not unet_path.is_file():
            raise FileNotFoundError(f"{unet_path} does not exist; download {FLEXGEN_LINK}.")


def _read_unet(config_path: Path, path: Path, dtype: torch.dtype) -> Any:
    config = read_json(config_path).data if config_path.is_file() else None
    with plain_tensors():
        # diffusers' own `to` warns about types; the plain one does the same silently.
        unet = torch.nn.Module.to(make_unet(config), dtype)
        load_weights(unet, read_weights(path), name=path.name)
    return freeze(unet)


def _encode_empty_prompt(folder: Path) -> Float[Tensor, "1 token feature"]:
    """Embedding of the empty prompt; the text encoder is needed for nothing else."""
    encoder: Any = read_network(folder / "text_encoder", PARTS["text_encoder"], torch.float32)
    tokenizer = read_tokenizer(
        folder / "tokenizer", read_index(folder).get("tokenizer", PARTS["tokenizer"])
    )
    length = min(tokenizer.model_max_length, MAX_TOKENS)
    ids = tokenizer("", padding="max_length", max_length=length, return_tensors="pt").input_ids
    with plain_tensors():
        return encoder(input_ids=ids).last_hidden_state.clone()


def _read_ramp(path: Path) -> Float[Tensor, " token"]:
    index = read_json(path)
    values = index.data.get("ramping_coefficients")
    if not isinstance(values, list) or not 0 < len(values) <= MAX_TOKENS:
        raise ValueError(
            f"{path} has no list 'ramping_coefficients', so this is no model of the Zero123++ "
            f"family; use {FOLDER_LINK}."
        )
    return torch.tensor(index.numbers("ramping_coefficients", len(values)))


def _read_schedule(path: Path) -> NoiseSchedule:
    config: JsonObject = read_json(path)
    defaults = NoiseSchedule()
    return NoiseSchedule(
        num_train_steps=config.integer("num_train_timesteps", defaults.num_train_steps),
        beta_start=config.number("beta_start", defaults.beta_start),
        beta_end=config.number("beta_end", defaults.beta_end),
        spacing=config.data.get("beta_schedule", defaults.spacing),
        prediction=config.data.get("prediction_type", defaults.prediction),
    )
