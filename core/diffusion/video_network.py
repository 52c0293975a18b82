"""Contains Stable Video Diffusion seen as a denoiser of the frames of one video.

Symbols: s the noise level. The network sees x / sqrt(1 + s^2) beside the latents of the picture,
the time ln(s) / 4, and predicts v = (eps - s x0) / sqrt(1 + s^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..networks.image_processor import ImageProcessor
from .controls import AppliedControl
from .image_codec import ImageCodec
from .model import Conditioning
from .placement import Placement
from .schedules import Family, expand_sigma, signal_scale
from .unet_network import clean_from_prediction

PICTURE = "image_latents"
FRAMES = "frames"
FRAMES_PER_SECOND = 7
MOTION_BUCKET = 127


@dataclass(frozen=True)
class VideoNetwork:
    """A UNetSpatioTemporalConditionModel as a denoiser.

    The batch holds the frames of a video after each other (several videos for the branches of
    guidance); ``Conditioning.extras["frames"]`` is their number.

    Attributes:
        network: the UNet.
        motion_bucket: amount of motion, 1..255.
    """

    network: Any
    motion_bucket: int = MOTION_BUCKET

    architecture = "Stable Video Diffusion"
    folder = "unet"
    family: Family = "variance_preserving"
    sigma_range = (0.002, 700.0)

    def picture_kind(self, network: Any) -> str:
        """There are no ControlNets for this kind of model."""
        raise ValueError(f"{self.architecture} takes no ControlNets; take the controls off.")

    def clean_latents(
        self,
        latents: Float[Tensor, "batch channel height width"],
        sigma: Float[Tensor, " batch"],
        conditioning: Conditioning,
        controls: Sequence[AppliedControl],
        placement: Placement,
    ) -> Float[Tensor, "batch channel height width"]:
        """Predicted clean latents, in the type of the latents.

        Raises:
            ValueError: no picture, or a batch that is no whole number of videos.
        """
        frames = self._frames(conditioning, len(latents))
        placement.prepare(self.network)
        dtype = next(self.network.parameters()).dtype
        scaled = latents * signal_scale(expand_sigma(sigma, latents), self.family)
        seen = torch.cat([scaled, conditioning.extras[PICTURE].to(scaled)], dim=1).to(dtype)
        told = [FRAMES_PER_SECOND - 1, self.motion_bucket, 0.0]  # no noise on the picture
        predicted = self.network(
            seen.unflatten(0, (-1, frames)),
            sigma[::frames].log().to(latents.device, dtype) / 4,
            encoder_hidden_states=conditioning.tokens[::frames].to(latents.device, dtype),
            added_time_ids=seen.new_tensor([told]).expand(len(latents) // frames, -1),
            return_dict=False,
        )[0].flatten(0, 1)
        return clean_from_prediction(latents, predicted.to(latents.dtype), sigma, "v_prediction")

    def _frames(self, conditioning: Conditioning, batch: int) -> int:
        if PICTURE not in conditioning.extras:
            raise ValueError(
                f"{self.architecture} needs a picture: give it one by an image prompt, with "
                "strength 0 for the unconditional branch."
            )
        frames = int(conditioning.extras[FRAMES])
        if batch % frames:
            raise ValueError(
                f"A batch of {batch} latents is no whole number of videos of {frames} frames; make "
                f"{frames} latents, or set the conditioning's extras['{FRAMES}']."
            )
        return frames


@dataclass(frozen=True)
class VideoPrompt:
    """The picture that a video shows: one token of CLIP, and latents that every frame sees.

    Attributes:
        vision: CLIPVisionModelWithProjection.
        processor: resizes and normalises pictures for it.
        codec: encodes the picture; the video gets its size.
        frames: length of the videos.
    """

    vision: Any
    processor: ImageProcessor
    codec: ImageCodec
    frames: int

    @torch.no_grad()
    def append(
        self,
        conditioning: Conditioning,
        image: Float[Tensor, "1 height width 3"],
        strength: float,
        placement: Placement,
    ) -> Conditioning:
        """Conditioning with the picture; strength 0 is the unconditional branch, without it."""
        placement.prepare(self.vision)
        pixels = self.processor(image.to(placement.device))
        dtype = next(self.vision.parameters()).dtype
        token = strength * self.vision(pixel_values=pixels.to(dtype)).image_embeds[:, None]
        # The network was trained with the encoder's latents, without their scale.
        encoded = self.codec.latent_format.from_network(self.codec.encode(image))
        picture = encoded if strength else torch.zeros_like(encoded)
        extras = {**conditioning.extras, PICTURE: picture, FRAMES: self.frames}
        return replace(conditioning, tokens=token, extras=extras)
