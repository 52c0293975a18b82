"""Contains what both models of characters do with their picture: checks, features, latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..diffusion.image_codec import ImageCodec, vae_latent_format
from ..diffusion.placement import Placement
from .character_framing import HEIGHT_PX

HEIGHT_STEP_PX = 128
EVEN_PICTURE = 1e-3
"""Two values that differ by less than this on all pixels show nothing."""


def require_sampling(steps: int, guidance: float, seed: int, height_px: int) -> None:
    """Raise ValueError unless settings of a run make sense."""
    if steps < 1 or seed < 0 or not guidance >= 0:
        raise ValueError(
            "steps must be at least 1, seed and guidance not negative, got "
            f"{steps}, {seed} and {guidance}."
        )
    if height_px < HEIGHT_STEP_PX or height_px % HEIGHT_STEP_PX:
        raise ValueError(
            f"height_px must be a multiple of {HEIGHT_STEP_PX}, got {height_px}; "
            f"{HEIGHT_PX} is what the model was made for."
        )


def require_character(image: Float[Tensor, "height width 3"]) -> None:
    """Raise ValueError unless a picture shows something."""
    require_shape("image", image, None, None, 3)
    require_finite("image", image)
    if float(image.max() - image.min()) < EVEN_PICTURE:
        raise ValueError("The picture is one even colour: there is no character in it.")


@dataclass(frozen=True)
class SeenPicture:
    """A picture as a model of characters sees it.

    Attributes:
        codec: of the autoencoder; its preview is fitted.
        features: what the vision encoder says of the picture.
        latents: of the picture.
    """

    codec: ImageCodec
    features: Tensor
    latents: Float[Tensor, "1 channel latent_height latent_width"]


@torch.no_grad()
def see_picture(
    picture: Float[Tensor, "1 height width 3"],
    *,
    vae: Any,
    vision: Any,
    embed: Callable[[Tensor], Tensor],
    placement: Placement,
) -> SeenPicture:
    """Read a picture with vision encoder and autoencoder, each on its device while it is needed.

    Args:
        picture: at the size that is sampled, sRGB 0..1.
        vae: diffusers' ``AutoencoderKL``.
        vision: encoder that ``embed`` asks.
        embed: picture to features.
        placement: brings the networks to their device.
    """
    latent_format = vae_latent_format(vae)
    codec = ImageCodec(vae, latent_format, placement, latent_format.downscale)
    placement.prepare(vision)
    features = embed(picture)
    latents = codec.encode(picture)
    codec.preview(latents)  # fits the preview while the autoencoder is at hand
    return SeenPicture(codec, features, latents)
