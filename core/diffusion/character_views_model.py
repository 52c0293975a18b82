"""Contains the model that paints six views of a character with their normals, and its loading.

The folder is `StdGEN-multiview-1024` of the published weights: `unet`, `vae`, `image_encoder`,
`text_encoder`, `tokenizer`, `feature_extractor`, `image_normalizer`, `image_noising_scheduler` and
`scheduler`. Colours and normals are told apart by text, levels (whole, without hair, body) by the
second half of the class vector.

Reference: He et al. 2025, "StdGEN", Sec. 3.2; Li et al. 2024, "Era3D"; Ramesh et al. 2022,
"unCLIP" (the class vector); released programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..formats.json_fields import JsonObject
from ..networks.character_views_unet import NUM_VIEWS, CharacterViewsUNet
from ..networks.image_processor import ImageProcessor
from .character_files import (
    LINK,
    PARTS,
    empty_unet,
    encode_prompts,
    fill_network,
    read_part_state,
    read_schedule,
    read_vision_processor,
    require_folder,
)
from .ddim import DdimSchedule, read_ddim_schedule
from .diffusers_files import read_json, read_network
from .image_codec import codec_dtype

LEVELS = ("whole", "without_hair", "body")
"""What a level shows, in the order of the level codes."""
LEVEL_SLOTS = 4
VIEW_WORDS = ("front", "front_right", "right", "back", "left", "front_left")
DOMAIN_WORDS = ("normal", "color")
"""Words of the prompts, in the order of the batch."""
SCHEDULER, NOISING = "scheduler", "image_noising_scheduler"
NORMALIZER = "image_normalizer"
# What the UNet must have been built with; other variants of Era3D are other networks.
_EXPECTED = {
    "num_views": NUM_VIEWS, "multiview_attention": True, "mvcd_attention": True,
    "cd_attention_mid": False, "cd_attention_last": False, "selfattn_block": "self_rowwise",
    "regress_elevation": True, "regress_focal_length": True,
}  # fmt: skip


@dataclass(frozen=True)
class EmbeddingNoise:
    """How unCLIP models treat the embedding of a picture: normalised, hardly noised, and back.

    Attributes:
        mean: of embeddings.
        std: of embeddings.
        alpha_cumprod: share of the signal at timestep 0.
    """

    mean: Float[Tensor, " feature"]
    std: Float[Tensor, " feature"]
    alpha_cumprod: float

    def apply(
        self, embedding: Float[Tensor, "1 feature"], noise: Float[Tensor, "1 feature"]
    ) -> Float[Tensor, "1 feature"]:
        """The embedding with a little noise."""
        mean, std = self.mean.to(embedding), self.std.to(embedding)
        scaled = (embedding - mean) / std
        a, b = self.alpha_cumprod**0.5, (1 - self.alpha_cumprod) ** 0.5
        return (a * scaled + b * noise.to(scaled)) * std + mean


@dataclass(frozen=True)
class CharacterViewsModel:
    """The networks of the model.

    Attributes:
        name: for messages.
        unet: the denoising network.
        vae: diffusers' ``AutoencoderKL``.
        vision: transformers' ``CLIPVisionModelWithProjection``.
        processor: size, mean and spread of CLIP's pixels.
        embedding_noise: see there.
        text: tokens of the prompts by domain (normals first) and view.
        schedule: of the training noise.
        report: keys, for people.
    """

    name: str
    unet: CharacterViewsUNet
    vae: Any
    vision: Any
    processor: ImageProcessor
    embedding_noise: EmbeddingNoise
    text: Float[Tensor, "2 view token feature"]
    schedule: DdimSchedule
    report: str = ""

    def __post_init__(self) -> None:
        width, classes = int(self.vision.config.projection_dim), self.unet.class_channels
        if classes != 2 * width or width % LEVEL_SLOTS:
            raise ValueError(
                f"The UNet of '{self.name}' has a class vector of {classes} numbers, expected two "
                f"times the {width} of the image encoder (embedding and level); it belongs to "
                f"another model. StdGEN's is {LINK}."
            )
        if self.text.shape[3] != self.unet.token_width:
            raise ValueError(
                f"The UNet of '{self.name}' attends to tokens of width {self.unet.token_width}, "
                f"but the text encoder makes {self.text.shape[3]}."
            )

    @torch.no_grad()
    def embed(self, image: Float[Tensor, "1 height width 3"]) -> Float[Tensor, "1 feature"]:
        """CLIP's embedding of a picture 0..1, resized as published (corners aligned)."""
        assert self.processor.size_px is not None
        pixels = torch.nn.functional.interpolate(
            2 * image.permute(0, 3, 1, 2).float() - 1, self.processor.size_px, mode="bicubic",
            align_corners=True,
        )  # fmt: skip
        mean, std = (
            pixels.new_tensor(value)[:, None, None]
            for value in (self.processor.mean, self.processor.std)
        )
        normalized = ((pixels + 1) / 2 - mean) / std
        seen = normalized.to(self.vision.device, self.vision.dtype)
        return self.vision(pixel_values=seen).image_embeds.float()

    def class_vector(
        self, embedding: Float[Tensor, "1 feature"], level: str
    ) -> Float[Tensor, "1 class_channels"]:
        """What selects picture and level."""
        code = level_code(level, embedding.shape[1]).to(embedding)
        return torch.cat([embedding, code[None]], dim=1)


