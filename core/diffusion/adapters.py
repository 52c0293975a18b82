"""Contains the attachment of LoRAs to networks, by peft.

A network is shared by all models that were derived from it with other LoRAs. It holds the matrices
of every LoRA in use; which of them act, and how strongly, is set before each use. So an original
stays as it was, and no copy of a large network is made.
"""

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .lora_files import LoraLayer
from .placement import Placement, plain_tensors


class Adapter:
    """One LoRA in one network; it is taken out when nobody holds this object any more."""

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass(frozen=True)
class ActiveAdapter:
    """A LoRA and how strongly it acts."""

    adapter: Adapter
    strength: float


class AdapterBank:
    """The LoRAs of one network.

    Args:
        network: layers are wrapped by peft when the first LoRA comes.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._known: weakref.WeakValueDictionary[str, Adapter] = weakref.WeakValueDictionary()
        self._inside: set[str] = set()
        self._state: tuple[tuple[str, float], ...] = ()
        self._layers: list[Any] = []

    def find(self, name: str) -> Adapter | None:
        """The adapter of this name, if it is in the network."""
        return self._known.get(name)

    def attach(self, name: str, layers: Mapping[str, LoraLayer], placement: Placement) -> Adapter:
        """Put a LoRA into the network; it does not act yet.

        Args:
            name: identifies the LoRA; no dots.
            layers: by the names of the network's layers.
            placement: is told that the network has new layers.
        """
        known = self.find(name)
        if known is not None:
            return known
        self._remove_forgotten()
        placement.changed(self.network)
        with plain_tensors():
            _inject(self.network, name, layers)
        self._inside.add(name)
        self._refresh()
        adapter = Adapter(name)
        self._known[name] = adapter
        return adapter

    def activate(self, wanted: Sequence[ActiveAdapter]) -> None:
        """Let exactly these LoRAs act."""
        state = tuple((item.adapter.name, item.strength) for item in wanted if item.strength)
        if state != self._state:
            _set_active(self._layers, dict(_summed(state)))
            self._state = state

    def _remove_forgotten(self) -> None:
        forgotten = self._inside - set(self._known)
        if forgotten:
            self.activate(())
        for layer in self._layers:
            for name in forgotten:
                layer.delete_adapter(name)
        self._inside -= forgotten

    def _refresh(self) -> None:
        from peft.tuners.lora import LoraLayer as PeftLayer

        self._layers = [m for m in self.network.modules() if isinstance(m, PeftLayer)]
        _set_active(self._layers, dict(_summed(self._state)))


def _summed(state: Sequence[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, strength in state:
        total[name] = total.get(name, 0.0) + strength
    return total


def _set_active(layers: Sequence[Any], strengths: Mapping[str, float]) -> None:
    for layer in layers:
        layer.enable_adapters(bool(strengths))
        names = [name for name in strengths if name in layer.lora_A]
        layer.set_adapter(names)
        for name in names:
            layer.set_scale(name, strengths[name])
        layer.requires_grad_(False)


def _inject(network: nn.Module, name: str, layers: Mapping[str, LoraLayer]) -> None:
    """Wrap layers and give them the matrices; alpha = rank makes peft's own scale 1."""
    from peft import LoraConfig, inject_adapter_in_model

    escaped = {layer: re.escape(layer) for layer in layers}
    ranks = {f"^{escaped[layer]}": value.rank for layer, value in layers.items()}
    rank = next(iter(layers.values())).rank
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules="|".join(f"(?:{pattern})" for pattern in escaped.values()),
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        # On the meta device no random numbers are drawn for weights that are replaced at once.
        inject_adapter_in_model(config, network, name, low_cpu_mem_usage=True)
    for layer, value in layers.items():
        module: Any = network.get_submodule(layer)
        weight = module.get_base_layer().weight
        for part, matrix in ((module.lora_A[name], value.down), (module.lora_B[name], value.up)):
            copy = matrix.to(device=weight.device, dtype=weight.dtype, copy=True).contiguous()
            part.weight = nn.Parameter(copy, requires_grad=False)
