"""Contains ControlNets of diffusers models: the handle, reading the files, the encoded pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .model import Control

UNION_MODES: dict[str, int] = {
    "canny": 0, "tile": 1, "depth": 2, "blur": 3, "pose": 4, "gray": 5, "low quality": 6,
}  # fmt: skip
"""Modes of the published Flux union network by their true indices."""


SHARED_SIZES = ("cross_attention_dim", "joint_attention_dim", "pooled_projection_dim")
"""Sizes in the configurations that a ControlNet has in common with its model."""


@dataclass(frozen=True)
class ControlNetwork:
    """A loaded ControlNet; `Control.network` of diffusers models.

    Attributes:
        network: FluxControlNetModel or ControlNetModel.
        architecture: of the models it can steer: "Flux" or "Stable Diffusion".
        name: of the file, for messages.
        num_modes: modes of a union network, None for a network of one purpose.
    """

    network: nn.Module
    architecture: str
    name: str
    num_modes: int | None = None

    def require_mode(self, mode: int | None) -> None:
        """Check that the network has a mode.

        Raises:
            ValueError: it has not, or a union network is asked without a mode.
        """
        if self.num_modes is None:
            if mode is not None:
                raise ValueError(
                    f"'{self.name}' has no modes, but mode {mode}{_mode_name(mode)} was asked for; "
                    "set the mode to none, or load a union ControlNet."
                )
            return
        if mode is None or not 0 <= mode < self.num_modes:
            known = ", ".join(f"{n} {i}" for n, i in UNION_MODES.items() if i < self.num_modes)
            raise ValueError(
                f"'{self.name}' is a union ControlNet with modes 0..{self.num_modes - 1} "
                f"({known}), but mode {mode} was asked for; choose one of them."
            )

    def require_sizes(self, model: Any) -> None:
        """Check that the network was made for models of this size (SD 1.5 or SDXL, say).

        Raises:
            ValueError: it was not.
        """
        own: Any = self.network
        for key in SHARED_SIZES:
            wanted, found = model.config.get(key), own.config.get(key)
            if wanted != found and wanted is not None:
                raise ValueError(
                    f"ControlNet '{self.name}' does not fit this model: its {key} is {found}, the "
                    f"model's {wanted}; it belongs to another version of {self.architecture}."
                )


def _mode_name(mode: int) -> str:
    names = [name for name, index in UNION_MODES.items() if index == mode]
    return f" ({names[0]})" if names else ""


@dataclass(frozen=True)
class AppliedControl:
    """A control made ready for one call of the network.

    Attributes:
        control: what the user set.
        picture: its condition picture as the network wants it, one entry per latent.
    """

    control: Control
    picture: Float[Tensor, "batch channel height width"]

    @property
    def network(self) -> Any:
        """The network of diffusers."""
        return self.control.network.network


def require_fitting(controls: Sequence[Control], architecture: str) -> None:
    """Check that controls were loaded for this kind of model.

    Raises:
        ValueError: one was not.
    """
    for control in controls:
        network = control.network
        if not isinstance(network, ControlNetwork):
            raise ValueError(
                f"A control holds a {type(network).__name__}; load it with the loader of the "
                "diffusion model that it is used with."
            )
        if network.architecture != architecture:
            raise ValueError(
                f"ControlNet '{network.name}' is made for {network.architecture} models, but this "
                f"is a {architecture} model."
            )
        network.require_mode(control.mode)


def fit_picture(
    image: Float[Tensor, "image height width 3"],
    height_px: int,
    width_px: int,
) -> Float[Tensor, "image height_px width_px 3"]:
    """Picture resized to the size of the result if it has another one."""
    if image.shape[1:3] == (height_px, width_px):
        return image
    planes = functional.interpolate(
        image.movedim(-1, 1), (height_px, width_px), mode="bilinear", antialias=True
    )
    return planes.movedim(1, -1)


def repeat_entries(values: Tensor, batch: int) -> Tensor:
    """Entries repeated as a whole to fill a batch (the branches of guidance follow each other).

    Raises:
        ValueError: the batch is no multiple of their number.
    """
    count = values.shape[0]
    if batch % count:
        raise ValueError(
            f"A control has {count} pictures for a batch of {batch}; give one, or one per image."
        )
    return values.repeat(batch // count, *[1] * (values.ndim - 1))


def full_residuals(
    samples: Sequence[Tensor] | None, num_blocks: int, *, cycled: bool
) -> list[Tensor] | None:
    """A ControlNet's residuals, one per block of the model.

    A ControlNet has fewer blocks than its model. Its residuals are stretched over the model's
    blocks, or cycled (networks with an own encoder of the picture).
    """
    if not samples:
        return None
    stretch = -(-num_blocks // len(samples))
    return [samples[i % len(samples) if cycled else i // stretch] for i in range(num_blocks)]


def add_residuals(total: list[Tensor] | None, more: Sequence[Tensor] | None) -> list[Tensor] | None:
    """Sum of two lists of residuals, either of which may be missing."""
    if total is None or more is None:
        return list(more) if total is None and more is not None else total
    return [first + second for first, second in zip(total, more, strict=True)]


def guidance_input(network: nn.Module, scale: float, batch: int, device: torch.device) -> Any:
    """Distilled guidance for networks that take it as an input, else None."""
    if not getattr(network, "config", {}).get("guidance_embeds", False):
        return None
    return torch.full((batch,), scale, device=device, dtype=torch.float32)
