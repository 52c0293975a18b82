"""Contains the trainable LoRA of a Flux transformer and the file it is kept in.

A LoRA adds alpha / rank * B A to the weight of a layer. The file has the layout of diffusers and
peft, ``transformer.<layer>.lora_A.weight`` and ``lora_B.weight``, which ComfyUI's LoRA loader reads
too. All of them take alpha for the rank where the file names none, so ``alpha`` is written only
where it differs.

Reference: Hu et al. 2021, LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..formats.atomic import atomic_write

ADAPTER = "trained"
BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")
ATTENTION = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
)  # fmt: skip
FEED_FORWARD = (
    "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
    "proj_mlp", "proj_out",
)  # fmt: skip
MODULATION = ("norm1.linear", "norm1_context.linear", "norm.linear")
# Outside the blocks: where texts enter. New words need these most.
TEXT = (
    "context_embedder",
    "time_text_embed.text_embedder.linear_1", "time_text_embed.text_embedder.linear_2",
)  # fmt: skip
LayerGroup = Literal["attention", "feed_forward", "modulation", "text"]
GROUPS: Mapping[str, Sequence[str]] = {
    "attention": ATTENTION,
    "feed_forward": FEED_FORWARD,
    "modulation": MODULATION,
    "text": TEXT,
}
FILE_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class LoraParams:
    """Size of a LoRA.

    Attributes:
        rank: inner size of the two matrices.
        alpha: the change is multiplied by alpha / rank.
        targets: groups of layers that are changed: "attention", "feed_forward" and "modulation" of
            the blocks, and "text", the layers by which texts enter.
        layers: names of layers in a block, such as "attn.to_q", besides the groups.
        file_dtype: number type in the file.
    """

    rank: int = 16
    alpha: float = 16.0
    targets: tuple[LayerGroup, ...] = ("attention", "feed_forward")
    layers: tuple[str, ...] = ()
    file_dtype: Literal["float16", "bfloat16", "float32"] = "float16"

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"rank and alpha must be positive, got {self.rank}, {self.alpha}.")
        if not self.targets and not self.layers:
            raise ValueError("name at least one group in targets, or a layer in layers.")


def find_layers(transformer: nn.Module, params: LoraParams) -> list[str]:
    """Names of the linear layers that get a LoRA.

    Raises:
        ValueError: a name that no block has.
    """
    wanted = [name for group in params.targets for name in GROUPS[group]] + list(params.layers)
    found = {
        path: name
        for path, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and (name := _name_in_block(path))
    }
    unknown = [name for name in params.layers if name not in found.values()]
    if unknown or not found:
        known = ", ".join(sorted(set(found.values()))) or "none"
        raise ValueError(f"No block has a layer {', '.join(unknown)}; there are {known}.")
    return [path for path, name in found.items() if name in wanted]


def _name_in_block(path: str) -> str:
    """Name of a layer within its block; nothing for layers outside that are not of "text"."""
    if path.startswith(BLOCKS):
        return path.split(".", 2)[2]
    return path if path in TEXT else ""


def add_lora(transformer: Any, params: LoraParams, *, seed: int = 0) -> list[str]:
    """Freeze a transformer and put a trainable LoRA into it that changes nothing yet.

    Args:
        transformer: is changed; its own weights keep their number type, the LoRA is in single
            precision.
        params: size.
        seed: of the random first matrices.

    Returns:
        Names of the changed layers.
    """
    layers = find_layers(transformer, params)
    inject_lora(transformer, layers, params.rank, params.alpha, seed=seed)
    return layers


def inject_lora(
    network: Any, layers: Sequence[str], rank: int, alpha: float, *, seed: int = 0
) -> None:
    """Freeze a network and put a trainable LoRA into some layers that changes nothing yet."""
    from peft import LoraConfig, inject_adapter_in_model

    make_config: Any = LoraConfig  # its annotation knows whole alphas only
    network.requires_grad_(False)
    config = make_config(r=rank, lora_alpha=alpha, target_modules=list(layers))
    inject_adapter_in_model(config, network, adapter_name=ADAPTER)
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        module = network.get_submodule(layer)
        down, up = module.lora_A[ADAPTER], module.lora_B[ADAPTER]
        # Drawn here, on the CPU, so that a run begins alike on every machine.
        first = torch.randn(down.weight.shape, generator=generator) / rank
        down.weight = nn.Parameter(first.to(down.weight.device))
        up.weight = nn.Parameter(torch.zeros_like(up.weight, dtype=torch.float32))


def lora_state(transformer: Any, layers: Sequence[str], params: LoraParams) -> dict[str, Tensor]:
    """Tensors of the file, on the CPU."""
    dtype = FILE_DTYPES[params.file_dtype]
    state = {}
    for layer in layers:
        module = transformer.get_submodule(layer)
        for key, part in (("lora_A", module.lora_A), ("lora_B", module.lora_B)):
            weight = part[ADAPTER].weight.detach().to("cpu", dtype).contiguous()
            state[f"transformer.{layer}.{key}.weight"] = weight
        if params.alpha != params.rank:
            state[f"transformer.{layer}.alpha"] = torch.tensor(params.alpha)
    return state


def save_lora(
    path: Path,
    transformer: Any,
    layers: Sequence[str],
    params: LoraParams,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the LoRA; the file appears whole or not at all.

    Args:
        path: ``.safetensors`` file.
        transformer: with the LoRA of `add_lora`.
        layers: what `add_lora` returned.
        params: the same as there.
        metadata: texts for the head of the file, such as how to prompt.
    """
    from safetensors.torch import save

    head = {"format": "pt", **(metadata or {})}
    data = save(lora_state(transformer, layers, params), head)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
