"""Contains image prompts for Flux (Redux): a picture as tokens behind those of the text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..networks.image_processor import ImageProcessor, read_image_processor
from .diffusers_files import read_index, read_network, require_parts
from .model import Conditioning
from .placement import Placement

ENCODER_PARTS = {"image_encoder": "SiglipVisionModel", "image_embedder": "ReduxImageEncoder"}


@runtime_checkable
class ImagePromptEncoder(Protocol):
    """What lets a model take pictures as prompts."""

    def append(
        self,
        conditioning: Conditioning,
        image: Float[Tensor, "1 height width 3"],
        strength: float,
        placement: Placement,
    ) -> Conditioning:
        """Conditioning with the picture beside the text."""
        ...


@dataclass(frozen=True)
class ReduxEncoder:
    """SigLIP and the projection of its tokens to those of T5.

    Attributes:
        vision: SiglipVisionModel.
        embedder: ReduxImageEncoder.
        processor: resizes and normalises pictures; it does not rescale them, they are 0..1 already.
    """

    vision: Any
    embedder: Any
    processor: ImageProcessor

    @torch.no_grad()
    def append(
        self,
        conditioning: Conditioning,
        image: Float[Tensor, "1 height width 3"],
        strength: float,
        placement: Placement,
    ) -> Conditioning:
        """Conditioning with the picture's tokens, times ``strength``, behind the text's.

        Raises:
            ValueError: more than one picture, or an encoder for another width of tokens.
        """
        width = conditioning.tokens.shape[-1]
        if image.shape[0] != 1:
            raise ValueError(f"An image prompt is one picture, got {image.shape[0]}; choose one.")
        if self.width != width:
            raise ValueError(
                f"The image prompt encoder makes tokens of {self.width} channels, but the model's "
                f"have {width}; it belongs to another model."
            )
        tokens = strength * self.encode(image, placement)
        tokens = tokens.to(conditioning.tokens).expand(conditioning.batch, -1, -1)
        return replace(conditioning, tokens=torch.cat([conditioning.tokens, tokens], dim=1))

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.embedder.config.txt_in_features)

    def encode(
        self, image: Float[Tensor, "1 height width 3"], placement: Placement
    ) -> Float[Tensor, "1 token channel"]:
        """Tokens of a picture; 729 with the published encoder."""
        placement.prepare(self.vision)
        pixels = self.processor(image.to(placement.device))
        dtype = next(self.vision.parameters()).dtype
        tokens = self.vision(pixel_values=pixels.to(dtype)).last_hidden_state
        placement.prepare(self.embedder)
        return self.embedder(tokens).image_embeds


def load_redux(folder: Path, dtype: torch.dtype, *, link: str = "") -> ReduxEncoder:
    """Image prompt encoder of a folder in diffusers layout (FluxPriorReduxPipeline).

    Raises:
        FileNotFoundError: files are missing.
        ValueError: they are damaged or belong to another kind of model.
    """
    folder = Path(folder)
    index = read_index(folder)
    parts = {part: index.get(part, "") for part in ENCODER_PARTS}
    if parts != ENCODER_PARTS:
        raise ValueError(
            f"{folder} is no image prompt encoder for Flux (Redux): it needs the parts "
            f"{', '.join(ENCODER_PARTS)}, its index names {', '.join(index) or 'none'}."
        )
    require_parts(folder, parts, link)
    networks = {part: read_network(folder / part, kind, dtype) for part, kind in parts.items()}
    processor = read_image_processor(folder / "feature_extractor")
    return ReduxEncoder(networks["image_encoder"], networks["image_embedder"], processor)
