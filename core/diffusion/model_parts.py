"""Contains what all diffusers models derived from one set of weights share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from .adapters import AdapterBank
from .controls import AppliedControl
from .image_codec import ImageCodec
from .image_prompt import ImagePromptEncoder
from .model import Conditioning, ModelDefaults
from .placement import Placement
from .schedules import Family
from .text_encoding import TextEncoder


@runtime_checkable
class Backbone(Protocol):
    """A denoising network with its arithmetic (`FluxNetwork`, `UNetNetwork` ...)."""

    @property
    def network(self) -> Any:
        """Network of diffusers."""
        ...

    @property
    def architecture(self) -> str:
        """Name for messages; equal to that of fitting ControlNets."""
        ...

    @property
    def folder(self) -> str:
        """Name of the network's folder: "transformer" or "unet"."""
        ...

    @property
    def family(self) -> Family:
        """Which sigma form the latents have."""
        ...

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest noise level."""
        ...

    def picture_kind(self, network: Any) -> str:
        """What a ControlNet wants to see: "latents", "pixels" (-1..1) or "unit pixels" (0..1)."""
        ...

    def clean_latents(
        self,
        latents: Float[Tensor, "batch channel height width"],
        sigma: Float[Tensor, " batch"],
        conditioning: Conditioning,
        controls: Sequence[AppliedControl],
        placement: Placement,
    ) -> Float[Tensor, "batch channel height width"]:
        """Predicted clean latents, in the type of the latents."""
        ...


@dataclass(frozen=True)
class ModelParts:
    """What all models derived from one set of weights share.

    Attributes:
        name: of the folder or file.
        backbone: the denoising network.
        codec: images to latents and back.
        text: prompts to conditioning.
        placement: brings networks to the compute device.
        defaults: settings the model was made for.
        image_prompt: encoder of pictures that belongs to the model, or None.
        dtype: number type of further networks (ControlNets, image prompts).
        banks: LoRAs by the folder of the network they are in.
        pictures: condition pictures of controls as the networks see them, by picture and size.
    """

    name: str
    backbone: Backbone
    codec: ImageCodec
    text: TextEncoder
    placement: Placement
    defaults: ModelDefaults
    dtype: torch.dtype
    image_prompt: ImagePromptEncoder | None = None
    banks: dict[str, AdapterBank] = field(default_factory=dict)
    pictures: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)

    def bank(self, folder: str) -> AdapterBank:
        """The LoRAs of one network."""
        if folder not in self.banks:
            self.banks[folder] = AdapterBank(self.networks()[folder])
        return self.banks[folder]

    def networks(self) -> dict[str, nn.Module]:
        """Networks that a LoRA can change, by folder."""
        return {self.backbone.folder: self.backbone.network, **self.text.networks}
