"""Contains the model that paints a character anew in A-pose, and its loading.

The folder is `StdGEN-canonicalize-1024` of the published weights: `unet`, `ref_unet`, `vae`,
`image_encoder`, `text_encoder`, `tokenizer`, `feature_extractor` and `scheduler-zerosnr`.

Reference: He et al. 2025, "StdGEN", Sec. 3.1; released program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..networks.image_processor import ImageProcessor
from ..networks.pose_networks import PoseNetworks
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
from .ddim import DdimSchedule
from .diffusers_files import read_json, read_network
from .image_codec import codec_dtype

PROMPT = "high quality, best quality"
SCHEDULER = "scheduler-zerosnr"
UNUSED = ("class_embedding.", "camera_embedding.")
"""Weights that were trained for several cameras; with one view nothing reads them."""


@dataclass(frozen=True)
class PoseCanonicalizer:
    """The networks of the model.

    Attributes:
        name: for messages.
        networks: both UNets.
        vae: diffusers' ``AutoencoderKL``.
        vision: transformers' ``CLIPVisionModelWithProjection``.
        processor: pictures to the pixels of CLIP.
        text: tokens of the empty prompt and of `PROMPT`.
        schedule: of the training noise.
        report: keys, and what was ignored, for people.
    """

    name: str
    networks: PoseNetworks
    vae: Any
    vision: Any
    processor: ImageProcessor
    text: Float[Tensor, "2 token feature"]
    schedule: DdimSchedule
    report: str = ""

    def __post_init__(self) -> None:
        width = self.networks.token_width
        if self.text.shape[2] != width or self.vision.config.projection_dim != width:
            raise ValueError(
                f"The UNets of '{self.name}' attend to tokens of width {width}, but the text "
                f"encoder makes {self.text.shape[2]} and the image encoder "
                f"{self.vision.config.projection_dim}; take all parts from one download of {LINK}."
            )

    @torch.no_grad()
    def encode_token(
        self, image: Float[Tensor, "1 height width 3"]
    ) -> Float[Tensor, "2 1 feature"]:
        """The painting UNet's only token: zeros for "nothing", and CLIP's embedding."""
        pixels = self.processor(image).to(self.vision.device, self.vision.dtype)
        embedding = self.vision(pixel_values=pixels).image_embeds.float()[:, None]
        return torch.cat([torch.zeros_like(embedding), embedding])


def load_pose_canonicalizer(
    folder: Path | str, *, dtype: torch.dtype = torch.float32
) -> PoseCanonicalizer:
    """Model for inference, on the CPU.

    Keys that only the training for several cameras needed are left out by name; those behind the
    last stored tokens of the reference net are not expected. All others must fit.

    Args:
        folder: see the module's head.
        dtype: of the UNets and the vision encoder.

    Raises:
        FileNotFoundError: the folder is missing or incomplete; the message names what.
        ValueError: a file is damaged or does not fit.
    """
    folder = Path(folder)
    require_folder(folder, ("unet", "ref_unet"), SCHEDULER)
    schedule = read_schedule(folder / SCHEDULER)
    config = read_json(folder / "unet" / "config.json").data
    networks = nn.Module.to(empty_pose_networks(config), dtype)
    lines = [
        _fill(networks.unet, folder / "unet"),
        _fill(networks.reference, folder / "ref_unet"),
    ]
    vision: Any = read_network(folder / "image_encoder", PARTS["image_encoder"], dtype)
    return PoseCanonicalizer(
        name=folder.name,
        networks=networks,
        vae=read_network(folder / "vae", PARTS["vae"], codec_dtype(dtype)),
        vision=vision,
        processor=read_vision_processor(folder, vision),
        text=encode_prompts(folder, ["", PROMPT]),
        schedule=schedule,
        report="\n".join(lines),
    )


def empty_pose_networks(config: Mapping[str, Any]) -> PoseNetworks:
    """Both UNets without values (on the meta device).

    Args:
        config: sizes; the published program overrides the channels to 4 in and 4 out.

    Raises:
        ValueError: the configuration describes no UNet, or one without attention at its end.
    """
    unet, reference = (empty_unet(config, in_channels=4, out_channels=4) for _ in range(2))
    return PoseNetworks(unet, reference)


def _fill(network: Any, part: Path) -> str:
    """Load one UNet; a line on its keys."""
    state = read_part_state(part)
    used = {key: value for key, value in state.items() if not key.startswith(UNUSED)}
    fill_network(network, used, f"{part.name} of {part.parent.name}")
    line = f"{part.name}: {len(used)} keys, all keys fit."
    left = len(state) - len(used)
    return f"{line} {left} keys of {' and '.join(UNUSED)} are not needed." if left else line
