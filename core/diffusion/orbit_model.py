"""Contains orbit video models of the SV3D family: one picture to frames all round the object.

The UNet sees the noisy frames beside the latents of the picture, attends to CLIP's embedding of
the picture, and is told a pose per frame (`orbit_conditioning`). It predicts the velocity v of the
variance-preserving process with EDM's code 0.25 ln(sigma) for the noise level.

Reference: Voleti et al. 2024, "SV3D"; Blattmann et al. 2023, "Stable Video Diffusion".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..networks.image_processor import ImageProcessor
from ..networks.orbit_unet import OrbitUNet
from .adapters import ActiveAdapter, AdapterBank
from .image_codec import vae_latent_format
from .model import LatentFormat
from .orbit_conditioning import (
    ORBIT_ORDERS,
    VECTOR_CHANNELS,
    OrbitKind,
    OrbitOrder,
    OrbitPoses,
    embed_poses,
)
from .placement import Placement
from .schedules import expand_sigma, signal_scale
from .unet_network import clean_from_prediction

SV3D_FOV_Y_DEG = 33.8
SV3D_RADIUS = 4.0
FRAMES_PER_CHUNK = 4
SMALLEST_SPREAD, LARGEST_SPREAD = 0.1, 6.0
"""Of network latents of pictures: an even picture has little, and nothing has more."""


@dataclass(frozen=True)
class OrbitFacts:
    """What a model was made for.

    Attributes:
        kind: "p" is told the pose of each frame, "u" assumes an even orbit.
        num_frames: of its videos.
        size_px: width and height of the frames.
        order: where the given picture stands among the frames.
        sigma_range: smallest and largest noise level.
        steps: sampling steps.
        guidance: scale in the middle of the video; 1 at both ends.
        radius: distance of the cameras, in units of which an object has about 2; SV3D's is not
            published, this one suits objects that fill 0.8 of the frame.
        fov_y_deg: vertical field of view; SV3D's is not published either, 33.8 is in common use.
        elevation_deg: lowest and highest elevation it has seen.
    """

    kind: OrbitKind = "p"
    num_frames: int = 21
    size_px: int = 576
    order: OrbitOrder = "input last"
    sigma_range: tuple[float, float] = (0.002, 700.0)
    steps: int = 50
    guidance: float = 2.5
    radius: float = SV3D_RADIUS
    fov_y_deg: float = SV3D_FOV_Y_DEG
    elevation_deg: tuple[float, float] = (-10.0, 60.0)

    def __post_init__(self) -> None:
        if self.kind not in VECTOR_CHANNELS or self.order not in ORBIT_ORDERS:
            raise ValueError(f"Unknown kind {self.kind!r} or order {self.order!r} of an orbit.")
        low, high = self.sigma_range
        if not 0 < low < high or self.num_frames < 2 or self.steps < 1 or self.size_px < 8:
            raise ValueError(f"The facts of the orbit model are out of range: {self}.")
        if not self.radius > 0 or not 0 < self.fov_y_deg < 180:
            raise ValueError(f"The camera of the orbit model is out of range: {self}.")


@dataclass(frozen=True)
class OrbitCondition:
    """What the network is told besides the noisy frames.

    Attributes:
        tokens: embedding of the picture.
        picture: its latents as the image encoder gives them, not scaled.
        vectors: poses, see `orbit_conditioning`.
    """

    tokens: Float[Tensor, "batch token feature"]
    picture: Float[Tensor, "batch channel height width"]
    vectors: Float[Tensor, "batch frame vector"]

    def without_picture(self) -> OrbitCondition:
        """The "nothing" of guidance: the poses are kept."""
        return replace(
            self, tokens=torch.zeros_like(self.tokens), picture=torch.zeros_like(self.picture)
        )

    def joined(self, other: OrbitCondition) -> OrbitCondition:
        """Both, one batch behind the other."""
        return OrbitCondition(
            torch.cat([self.tokens, other.tokens]),
            torch.cat([self.picture, other.picture]),
            torch.cat([self.vectors, other.vectors]),
        )


@dataclass(frozen=True)
class OrbitModel:
    """The networks of an orbit model.

    Attributes:
        name: for messages.
        unet: the denoising network.
        vae: diffusers' ``AutoencoderKL``.
        vision: transformers' ``CLIPVisionModelWithProjection``.
        processor: pictures to the pixels of ``vision``.
        facts: what it was made for.
        report: keys, sizes, and what was ignored; lines for people.
        bank: LoRAs in the UNet.
        loras: those that act in this model.
    """

    name: str
    unet: OrbitUNet
    vae: Any
    vision: Any
    processor: ImageProcessor
    facts: OrbitFacts
    report: str = ""
    bank: AdapterBank | None = None
    loras: tuple[ActiveAdapter, ...] = field(default=())

    def __post_init__(self) -> None:
        channels, told = self.unet.channels, self.unet.vector_channels
        if self.latent_format.channels != channels:
            raise ValueError(
                f"The UNet of '{self.name}' makes latents of {channels} channels, its autoencoder "
                f"{self.latent_format.channels}; take the autoencoder that belongs to it."
            )
        if int(self.vision.config.projection_dim) != self.unet.token_width:
            raise ValueError(
                f"The UNet of '{self.name}' attends to tokens of width {self.unet.token_width}, "
                f"its vision encoder makes {self.vision.config.projection_dim}."
            )
        if told != VECTOR_CHANNELS[self.facts.kind]:
            raise ValueError(
                f"The UNet of '{self.name}' is told {told} numbers per frame; a model of kind "
                f"'{self.facts.kind}' has {VECTOR_CHANNELS[self.facts.kind]}."
            )

    @property
    def latent_format(self) -> LatentFormat:
        """Size and normalisation of the latents."""
        return vae_latent_format(self.vae)

    @property
    def multiple_px(self) -> int:
        """What the sides of the frames must be a multiple of."""
        return self.latent_format.downscale * self.unet.multiple

    def encode_tokens(self, images: Float[Tensor, "batch height width 3"]) -> Tensor:
        """CLIP's embedding of pictures 0..1, one token each."""
        pixels = self.processor(images).to(self.vision.device, self.vision.dtype)
        return self.vision(pixel_values=pixels).image_embeds.float()[:, None]

    def encode_picture(self, images: Float[Tensor, "batch height width 3"]) -> Tensor:
        """Latents of pictures 0..1 as the encoder gives them: its mode, not scaled."""
        pixels = images.permute(0, 3, 1, 2) * 2 - 1
        encoded = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype))
        return encoded.latent_dist.mode().float()

    def condition(
        self, images: Float[Tensor, "batch height width 3"], poses: OrbitPoses, place: Placement
    ) -> OrbitCondition:
        """Condition for the same orbit round the objects of some pictures."""
        place.prepare(self.vision)
        tokens = self.encode_tokens(images)
        place.prepare(self.vae)
        picture = self.encode_picture(images)
        vectors = embed_poses(poses, self.facts.kind)[None].expand(len(images), -1, -1)
        return OrbitCondition(tokens, picture.to(tokens), vectors.to(tokens))

    def clean_latents(
        self,
        latents: Float[Tensor, "batch frame channel height width"],
        sigma: Float[Tensor, " batch"],
        condition: OrbitCondition,
    ) -> Float[Tensor, "batch frame channel height width"]:
        """Predicted clean latents of frames in sigma form; gradients pass where they are on."""
        if self.bank is not None:
            self.bank.activate(self.loras)
        scaled = latents * signal_scale(expand_sigma(sigma, latents), "variance_preserving")
        beside = condition.picture[:, None].expand(-1, latents.shape[1], -1, -1, -1)
        sample = torch.cat([scaled, beside.to(scaled)], dim=2)
        weights = next(self.unet.parameters())
        velocity = self.unet(
            sample.to(weights), 0.25 * sigma.to(weights.device).float().log(),
            condition.tokens.to(weights), condition.vectors.to(weights),
        )  # fmt: skip
        return clean_from_prediction(latents, velocity.to(latents), sigma, "v_prediction")

    @torch.no_grad()
    def decode(
        self,
        latents: Float[Tensor, "frame channel height width"],
        on_chunk: Callable[[int], None] = lambda done: None,
    ) -> Float[Tensor, "frame image_height image_width 3"]:
        """Pictures 0..1 of network latents, a few frames at a time.

        Args:
            latents: see `latent_format`.
            on_chunk: told how many frames are done.
        """
        frames = []
        for part in latents.split(FRAMES_PER_CHUNK):
            encoded = self.latent_format.from_network(part.float())
            decoded = self.vae.decode(encoded.to(self.vae.device, self.vae.dtype)).sample
            frames.append((decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1))
            on_chunk(sum(len(frame) for frame in frames))
        return torch.cat(frames)


def require_latents_of(
    latents: Float[Tensor, "frame channel height width"], latent_format: LatentFormat, what: str
) -> None:
    """Check that network latents are those of an autoencoder, by channels and scale.

    Raises:
        ValueError: another number of channels, NaN, or a scale far from what was trained.
    """
    require_shape("latents", latents, None, None, None, None)
    if latents.shape[1] != latent_format.channels:
        raise ValueError(
            f"{what} takes latents of {latent_format.channels} channels, got {latents.shape[1]}: "
            "they come from a model with another autoencoder."
        )
    require_finite("latents", latents)
    spread = float(latents.float().std())
    if not SMALLEST_SPREAD <= spread <= LARGEST_SPREAD:
        raise ValueError(
            f"{what} takes latents with a spread of about 1, got {spread:.3g}: they are of "
            "another autoencoder, or have another scale than a KSampler's LATENT."
        )