def level_code(level: str, channels: int) -> Float[Tensor, " {channels}"]:
    """The second half of the class vector: ones in the slot of the level, else zeros.

    Raises:
        ValueError: an unknown level, or channels that do not divide.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got '{level}'.")
    if channels % LEVEL_SLOTS:
        raise ValueError(f"{channels} channels do not divide into {LEVEL_SLOTS} levels.")
    code = torch.zeros(LEVEL_SLOTS, channels // LEVEL_SLOTS)
    code[LEVELS.index(level)] = 1.0
    return code.flatten()


def domain_prompts() -> list[str]:
    """The texts that select domain and view: normals of all views, then colours."""
    return [
        f"a rendering image of 3D models, {view} view, {domain} map."
        for domain in DOMAIN_WORDS
        for view in VIEW_WORDS
    ]


def load_character_views(
    folder: Path | str, *, dtype: torch.dtype = torch.float32
) -> CharacterViewsModel:
    """Model for inference, on the CPU; every key of the UNet must fit.

    Args:
        folder: see the module's head.
        dtype: of the UNet and the vision encoder.

    Raises:
        FileNotFoundError: the folder is missing or incomplete; the message names what.
        ValueError: a file is damaged or does not fit.
    """
    folder = Path(folder)
    require_folder(folder, ("unet", NORMALIZER), SCHEDULER)
    schedule, noise = read_schedule(folder / SCHEDULER), _read_embedding_noise(folder)
    config = read_json(folder / "unet" / "config.json").data
    unet = nn.Module.to(empty_views_unet(config), dtype)
    state = read_part_state(folder / "unet")
    fill_network(unet, state, f"unet of {folder.name}")
    vision: Any = read_network(folder / "image_encoder", PARTS["image_encoder"], dtype)
    text = encode_prompts(folder, domain_prompts())
    return CharacterViewsModel(
        name=folder.name,
        unet=unet,
        vae=read_network(folder / "vae", PARTS["vae"], codec_dtype(dtype)),
        vision=vision,
        processor=read_vision_processor(folder, vision),
        embedding_noise=noise,
        text=text.unflatten(0, (len(DOMAIN_WORDS), len(VIEW_WORDS))),
        schedule=schedule,
        report=f"unet: {len(state)} keys, all keys fit.",
    )


def empty_views_unet(config: Mapping[str, Any]) -> CharacterViewsUNet:
    """The UNet without values (on the meta device).

    Raises:
        ValueError: the configuration describes no UNet, or a variant of Era3D that is not this one.
    """
    for key, wanted in _EXPECTED.items():
        found = config.get(key, wanted)
        if found != wanted:
            raise ValueError(
                f"unet/config.json says {key} {found!r}, expected {wanted!r}: it belongs to "
                f"another multi-view model. StdGEN's is {LINK}."
            )
    classes = config.get("projection_class_embeddings_input_dim")
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(
            "unet/config.json names no projection_class_embeddings_input_dim, so the levels "
            "cannot be told to it; it belongs to another model."
        )
    plain = empty_unet(
        config, class_embed_type="projection", projection_class_embeddings_input_dim=classes
    )
    with torch.device("meta"):
        return CharacterViewsUNet(plain, NUM_VIEWS, int(config.get("num_regress_blocks", 3)))


def _read_embedding_noise(folder: Path) -> EmbeddingNoise:
    path = folder / NOISING / "scheduler_config.json"
    config = read_json(path, f"The model folder {folder} is not complete")
    state = read_part_state(folder / NORMALIZER)
    if set(state) != {"mean", "std"} or not bool((state["std"] > 0).all()):
        raise ValueError(
            f"{folder / NORMALIZER} must hold the tensors mean and std (positive), got "
            f"{', '.join(sorted(state)[:6])}; download it again."
        )
    # Only the betas count here; what such a file says of steps and predictions does not.
    kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    betas = {key: config.data[key] for key in kept if key in config.data}
    try:
        schedule = read_ddim_schedule(JsonObject(betas))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    first = float(schedule.alphas_cumprod()[0])
    return EmbeddingNoise(state["mean"].flatten(), state["std"].flatten(), first)
