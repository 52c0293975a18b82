"""Contains reference attention: a UNet looks at the features that it has of another picture.

A pass over the reference ("write") keeps what enters each self-attention; in the pass over the
noisy latents ("read") every self-attention also looks at what was kept for the same layer. No
weights are added, so published UNets keep their layout.

Reference: Zhang 2023, "reference-only" control; Shi et al. 2023, "Zero123++", Sec. 2.3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

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


def add_reference_attention(unet: Any) -> ReferenceBank:
    """Let all self-attentions of a diffusers UNet take part; the UNet is changed in place."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    bank = ReferenceBank()
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
