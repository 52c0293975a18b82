"""Contains the names of layers in the original code of Flux and Stable Diffusion.

Weight files by other programs use them; diffusers has its own, and takes fused layers apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Layers of a network that together are one layer of the original code.

    Attributes:
        names: of the layers, in the order of the rows.
        swapped: the halves of the rows come in the other order (Flux's last modulation).
    """

    names: tuple[str, ...]
    swapped: bool = False


def flux_names(num_double: int, num_single: int) -> dict[str, Target]:
    """Layers of Flux by the names of the original code."""
    pairs: dict[str, Target] = {}
    for i in range(num_double):
        old, new = f"double_blocks.{i}", f"transformer_blocks.{i}"
        for stream, attention, feed, norm, out in (
            ("img", ("to_q", "to_k", "to_v"), "ff", "norm1", "to_out.0"),
            ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "ff_context", "norm1_context",
             "to_add_out"),
        ):  # fmt: skip
            pairs[f"{old}.{stream}_attn.qkv"] = Target(
                tuple(f"{new}.attn.{part}" for part in attention)
            )
            pairs[f"{old}.{stream}_attn.proj"] = Target((f"{new}.attn.{out}",))
            pairs[f"{old}.{stream}_mlp.0"] = Target((f"{new}.{feed}.net.0.proj",))
            pairs[f"{old}.{stream}_mlp.2"] = Target((f"{new}.{feed}.net.2",))
            pairs[f"{old}.{stream}_mod.lin"] = Target((f"{new}.{norm}.linear",))
    for i in range(num_single):
        old, new = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        pairs[f"{old}.linear1"] = Target(tuple(f"{new}.{part}" for part in parts))
        pairs[f"{old}.linear2"] = Target((f"{new}.proj_out",))
        pairs[f"{old}.modulation.lin"] = Target((f"{new}.norm.linear",))
    for old, new in (
        ("time_in", "timestep_embedder"),
        ("vector_in", "text_embedder"),
        ("guidance_in", "guidance_embedder"),
    ):
        pairs[f"{old}.in_layer"] = Target((f"time_text_embed.{new}.linear_1",))
        pairs[f"{old}.out_layer"] = Target((f"time_text_embed.{new}.linear_2",))
    return pairs | {
        "img_in": Target(("x_embedder",)),
        "txt_in": Target(("context_embedder",)),
        "final_layer.linear": Target(("proj_out",)),
        "final_layer.adaLN_modulation.1": Target(("norm_out.linear",), swapped=True),
    }


_RESNET_LAYERS = {
    "conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
_PLAIN_LAYERS = {
    "conv_in": "input_blocks.0.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_BLOCK_NAME = re.compile(
    r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_MIDDLE_NAME = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def unet_original_names(name: str, per_level: int) -> tuple[str, ...]:
    """Names that a UNet layer can have in the original code of Stable Diffusion.

    Args:
        name: in diffusers.
        per_level: residual blocks per level on the way down; there is one more on the way up.
    """
    if name in _PLAIN_LAYERS:
        return (_PLAIN_LAYERS[name],)
    middle = _MIDDLE_NAME.fullmatch(name)
    if middle:
        kind, index, rest = middle.groups()
        place = 1 if kind == "attentions" else 2 * int(index)
        return (f"middle_block.{place}.{_RESNET_LAYERS.get(rest, rest)}",)
    block = _BLOCK_NAME.fullmatch(name)
    if not block:
        return ()
    way, level, kind, index, rest = block.groups()
    first = int(level) * (per_level + 1)
    if kind == "downsamplers":
        return (f"input_blocks.{first + per_level + 1}.0.op",)
    if kind == "upsamplers":
        # It is the last part of its block, behind an attention that not every level has.
        return tuple(f"output_blocks.{first + per_level}.{place}.{rest}" for place in (1, 2))
    rest = _RESNET_LAYERS.get(rest, rest) if kind == "resnets" else rest
    place = int(kind == "attentions")
    number = first + int(index)
    ahead = f"input_blocks.{number + 1}" if way == "down" else f"output_blocks.{number}"
    return (f"{ahead}.{place}.{rest}",)
