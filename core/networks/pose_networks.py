"""Contains the two UNets of A-pose canonicalisation: one reads the picture, one paints the pose.

The reference net sees clean latents of the picture and the text; what enters its self-attentions is
looked at by those of the painting UNet, whose only token is CLIP's embedding of the picture.

Reference: He et al. 2025, "StdGEN", Sec. 3.1; Peng et al. 2024, "CharacterGen", Sec. 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .reference_attention import add_reference_attention, cut_tail


class PoseNetworks(nn.Module):
    """Both UNets; they take turns within a step and so lie on the device together.

    Args:
        unet: of diffusers, paints the character in A-pose; is changed in place.
        reference: of diffusers and of the same sizes, reads the picture; is changed in place. It
            loses what lies behind its last stored tokens.
    """

    def __init__(self, unet: Any, reference: Any) -> None:
        super().__init__()
        bank = add_reference_attention(unet)
        add_reference_attention(reference, bank)
        cut_tail(reference, bank)
        self.unet = unet
        self.reference = reference
        self.bank = bank

    @property
    def channels(self) -> int:
        """Of the latents."""
        return int(self.unet.config.in_channels)

    @property
    def token_width(self) -> int:
        """Width of the tokens that both attend to."""
        return int(self.unet.config.cross_attention_dim)

    def forward(
        self,
        latents: Float[Tensor, "batch channel height width"],
        timestep: int,
        tokens: Float[Tensor, "batch token feature"],
        picture: Float[Tensor, "batch channel picture_height picture_width"],
        text: Float[Tensor, "batch word feature"],
    ) -> Float[Tensor, "batch channel height width"]:
        """What the painting UNet predicts.

        Args:
            latents: noisy latents of the character in A-pose.
            timestep: of the training schedule; the reference net is told the same.
            tokens: embedding of the picture, or zeros.
            picture: clean latents of the picture.
            text: for the reference net.
        """
        weights = next(self.unet.parameters())
        step = torch.tensor(timestep, device=weights.device)
        with self.bank.writing():
            self.reference(picture.to(weights), step, encoder_hidden_states=text.to(weights))
        with self.bank.reading():
            made = self.unet(latents.to(weights), step, encoder_hidden_states=tokens.to(weights))
        return made.sample.to(latents)
