"""Contains placement: which network lies on the compute device, and when.

Before a network is used it is *prepared*. A host with its own memory management (ComfyUI) brings
its own `Placement`; the ones here serve everybody else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn

Offload = Literal["none", "model", "sequential"]


@runtime_checkable
class Placement(Protocol):
    """Brings networks to the device on which they run."""

    @property
    def device(self) -> torch.device:
        """Where inputs are expected."""
        ...

    def prepare(self, network: nn.Module) -> None:
        """Make a network ready to run; others may be moved away to make room."""
        ...

    def changed(self, network: nn.Module) -> None:
        """Take note that layers were added to a network (LoRA)."""
        ...


@contextlib.contextmanager
def plain_tensors() -> Iterator[None]:
    """Block in which made or moved weights can take part in gradients later.

    Tensors made in inference mode never can, and hosts run nodes in that mode.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


def ensure_plain(network: nn.Module) -> None:
    """Replace weights that were made or moved in inference mode by copies that gradients accept.

    ComfyUI moves networks in inference mode when it makes room; plain weights are left alone.
    """
    with plain_tensors():
        for module in network.modules():
            for name, value in list(module.named_parameters(recurse=False)):
                if value.is_inference():
                    copy = nn.Parameter(value.clone(), requires_grad=value.requires_grad)
                    setattr(module, name, copy)
            for name, buffer in list(module.named_buffers(recurse=False)):
                if buffer.is_inference():
                    setattr(module, name, buffer.clone())


class FixedPlacement:
    """Everything stays on one device."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)

    def prepare(self, network: nn.Module) -> None:
        """Move it there if it is elsewhere."""
        _move(network, self.device)

    def changed(self, network: nn.Module) -> None:
        """Nothing to do."""


class OneAtATimePlacement:
    """Whole networks take turns on the device; the others wait in main memory.

    The same as diffusers' model offload, without hooks on the networks.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.resident: nn.Module | None = None

    def prepare(self, network: nn.Module) -> None:
        """Swap the network in unless it is the one there."""
        if self.resident is not None and self.resident is not network:
            _move(self.resident, torch.device("cpu"))
        _move(network, self.device)
        self.resident = network

    def changed(self, network: nn.Module) -> None:
        """Nothing to do: new layers are made where the old ones lie."""


class SequentialPlacement:
    """Each layer is brought in only while it runs: least memory, slowest (accelerate's offload)."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)

    def prepare(self, network: nn.Module) -> None:
        """Put hooks on the layers the first time."""
        from accelerate import cpu_offload

        if not _has_hooks(network):
            with plain_tensors():
                cpu_offload(network, self.device, offload_buffers=True)

    def changed(self, network: nn.Module) -> None:
        """Take the hooks off; the next `prepare` puts them on the new layers too."""
        from accelerate.hooks import remove_hook_from_module

        if _has_hooks(network):
            with plain_tensors():
                remove_hook_from_module(network, recurse=True)


def _move(network: nn.Module, device: torch.device) -> None:
    first = next(network.parameters(), None)
    if first is None or first.device != device:
        with plain_tensors():
            network.to(device)


def _has_hooks(network: nn.Module) -> bool:
    return any(hasattr(module, "_hf_hook") for module in network.modules())


def make_placement(device: torch.device | str, offload: Offload) -> Placement:
    """Placement for one of the named ways; on the CPU there is nothing to offload.

    Raises:
        ValueError: an unknown way, or CUDA is asked for where there is none.
    """
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch finds no NVIDIA card here; use 'cpu'.")
    kinds: dict[str, Callable[[torch.device], Placement]] = {
        "none": FixedPlacement,
        "model": OneAtATimePlacement,
        "sequential": SequentialPlacement,
    }
    if offload not in kinds:
        raise ValueError(f"Unknown offload {offload!r}; choose one of {', '.join(kinds)}.")
    return FixedPlacement(device) if device.type == "cpu" else kinds[offload](device)
