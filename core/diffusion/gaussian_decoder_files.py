"""Contains the folder of a Gaussian decoder, its facts, and the model that is loaded from it.

A folder holds ``decoder.json`` (sizes and facts), ``decoder.safetensors``, and, for decoders that
look at the picture, ``image_encoder``: a DINOv2 of transformers, published or trained along. A
folder beside it, or an embedded one, may be named instead (``image_encoder`` in the facts).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..formats.atomic import atomic_write
from ..formats.json_fields import JsonObject
from ..networks.gaussian_decoder import (
    GaussianDecoder,
    GaussianDecoderParams,
    decoder_params_from,
)
from ..networks.image_processor import ImageProcessor
from ..networks.vision_encoder import IMAGE_MEAN, IMAGE_STD
from ..networks.weights import load_weights, read_weights
from .diffusers_files import freeze, has_weights, read_json, read_network
from .embedded import embedded_path
from .model import LatentFormat
from .placement import plain_tensors

FACTS_FILE = "decoder.json"
WEIGHTS_FILE = "decoder.safetensors"
VISION_FOLDER = "image_encoder"
VISION_CLASS = "Dinov2Model"
VISION_LINK = "https://huggingface.co/facebook/dinov2-base"


@dataclass(frozen=True)
class DecoderFacts:
    """What a decoder was trained with.

    Attributes:
        num_frames: views of an object; others are possible.
        latent_px: side of the latents.
        downscale: image pixels per latent pixel.
        latent_scale: decoder latents = (encoder latents - latent_shift) * latent_scale, as the
            diffusion model's.
        latent_shift: see there.
        radius: distance of the cameras.
        fov_y_deg: their vertical field of view.
        elevation_deg: lowest and highest camera.
        vision_px: side of the picture that the image encoder sees.
    """

    num_frames: int = 16
    latent_px: int = 72
    downscale: int = 8
    latent_scale: float = 0.18215
    latent_shift: float = 0.0
    radius: float = 4.0
    fov_y_deg: float = 33.8
    elevation_deg: tuple[float, float] = (-5.0, 30.0)
    vision_px: int = 224


@dataclass(frozen=True)
class GaussianDecoderModel:
    """A decoder with its image encoder.

    Attributes:
        name: for messages.
        network: the decoder.
        vision: transformers' ``Dinov2Model``; None for a decoder that does not look at the picture.
        facts: what it was trained with.
        report: sizes, for people.
    """

    name: str
    network: GaussianDecoder
    vision: Any | None
    facts: DecoderFacts
    report: str = ""

    def __post_init__(self) -> None:
        width = self.network.params.context_dim
        found = 0 if self.vision is None else int(self.vision.config.hidden_size)
        if found != width:
            raise ValueError(
                f"The decoder '{self.name}' attends to features of width {width}, but its image "
                f"encoder makes {found or 'none'}; take the one that it was trained with."
            )

    @property
    def params(self) -> GaussianDecoderParams:
        """Sizes of the decoder."""
        return self.network.params

    @property
    def latent_format(self) -> LatentFormat:
        """Size and normalisation of its latents."""
        facts = self.facts
        return LatentFormat(
            self.params.latent_channels, facts.downscale, facts.latent_scale, facts.latent_shift
        )

    def features(
        self, images: Float[Tensor, "batch height width 3"]
    ) -> Float[Tensor, "batch token feature"] | None:
        """The picture's features (class token first); None for a decoder that takes none.

        Reference: GSV3D, Eq. 1.
        """
        if self.vision is None:
            return None
        return encode_features(self.vision, images, self.facts.vision_px)


def encode_features(
    vision: Any, images: Float[Tensor, "batch height width 3"], side_px: int
) -> Float[Tensor, "batch token feature"]:
    """Tokens of pictures 0..1 by a DINOv2, resized to ``side_px``."""
    processor = ImageProcessor(size_px=(side_px, side_px), mean=IMAGE_MEAN, std=IMAGE_STD)
    weights = next(vision.parameters())
    tokens = vision(pixel_values=processor(images).to(weights)).last_hidden_state
    return tokens.float()


def make_decoder_vision(
    width: int, *, side_px: int, patch_px: int = 8, layers: int = 3, head_dim: int = 32
) -> Any:
    """A small fresh DINOv2, to be trained along with a decoder."""
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(
        Dinov2Config(
            hidden_size=width, num_hidden_layers=layers, image_size=side_px, patch_size=patch_px,
            num_attention_heads=max(width // head_dim, 1),
        )
    )  # fmt: skip


def load_gaussian_decoder(
    path: Path | str, *, dtype: torch.dtype = torch.float32
) -> GaussianDecoderModel:
    """Decoder for inference, on the CPU.

    Args:
        path: a folder, or the name of an embedded decoder.
        dtype: of the decoder and its image encoder.

    Raises:
        FileNotFoundError: files are missing; the message names them.
        ValueError: they are damaged, or the weights have another size than the facts say.
    """
    folder = _find(path)
    index = read_json(folder / FACTS_FILE, f"{folder} is no Gaussian decoder")
    params = decoder_params_from(index.child("decoder").data)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} lacks {WEIGHTS_FILE}; copy the whole folder.")
    with plain_tensors():
        with torch.device("meta"):
            network = GaussianDecoder(params)
        network.to(dtype)
        load_weights(network, read_weights(weights), name=f"{folder.name}/{WEIGHTS_FILE}")
    vision = _read_vision(folder, index, dtype) if params.context_dim else None
    count = sum(value.numel() for value in network.parameters())
    facts = read_facts(index)
    return GaussianDecoderModel(
        name=folder.name,
        network=freeze(network),  # type: ignore[arg-type]
        vision=vision,
        facts=facts,
        report=f"{folder.name}: {count:,} parameters, {params.num_layers} layers, trained on "
        f"{facts.num_frames} views of {facts.latent_px * facts.downscale} pixels; all keys fit.",
    )


def save_gaussian_decoder(
    folder: Path, network: GaussianDecoder, vision: Any | None, facts: DecoderFacts, **more: Any
) -> None:
    """Write a decoder's folder, weights in half precision.

    Args:
        folder: made when missing.
        network: the decoder.
        vision: its image encoder; None leaves that to the user (a published DINOv2), or there is
            none.
        facts: what it was trained with.
        more: further entries of ``decoder.json``, such as the run's settings.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().half() for key, value in network.state_dict().items()}
    with atomic_write(folder / WEIGHTS_FILE) as temporary:
        save_file(state, temporary, {"format": "pt"})
    if vision is not None:
        vision.half().save_pretrained(folder / VISION_FOLDER)
        vision.float()
    content = {
        "decoder": dataclasses.asdict(network.params),
        "facts": dataclasses.asdict(facts),
        **more,
    }
    with atomic_write(folder / FACTS_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def read_facts(index: JsonObject) -> DecoderFacts:
    """Facts of a ``decoder.json``; what it omits is as for SV3D."""
    usual, found = DecoderFacts(), index.child("facts")
    low, high = found.numbers("elevation_deg", 2, usual.elevation_deg)
    return DecoderFacts(
        num_frames=found.integer("num_frames", usual.num_frames),
        latent_px=found.integer("latent_px", usual.latent_px),
        downscale=found.integer("downscale", usual.downscale),
        latent_scale=found.number("latent_scale", usual.latent_scale),
        latent_shift=found.number("latent_shift", usual.latent_shift),
        radius=found.number("radius", usual.radius),
        fov_y_deg=found.number("fov_y_deg", usual.fov_y_deg),
        elevation_deg=(low, high),
        vision_px=found.integer("vision_px", usual.vision_px),
    )


def _find(path: Path | str) -> Path:
    found = Path(path)
    if found.exists():
        return found
    embedded = embedded_path(str(path))
    if embedded is not None:
        return embedded
    raise FileNotFoundError(
        f"There is no Gaussian decoder at {path}. None is published; train one by "
        "'run.py train gs-decoder CONFIG', or use Orbit To Splat, which needs none."
    )


def _read_vision(folder: Path, index: JsonObject, dtype: torch.dtype) -> Any:
    own = folder / VISION_FOLDER
    if not (own / "config.json").is_file() or not has_weights(own):
        name = index.text(VISION_FOLDER, "")
        wanted = f" ({name})" if name else ""
        raise FileNotFoundError(
            f"The decoder in {folder} looks at the picture by a DINOv2{wanted}, which is missing: "
            f"put config.json and model.safetensors of {VISION_LINK} into {own}."
        )
    return read_network(own, VISION_CLASS, dtype)
