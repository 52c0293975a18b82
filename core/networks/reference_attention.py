"""Contains reference attention: a UNet looks at the features that it has of another picture.

A pass over the reference ("write") keeps what enters each self-attention; in the pass over the
noisy latents ("read") every self-attention also looks at what was kept for the same layer. No
weights are added, so published UNets keep their layout. Both passes go through one UNet
(Zero123++), or the first through a UNet of its own (a "reference net") with the same layers.

Reference: Zhang 2023, "reference-only" control; Shi et al. 2023, "Zero123++", Sec. 2.3; Hu et al.
2024, "Animate Anyone", Sec. 3.2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .attention import attend

Pass = Literal["off", "write", "read"]
SELF_ATTENTION = "attn1.processor"
"""How diffusers' names of self-attentions end."""


class ReferenceBank:
    """Features of the reference by layer, and which pass is running."""

    def __init__(self) -> None:
        self.features: dict[str, Tensor] = {}
        self.current: Pass = "off"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Block in which the layers store what they see; what they stored before is gone."""
        self.features.clear()
        with self._running("write"):
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Block in which the layers also look at what was stored; afterwards it is gone."""
        try:
            with self._running("read"):
                yield
        finally:
            self.features.clear()

    @contextlib.contextmanager
    def _running(self, name: Pass) -> Iterator[None]:
        self.current = name
        try:
            yield
        finally:
            self.current = "off"


class ReferenceAttention:
    """Attention processor of one self-attention layer of a diffusers UNet."""

    def __init__(self, name: str, bank: ReferenceBank):
        self.name = name
        self.bank = bank

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "batch token dim"],
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, "batch token dim"]:
        """Self-attention by the layer ``attn``; the argument names are those of diffusers."""
        context = hidden_states
        if self.bank.current == "write":
            self.bank.features[self.name] = hidden_states
        elif self.bank.current == "read":
            context = torch.cat([hidden_states, self._stored()], dim=1)
        attended = attend(
            attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context), attn.heads
        )
        return attn.to_out[0](attended)

    def _stored(self) -> Tensor:
        stored = self.bank.features.get(self.name)
        if stored is None:
            raise ValueError(
                f"No features of the reference are stored for layer '{self.name}': run the UNet "
                "inside `ReferenceBank.writing` before `reading`."
            )
        return stored


class ReferenceTail(nn.Module):
    """What is left of the last transformer block of a network that is only looked at.

    The block keeps its layer norm, whose output is stored; the rest would change nothing that is
    seen, and published reference nets lack its weights.
    """

    def __init__(self, norm1: nn.Module, name: str, bank: ReferenceBank):
        super().__init__()
        self.norm1 = norm1
        self.name = name
        self.bank = bank

    def forward(
        self, hidden_states: Float[Tensor, "batch token dim"], *args: Any, **settings: Any
    ) -> Float[Tensor, "batch token dim"]:
        """The tokens as they came; further arguments of diffusers' blocks are not used."""
        if self.bank.current == "write":
            self.bank.features[self.name] = self.norm1(hidden_states)
        return hidden_states


def add_reference_attention(unet: Any, bank: ReferenceBank | None = None) -> ReferenceBank:
    """Let all self-attentions of a diffusers UNet take part; the UNet is changed in place.

    Args:
        unet: of diffusers.
        bank: shared with another UNet; None makes one.
    """
    from diffusers.models.attention_processor import AttnProcessor2_0

    bank = ReferenceBank() if bank is None else bank
    processors = {
        name: ReferenceAttention(name, bank)
        if name.endswith(SELF_ATTENTION)
        else AttnProcessor2_0()
        for name in unet.attn_processors
    }
    if not any(name.endswith(SELF_ATTENTION) for name in processors):
        raise ValueError("This UNet has no self-attention that could look at a reference.")
    unet.set_attn_processor(processors)
    return bank


def cut_tail(unet: Any, bank: ReferenceBank) -> None:
    """Make a diffusers UNet a reference net: nothing behind its last stored tokens; in place.

    Raises:
        ValueError: its last block has no self-attention.
    """
    last = len(unet.up_blocks) - 1
    block = unet.up_blocks[last]
    layers = getattr(block, "attentions", None)
    if not layers:
        raise ValueError(
            f"The last block of this UNet ({type(block).__name__}) has no attention, "
            "so it cannot be a reference net."
        )
    blocks = layers[-1].transformer_blocks
    index = len(blocks) - 1
    name = (
        f"up_blocks.{last}.attentions.{len(layers) - 1}.transformer_blocks.{index}.{SELF_ATTENTION}"
    )
    blocks[index] = ReferenceTail(blocks[index].norm1, name, bank)
    layers[-1].proj_out = nn.Identity()
    unet.conv_norm_out, unet.conv_out = None, nn.Identity()
