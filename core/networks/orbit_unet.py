"""Contains the denoising network of SV3D: diffusers' spatio-temporal UNet, told a pose per frame.

The forward pass of diffusers' class knows one vector per video; here each frame has its own.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class OrbitUNet(nn.Module):
    """A UNetSpatioTemporalConditionModel whose added embedding differs from frame to frame.

    Args:
        unet: of diffusers; its ``add_embedding`` takes the vectors as they are.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    @property
    def channels(self) -> int:
        """Of the latents."""
        return int(self.unet.config.out_channels)

    @property
    def vector_channels(self) -> int:
        """Numbers that each frame is told."""
        return int(self.unet.config.projection_class_embeddings_input_dim)

    @property
    def token_width(self) -> int:
        """Width of the tokens that it attends to."""
        return int(self.unet.config.cross_attention_dim)

    @property
    def multiple(self) -> int:
        """What the sides of the latents must be a multiple of."""
        return 2 ** (len(self.unet.config.block_out_channels) - 1)

    def forward(
        self,
        sample: Float[Tensor, "batch frame channels_in height width"],
        noise_code: Float[Tensor, " batch"],
        tokens: Float[Tensor, "batch token feature"],
        vectors: Float[Tensor, "batch frame vector"],
    ) -> Float[Tensor, "batch frame channels_out height width"]:
        """What the network predicts for each frame.

        Args:
            sample: scaled noisy latents and, behind them, the latents of the picture.
            noise_code: 0.25 ln(sigma).
            tokens: of the picture, the same for all frames.
            vectors: see `diffusion.orbit_conditioning`.
        """
        batch, frames = sample.shape[:2]
        unet, dtype = self.unet, sample.dtype
        time = unet.time_embedding(unet.time_proj(noise_code).to(dtype))
        told = unet.add_embedding(vectors.flatten(0, 1).to(dtype))
        embedding = time.repeat_interleave(frames, dim=0) + told
        context = tokens.to(dtype).repeat_interleave(frames, dim=0)
        still = torch.zeros(batch, frames, dtype=dtype, device=sample.device)
        shared = {"temb": embedding, "image_only_indicator": still}
        hidden = unet.conv_in(sample.flatten(0, 1))
        skipped = [hidden]
        for block in unet.down_blocks:
            hidden, passed = block(hidden, **shared, **_context_of(block, context))
            skipped += passed
        hidden = unet.mid_block(hidden, **shared, encoder_hidden_states=context)
        for block in unet.up_blocks:
            count = len(block.resnets)
            passed, skipped = tuple(skipped[-count:]), skipped[:-count]
            hidden = block(
                hidden, res_hidden_states_tuple=passed, **shared, **_context_of(block, context)
            )
        hidden = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
        return hidden.unflatten(0, (batch, frames))


def _context_of(block: Any, context: Tensor) -> dict[str, Tensor]:
    return (
        {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
    )
