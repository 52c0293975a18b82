"""Contains the networks of a small orbit model: made fresh, or with spatial layers taken over."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..networks.attention import attend
from ..networks.weights import read_weights

LOGGER = logging.getLogger(__name__)
VECTOR_CHANNELS = 1280
HEAD_WIDTH = 32


@dataclass(frozen=True)
class OrbitUNetParams:
    """Size of the networks.

    Attributes:
        widths: channels of the two levels; the lower one has attention.
        layers: residual blocks per level.
        token_width: of the picture's token.
        vision_width: of the vision encoder.
        vision_layers: of the vision encoder.
        vision_px: side of the picture that it sees; patches of 8.
    """

    widths: tuple[int, int] = (96, 160)
    layers: int = 1
    token_width: int = 128
    vision_width: int = 128
    vision_layers: int = 3
    vision_px: int = 64


def make_orbit_network(params: OrbitUNetParams, channels: int, size: int) -> Any:
    """A small fresh ``UNetSpatioTemporalConditionModel`` with attention at the lower level."""
    from diffusers import UNetSpatioTemporalConditionModel

    return UNetSpatioTemporalConditionModel(
        sample_size=size,
        in_channels=2 * channels,
        out_channels=channels,
        block_out_channels=params.widths,
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        layers_per_block=params.layers,
        num_attention_heads=tuple(max(width // HEAD_WIDTH, 1) for width in params.widths),
        cross_attention_dim=params.token_width,
        projection_class_embeddings_input_dim=VECTOR_CHANNELS,
    )


def make_orbit_vision(params: OrbitUNetParams) -> Any:
    """A small fresh ``CLIPVisionModelWithProjection``."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=params.vision_width,
            intermediate_size=4 * params.vision_width,
            num_hidden_layers=params.vision_layers,
            num_attention_heads=max(params.vision_width // HEAD_WIDTH, 1),
            image_size=params.vision_px,
            patch_size=8,
            projection_dim=params.token_width,
        )
    )


class Float32Attention:
    """diffusers' attention in single precision: gradients in bfloat16 are slow on the CPU."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Attention of one layer; masks are not used here."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        keys, values = attn.to_k(source), attn.to_v(source)
        made = attend(attn.to_q(hidden_states), keys, values, attn.heads)
        return attn.to_out[1](attn.to_out[0](made))


def take_over_spatial(unet: Any, folder: Path) -> None:
    """Copy the layers of a UNet of single pictures into the spatial part of a video UNet.

    Channels of the input that the other does not have begin at zero. Cross-attention keeps its
    random keys and values: it will look at something else.
    """
    state = read_weights(next(iter(sorted(folder.glob("*.safetensors"))), folder / "unet"))
    own = unet.state_dict()
    taken = {}
    for key, value in state.items():
        name = re.sub(r"(resnets\.\d+)\.", r"\1.spatial_res_block.", key)
        if name not in own or "attn2.to_k" in name or "attn2.to_v" in name:
            continue
        target = own[name]
        if key == "conv_in.weight":
            value = torch.cat([value, torch.zeros_like(target)[:, value.shape[1] :]], dim=1)
        if value.numel() != target.numel():
            raise ValueError(
                f"The UNet in {folder} has another size: {key} is {list(value.shape)}, expected "
                f"{list(target.shape)}."
            )
        taken[name] = value.to(target).reshape(target.shape)
    LOGGER.info("Took over %d of %d weights of %s.", len(taken), len(state), folder)
    unet.load_state_dict({**own, **taken})
