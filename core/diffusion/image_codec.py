"""Contains the image encoder and decoder of diffusers models: images 0..1 to network latents."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .latent_preview import LatentPreview, fit_preview
from .model import LatentFormat
from .placement import Placement, ensure_plain


@dataclass(frozen=True)
class ImageCodec:
    """An AutoencoderKL with the normalisation of its latents.

    Attributes:
        vae: the autoencoder, in single precision or bfloat16 (half precision overflows in it).
        latent_format: size and normalisation of the latents.
        placement: brings it to its device.
        multiple_px: image sides must be multiples of this.
    """

    vae: Any
    latent_format: LatentFormat
    placement: Placement
    multiple_px: int

    def encode(
        self, images: Float[Tensor, "batch height width 3"]
    ) -> Float[Tensor, "batch channel latent_height latent_width"]:
        """Network latents, differentiable with respect to the images; the mode, not a sample.

        Raises:
            ValueError: a size that is no multiple of ``multiple_px``, or not three channels.
        """
        height, width, channels = images.shape[1:]
        if channels != 3 or height % self.multiple_px or width % self.multiple_px:
            raise ValueError(
                f"Images for this model need 3 channels and sides that are multiples of "
                f"{self.multiple_px} pixels, got {width} x {height} with {channels} channels."
            )
        self.placement.prepare(self.vae)
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            ensure_plain(self.vae)
        pixels = images.to(self.placement.device).movedim(-1, 1) * 2 - 1
        encoded = self.vae.encode(pixels.to(self._dtype)).latent_dist.mode()
        return self.latent_format.to_network(encoded.float())

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "batch channel latent_height latent_width"]
    ) -> Float[Tensor, "batch height width 3"]:
        """Images 0..1, in single precision."""
        self.placement.prepare(self.vae)
        encoded = self.latent_format.from_network(latents.to(self.placement.device).float())
        pixels = self.vae.decode(encoded.to(self._dtype), **self._frames(len(latents))).sample
        return (pixels.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    def preview(
        self, latents: Float[Tensor, "batch channel latent_height latent_width"]
    ) -> Float[Tensor, "height width 3"]:
        """Rough picture of the first entry, on the CPU."""
        return self._preview.render(latents[0].detach(), self.latent_format.downscale)

    @functools.cached_property
    def _preview(self) -> LatentPreview:
        with torch.no_grad():
            return fit_preview(self.encode, self.latent_format.downscale)

    @property
    def _dtype(self) -> torch.dtype:
        return next(value.dtype for value in self.vae.parameters())

    def _frames(self, count: int) -> dict[str, int]:
        """Decoders of video see all frames at once."""
        return {"num_frames": count} if hasattr(self.vae.decoder, "time_conv_out") else {}


def codec_dtype(dtype: torch.dtype) -> torch.dtype:
    """Number type of the autoencoder beside a network of ``dtype``."""
    return torch.float32 if dtype == torch.float16 else dtype


def vae_latent_format(vae: Any) -> LatentFormat:
    """Latent size and normalisation from an AutoencoderKL's configuration."""
    config = vae.config
    return LatentFormat(
        channels=int(config.latent_channels),
        downscale=2 ** (len(config.block_out_channels) - 1),
        scale=float(config.scaling_factor),
        shift=float(getattr(config, "shift_factor", None) or 0.0),
    )
