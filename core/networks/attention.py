"""Contains multi-head attention with optional low-rank adapters (LoRA), and their merging.

Symbols: W is a frozen projection, A [rank, in] and B [out, rank] its adapter; the projection that
counts is W + (alpha / rank) B A. Adapters begin with B = 0, so that they change nothing.

Reference: Hu et al. 2022, "LoRA: Low-rank adaptation of large language models", Eq. 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Which projection an adapter belongs to, in the published key layout.
_ADAPTED_WEIGHTS = {
    "q": "q_proj_weight",
    "k": "k_proj_weight",
    "v": "v_proj_weight",
    "o": "out_proj.weight",
    "qkv": "in_proj_weight",
}


def attend(
    queries: Float[Tensor, "batch query dim"],
    keys: Float[Tensor, "batch token dim"],
    values: Float[Tensor, "batch token dim"],
    num_heads: int,
) -> Float[Tensor, "batch query dim"]:
    """Scaled dot-product attention of each head on its share of the channels."""
    if queries.device.type == "cpu" and torch.is_grad_enabled():
        # torch's CPU kernel for gradients in bfloat16 takes three times as long as in float32.
        wide = torch.promote_types(queries.dtype, torch.float32)
        with torch.autocast("cpu", enabled=False):
            attended = _attend(queries.to(wide), keys.to(wide), values.to(wide), num_heads)
        return attended.to(queries)
    return _attend(queries, keys, values, num_heads)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, num_heads: int) -> Tensor:
    split = [x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (queries, keys, values)]
    return nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


class _AdaptedAttention(nn.Module):
    """What self- and cross-attention share: heads, the output projection and the adapters."""

    def __init__(self, dim: int, num_heads: int, lora_rank: int, lora_alpha: float):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim {dim} must be a multiple of the number of heads {num_heads}.")
        self.num_heads = num_heads
        self.lora_rank = lora_rank
        self.lora_scale = lora_alpha / lora_rank if lora_rank else 0.0
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self._add_adapter("o", dim, dim)

    def _add_adapter(self, name: str, num_inputs: int, num_outputs: int) -> None:
        if not self.lora_rank:
            return
        down = nn.Parameter(torch.empty(self.lora_rank, num_inputs))
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        self.register_parameter(f"{name}_lora_A", down)
        up = nn.Parameter(torch.zeros(num_outputs, self.lora_rank))
        self.register_parameter(f"{name}_lora_B", up)

    def _adapted(self, name: str, weight: Tensor) -> Tensor:
        """The weight plus its adapter (Eq. 3)."""
        if not self.lora_rank:
            return weight
        up, down = getattr(self, f"{name}_lora_B"), getattr(self, f"{name}_lora_A")
        return weight + self.lora_scale * (up @ down)

    def _project_out(self, attended: Tensor) -> Tensor:
        return nn.functional.linear(attended, self._adapted("o", self.out_proj.weight))


class CrossAttention(_AdaptedAttention):
    """Queries look at tokens of another width; no biases."""

    def __init__(
        self,
        dim: int,
        condition_dim: int,
        num_heads: int,
        *,
        lora_rank: int = 0,
        lora_alpha: float = 1.0,
    ):
        super().__init__(dim, num_heads, lora_rank, lora_alpha)
        for name, num_inputs in (("q", dim), ("k", condition_dim), ("v", condition_dim)):
            weight = nn.Parameter(torch.empty(dim, num_inputs))
            nn.init.xavier_uniform_(weight)
            self.register_parameter(f"{name}_proj_weight", weight)
            self._add_adapter(name, num_inputs, dim)

    def forward(
        self,
        x: Float[Tensor, "batch query dim"],
        condition: Float[Tensor, "batch token condition_dim"],
    ) -> Float[Tensor, "batch query dim"]:
        """Attend from ``x`` to ``condition``."""
        queries, keys, values = (
            nn.functional.linear(source, self._adapted(name, getattr(self, f"{name}_proj_weight")))
            for name, source in (("q", x), ("k", condition), ("v", condition))
        )
        return self._project_out(attend(queries, keys, values, self.num_heads))


class SelfAttention(_AdaptedAttention):
    """Tokens look at each other; one fused projection, no biases."""

    def __init__(self, dim: int, num_heads: int, *, lora_rank: int = 0, lora_alpha: float = 1.0):
        super().__init__(dim, num_heads, lora_rank, lora_alpha)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        nn.init.xavier_uniform_(self.in_proj_weight)
        self._add_adapter("qkv", dim, 3 * dim)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Attend from every token to every token."""
        fused = nn.functional.linear(x, self._adapted("qkv", self.in_proj_weight))
        queries, keys, values = fused.chunk(3, dim=-1)
        return self._project_out(attend(queries, keys, values, self.num_heads))


def merge_lora(state: Mapping[str, Tensor], *, alpha: float = 1.0) -> dict[str, Tensor]:
    """State dict with the adapters added to their weights and their keys gone.

    A second call finds no adapters and changes nothing: they cannot be added twice. The rank is
    read off the shapes. The input is not changed.

    Raises:
        ValueError: an adapter is incomplete, of the wrong shape or without its weight.
    """
    merged = {key: value for key, value in state.items() if not _is_adapter(key)}
    for key in state:
        if not key.endswith("_lora_A"):
            continue
        stem = key.removesuffix("_lora_A")
        up_key, weight_key = f"{stem}_lora_B", _adapted_weight(stem)
        if up_key not in state or weight_key not in merged:
            absent = up_key if up_key not in state else weight_key
            raise ValueError(f"The adapter {key} needs {absent}, which the weights lack.")
        merged[weight_key] = _merge_one(merged[weight_key], state[key], state[up_key], key, alpha)
    orphans = [k for k in state if k.endswith("_lora_B") and f"{k[:-1]}A" not in state]
    if orphans:
        raise ValueError(f"{len(orphans)} adapters lack their first factor, such as {orphans[0]}.")
    return merged


def _is_adapter(key: str) -> bool:
    return key.endswith(("_lora_A", "_lora_B"))


def _adapted_weight(stem: str) -> str:
    """Key of the weight of an adapter: ``layers.0.cross_attn.q`` to ``...q_proj_weight``."""
    parent, _, name = stem.rpartition(".")
    if name not in _ADAPTED_WEIGHTS:
        raise ValueError(f"Unknown adapter '{stem}'; known are {', '.join(_ADAPTED_WEIGHTS)}.")
    return f"{parent}.{_ADAPTED_WEIGHTS[name]}"


def _merge_one(weight: Tensor, down: Tensor, up: Tensor, key: str, alpha: float) -> Tensor:
    fits = down.ndim == up.ndim == 2 and down.shape[0] == up.shape[1] > 0
    if not fits or weight.shape != (up.shape[0], down.shape[1]):
        raise ValueError(
            f"The adapter {key} has factors {list(up.shape)} and {list(down.shape)}, which do not "
            f"fit its weight {list(weight.shape)}."
        )
    delta = (alpha / down.shape[0]) * (up.float() @ down.float())
    return (weight.float() + delta).to(weight.dtype)
