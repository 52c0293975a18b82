"""Contains the reading of LoRA files in their common dialects, independent of any network.

Symbols: a LoRA adds strength * up @ down to a layer's weight, with down [rank, in], up [out, rank].
Files may store an ``alpha``: then up is multiplied by alpha / rank (kohya; also some peft files).

Dialects, by their key endings: kohya (``lora_down/lora_up``), peft and diffusers
(``lora_A/lora_B``), old diffusers (``lora.down/lora.up``), XLabs (``processor.qkv_lora1.down``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..networks.weights import read_weights

MAX_LORA_BYTES = 2**33

_ROLES = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".alpha": "alpha",
    ".lora_alpha": "alpha",
}
# Old diffusers: attn.processor.to_q_lora.down.weight; XLabs: processor.qkv_lora1.down.weight.
_PROCESSOR_KEY = re.compile(r"^(.*)\.processor\.(\w+?)_lora([12]?)\.(down|up)\.weight$")
_XLABS_LAYERS = {"qkv": "attn.qkv", "proj": "attn.proj"}
_XLABS_STREAMS = {"1": "img_", "2": "txt_"}
_XLABS_SINGLE = {"qkv": "linear1", "proj": "linear2"}
_OTHER_KIND = re.compile(r"\.(dora_scale|hada_\w+|lokr_\w+|oft_\w+)$")


@dataclass(frozen=True)
class LoraLayer:
    """The change of one layer; ``alpha / rank`` is already in ``up``."""

    down: Float[Tensor, "rank inputs *kernel"]
    up: Float[Tensor, "outputs rank *kernel"]

    @property
    def rank(self) -> int:
        """Inner size."""
        return int(self.down.shape[0])

    @property
    def num_outputs(self) -> int:
        """Outputs of the layer it belongs to."""
        return int(self.up.shape[0])

    def rows(self, start: int, stop: int) -> LoraLayer:
        """The part for some outputs of the layer: how fused layers are taken apart."""
        return LoraLayer(self.down, self.up[start:stop])

    def delta(self) -> Float[Tensor, "outputs inputs"]:
        """The change of a linear layer's weight at strength 1."""
        return self.up.flatten(1) @ self.down.flatten(1)


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file.

    Attributes:
        name: of the file.
        layers: by the names that the file uses.
        ignored: keys that are no part of a LoRA, or of one half only.
    """

    name: str
    layers: Mapping[str, LoraLayer]
    ignored: tuple[str, ...] = ()


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, holds no LoRA, or one of a kind that is not supported.
    """
    path = Path(path)
    return parse_lora(read_weights(path, max_bytes=MAX_LORA_BYTES), name=path.name)


def parse_lora(state: Mapping[str, Tensor], *, name: str = "The file") -> LoraFile:
    """Sort the tensors of a LoRA file into layers.

    Raises:
        ValueError: it holds no LoRA, one of a kind that is not supported, or odd shapes.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    ignored: list[str] = []
    for key, value in state.items():
        layer, role = _layer_and_role(key)
        if role:
            parts.setdefault(layer, {})[role] = value
        else:
            ignored.append(key)
    _refuse_other_kinds(ignored, name)
    layers = {}
    for layer, found in parts.items():
        if "down" in found and "up" in found:
            layers[layer] = _make_layer(layer, found, name)
        else:
            ignored.append(layer)
    if not layers:
        first = ", ".join(list(state)[:3]) or "nothing"
        raise ValueError(
            f"{name} holds no LoRA: none of its {len(state)} keys belongs to a pair of matrices "
            f"(first keys: {first})."
        )
    return LoraFile(name, layers, tuple(ignored))


def _refuse_other_kinds(keys: Sequence[str], name: str) -> None:
    found = [match.group(1) for match in map(_OTHER_KIND.search, keys) if match]
    if found:
        raise ValueError(
            f"{name} is no plain LoRA: it holds '{found[0]}' tensors (LoHa, LoKr, OFT or DoRA), "
            "which are not supported; convert it to a LoRA."
        )


def _layer_and_role(key: str) -> tuple[str, str]:
    match = _PROCESSOR_KEY.match(key)
    if match:
        base, kind, stream, role = match.groups()
        return _processor_layer(base, kind, stream), role
    for ending, role in _ROLES.items():
        if key.endswith(ending):
            return key.removesuffix(ending), role
    return key, ""


def _processor_layer(base: str, kind: str, stream: str) -> str:
    if "single_blocks" in base and kind in _XLABS_SINGLE:
        return f"{base}.{_XLABS_SINGLE[kind]}"
    if stream and kind in _XLABS_LAYERS:
        return f"{base}.{_XLABS_STREAMS[stream]}{_XLABS_LAYERS[kind]}"
    return f"{base}.{'to_out.0' if kind == 'to_out' else kind}"


def _make_layer(layer: str, found: Mapping[str, Tensor], name: str) -> LoraLayer:
    down, up = found["down"].float(), found["up"].float()
    if down.ndim < 2 or up.ndim < 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise ValueError(
            f"{name} holds a damaged LoRA: in '{layer}' down is {list(down.shape)} and up "
            f"{list(up.shape)}; the first size of down must be the second of up."
        )
    alpha = found.get("alpha")
    scale = 1.0 if alpha is None else float(alpha.flatten()[0]) / down.shape[0]
    if not torch.isfinite(down).all() or not torch.isfinite(up).all():
        raise ValueError(f"{name} holds NaN or infinite values in '{layer}'; get another copy.")
    return LoraLayer(down, up * scale)
