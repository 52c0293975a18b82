"""Contains the Flux transformer seen as a denoiser: packing, position ids, velocity to x0.

The network predicts v = noise - x0 from x = (1 - sigma) x0 + sigma noise, so x0 = x - sigma v.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .controls import AppliedControl, add_residuals, full_residuals, guidance_input
from .model import Conditioning
from .placement import Placement
from .schedules import NUM_TRAIN_STEPS, Family, expand_sigma

PATCH = 2


def pack_latents(
    latents: Float[Tensor, "batch channel height width"],
) -> Float[Tensor, "batch token packed"]:
    """2x2 latent pixels per token, in the order channel, row, column.

    Raises:
        ValueError: an odd height or width.
    """
    batch, channels, height, width = latents.shape
    if height % PATCH or width % PATCH:
        raise ValueError(
            f"Flux needs latents of even height and width, got {height} x {width}; choose an "
            "image size that is a multiple of 16 pixels."
        )
    grid = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack_latents(
    tokens: Float[Tensor, "batch token packed"], height: int, width: int
) -> Float[Tensor, "batch channel height width"]:
    """Inverse of `pack_latents`."""
    batch = tokens.shape[0]
    grid = tokens.reshape(batch, height // PATCH, width // PATCH, -1, PATCH, PATCH)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, height, width)


def image_ids(height: int, width: int) -> Float[Tensor, "token 3"]:
    """Positions (0, row, column) of the tokens of ``height`` x ``width`` latent pixels."""
    rows, columns = torch.meshgrid(
        torch.arange(height // PATCH), torch.arange(width // PATCH), indexing="ij"
    )
    ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1)
    return ids.reshape(-1, 3).float()


@dataclass(frozen=True)
class FluxNetwork:
    """A FluxTransformer2DModel as a denoiser.

    Attributes:
        network: the transformer.
        default_guidance: distilled guidance where the conditioning names none.
    """

    network: Any
    default_guidance: float = 3.5

    architecture = "Flux"
    folder = "transformer"
    family: Family = "rectified_flow"
    sigma_range = (1 / NUM_TRAIN_STEPS, 1.0)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the network."""
        return next(self.network.parameters()).dtype

    def picture_kind(self, network: Any) -> str:
        """What a ControlNet wants to see: "latents", or "pixels" when it has an own encoder."""
        return "latents" if network.input_hint_block is None else "pixels"

    def clean_latents(
        self,
        latents: Float[Tensor, "batch channel height width"],
        sigma: Float[Tensor, " batch"],
        conditioning: Conditioning,
        controls: Sequence[AppliedControl],
        placement: Placement,
    ) -> Float[Tensor, "batch channel height width"]:
        """Predicted clean latents, in the type of the latents."""
        height, width = latents.shape[-2:]
        double, single = self._residuals(latents, sigma, conditioning, controls, placement)
        placement.prepare(self.network)
        velocity = self.network(
            **self._inputs(self.network, latents, sigma, conditioning),
            controlnet_block_samples=double,
            controlnet_single_block_samples=single,
            return_dict=False,
        )[0]
        velocity = unpack_latents(velocity.to(latents.dtype), height, width)
        return latents - expand_sigma(sigma, latents) * velocity

    def _inputs(
        self, network: Any, latents: Tensor, sigma: Tensor, conditioning: Conditioning
    ) -> dict[str, Any]:
        """What both the transformer and its ControlNets are told, in the network's type."""
        if conditioning.pooled is None:
            raise ValueError("A Flux model needs a pooled vector; encode the prompt with it.")
        height, width = latents.shape[-2:]
        device, dtype = latents.device, next(network.parameters()).dtype
        guidance = conditioning.guidance
        guidance = self.default_guidance if guidance is None else guidance
        return {
            "hidden_states": pack_latents(latents).to(dtype),
            "timestep": sigma.to(device, dtype),
            "guidance": guidance_input(network, guidance, latents.shape[0], device),
            "encoder_hidden_states": conditioning.tokens.to(device, dtype),
            "pooled_projections": conditioning.pooled.to(device, dtype),
            "txt_ids": torch.zeros(conditioning.tokens.shape[1], 3, device=device),
            "img_ids": image_ids(height, width).to(device),
        }

    def _residuals(
        self,
        latents: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        controls: Sequence[AppliedControl],
        placement: Placement,
    ) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """Sums of the residuals of all controls for the double and the single blocks."""
        double: list[Tensor] | None = None
        single: list[Tensor] | None = None
        for applied in controls:
            network = applied.network
            placement.prepare(network)
            inputs = self._inputs(network, latents, sigma, conditioning)
            cycled = self.picture_kind(network) == "pixels"
            picture = applied.picture.to(inputs["hidden_states"])
            first, second = network(
                **inputs,
                controlnet_cond=picture if cycled else pack_latents(picture),
                controlnet_mode=_mode_input(applied.control.mode, picture),
                conditioning_scale=applied.control.scale,
                return_dict=False,
            )
            blocks = len(self.network.transformer_blocks)
            double = add_residuals(double, full_residuals(first, blocks, cycled=cycled))
            blocks = len(self.network.single_transformer_blocks)
            single = add_residuals(single, full_residuals(second, blocks, cycled=False))
        return double, single


def _mode_input(mode: int | None, picture: Tensor) -> Tensor | None:
    if mode is None:
        return None
    return torch.full((picture.shape[0], 1), mode, device=picture.device, dtype=torch.long)
