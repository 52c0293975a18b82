"""Contains Zero123++: a diffusion model that draws several views of the object in one picture.

A UNet of Stable Diffusion 2's size paints all views as tiles of one picture. It sees the given
picture in two ways: by reference attention to a noised copy of it, and by CLIP's embedding, which
is added to the tokens of the empty prompt, each token with its own weight (the ramp).

Kiss3DGen's FlexGen is the same network with other weights and other views.

Reference: Shi et al. 2023, "Zero123++", Sec. 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .image_processor import ImageProcessor
from .reference_attention import add_reference_attention

Prediction = Literal["v_prediction", "epsilon"]

# Pictures are darkened before the image encoder and its latents shifted, so that the noisiest
# training level hides them better (Shi et al. 2023, Sec. 2.2).
IMAGE_SCALE = 0.5 / 0.8
LATENT_SHIFT = 0.22
LATENT_SCALE = 0.75


@dataclass(frozen=True)
class NoiseSchedule:
    """What a `scheduler_config.json` says of the training noise.

    Attributes:
        num_train_steps: number of timesteps.
        beta_start: smallest beta.
        beta_end: largest beta.
        spacing: "linear" (Zero123++) or "scaled_linear" (Stable Diffusion).
        prediction: what the UNet predicts.
    """

    num_train_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    spacing: Literal["linear", "scaled_linear"] = "linear"
    prediction: Prediction = "v_prediction"

    def __post_init__(self) -> None:
        choices = {
            "beta_schedule": (self.spacing, ("linear", "scaled_linear")),
            "prediction_type": (self.prediction, ("v_prediction", "epsilon")),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, got {value!r}.")


class Zero123Plus:
    """The networks of a model of this family.

    Attributes:
        unet: diffusers' `UNet2DConditionModel`.
        vae: diffusers' `AutoencoderKL`.
        vision: transformers' `CLIPVisionModelWithProjection`.
        empty_tokens: embedding of the empty prompt.
        ramp: weight of the picture's embedding for each token.
        vae_processor: pictures to the pixels of the image encoder.
        vision_processor: pictures to the pixels of CLIP.
        schedule: of the training noise.
    """

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        vision: Any,
        empty_tokens: Float[Tensor, "1 token feature"],
        ramp: Float[Tensor, " token"],
        vae_processor: ImageProcessor,
        vision_processor: ImageProcessor,
        schedule: NoiseSchedule,
    ) -> None:
        if ramp.shape[0] != empty_tokens.shape[1]:
            raise ValueError(
                f"The prompt has {empty_tokens.shape[1]} tokens, but there are {ramp.shape[0]} "
                "ramping coefficients."
            )
        width = int(unet.config.cross_attention_dim)
        if empty_tokens.shape[2] != width or vision.config.projection_dim != width:
            raise ValueError(
                f"The UNet attends to tokens of width {width}, but the text encoder makes "
                f"{empty_tokens.shape[2]} and the vision encoder {vision.config.projection_dim}."
            )
        self.unet, self.vae, self.vision = unet, vae, vision
        self.empty_tokens, self.ramp = empty_tokens, ramp
        self.vae_processor, self.vision_processor = vae_processor, vision_processor
        self.schedule = schedule
        self.bank = add_reference_attention(unet)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the UNet's weights."""
        return self.unet.dtype

    @property
    def downscale(self) -> int:
        """Image pixels per latent pixel along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def multiple_px(self) -> int:
        """What both sides of a picture must be a multiple of."""
        return self.downscale * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def encode_reference(
        self, image: Float[Tensor, "1 height width 3"]
    ) -> Float[Tensor, "2 channel latent_height latent_width"]:
        """Latents of the "nothing" of guidance (mid-grey) and of the picture, unscaled as trained.

        The released code draws them from the encoder's posterior; its mean is as good under the
        noise that is added to them, and repeatable.
        """
        pixels = self.vae_processor(image)
        both = torch.cat([torch.zeros_like(pixels), pixels]).to(self.vae.device, self.vae.dtype)
        return self.vae.encode(both).latent_dist.mode().float()

    def encode_tokens(
        self, image: Float[Tensor, "1 height width 3"]
    ) -> Float[Tensor, "2 token feature"]:
        """Tokens for "nothing" (the empty prompt) and for the picture."""
        pixels = self.vision_processor(image).to(self.vision.device, self.vision.dtype)
        embedding = self.vision(pixel_values=pixels).image_embeds.float()[:, None]
        empty = self.empty_tokens.to(embedding)
        return torch.cat([empty, empty + embedding * self.ramp.to(embedding)[:, None]])

    def predict(
        self,
        scaled: Float[Tensor, "batch channel height width"],
        timestep: int,
        tokens: Float[Tensor, "batch token feature"],
        reference: Float[Tensor, "batch channel reference_height reference_width"],
    ) -> Float[Tensor, "batch channel height width"]:
        """What the UNet predicts for noisy latents, given equally noisy latents of the picture.

        Args:
            scaled: latents times a = 1 / sqrt(1 + sigma^2).
            timestep: 0..num_train_steps - 1.
            tokens: see `encode_tokens`.
            reference: latents of the picture at the same noise level, scaled alike.
        """
        device, dtype = self.unet.device, self.dtype
        step = torch.tensor(timestep, device=device)
        text = tokens.to(device, dtype)
        with self.bank.writing():
            self.unet(reference.to(device, dtype), step, encoder_hidden_states=text)
        with self.bank.reading():
            made = self.unet(scaled.to(device, dtype), step, encoder_hidden_states=text).sample
        return made.to(scaled)

    def encode(
        self, pictures: Float[Tensor, "batch image_height image_width 3"]
    ) -> Float[Tensor, "batch channel height width"]:
        """The UNet's latents of pictures 0..1; the inverse of `decode`."""
        pixels = (2 * pictures.permute(0, 3, 1, 2) - 1) * IMAGE_SCALE
        encoded = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mode()
        return (encoded.float() * self.vae.config.scaling_factor - LATENT_SHIFT) * LATENT_SCALE

    def decode(
        self, latents: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch image_height image_width 3"]:
        """Pictures 0..1 of the UNet's latents."""
        encoded = (latents / LATENT_SCALE + LATENT_SHIFT) / self.vae.config.scaling_factor
        decoded = self.vae.decode(encoded.to(self.vae.device, self.vae.dtype)).sample.float()
        pictures = decoded / IMAGE_SCALE / 2 + 0.5
        return pictures.clamp(0, 1).permute(0, 2, 3, 1)
