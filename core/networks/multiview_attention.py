"""Contains the transformer of Era3D: views of one object that look at each other row by row.

The batch is [domain, branch, view], domain 0 normals and domain 1 colours. In each block

    attn1    a view and its twin of the other domain: 2 height width tokens
    attn_mv  the same row of all views of a domain: view width tokens
    attn2    each picture and its text

each behind its own layer norm and added to its input, then a feed-forward part. Rows are told the
height of the map, so maps need not be square.

Reference: Li et al. 2024, "Era3D", Sec. 3.3 (row-wise attention); Long et al. 2024, "Wonder3D",
Sec. 4.2 (attention across domains).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

NUM_DOMAINS = 2


class MultiviewBlock(nn.Module):
    """A transformer block of diffusers with attention across domains and along rows of views.

    Args:
        plain: diffusers' `BasicTransformerBlock` of the same size; its layers are taken over.
        num_views: of each object.
    """

    def __init__(self, plain: Any, num_views: int) -> None:
        super().__init__()
        from diffusers.models.attention_processor import Attention

        heads = int(plain.attn1.heads)
        dim = int(plain.norm1.normalized_shape[0])
        self.num_views = num_views
        self.norm1, self.attn1 = plain.norm1, plain.attn1
        self.norm_mv = nn.LayerNorm(dim, eps=plain.norm1.eps)
        self.attn_mv = Attention(dim, heads=heads, dim_head=dim // heads)
        self.norm2, self.attn2 = plain.norm2, plain.attn2
        self.norm3, self.ff = plain.norm3, plain.ff

    def forward(
        self,
        tokens: Float[Tensor, "batch token dim"],
        text: Float[Tensor, "batch word text_width"],
        height: int,
    ) -> Float[Tensor, "batch token dim"]:
        """The tokens of maps with ``height`` rows, row by row."""
        tokens = tokens + split_domains(self.attn1(join_domains(self.norm1(tokens))))
        rows = gather_rows(self.norm_mv(tokens), self.num_views, height)
        tokens = tokens + scatter_rows(self.attn_mv(rows), self.num_views, height)
        tokens = tokens + self.attn2(self.norm2(tokens), encoder_hidden_states=text)
        return tokens + self.ff(self.norm3(tokens))


def join_domains(
    tokens: Float[Tensor, "batch token dim"],
) -> Float[Tensor, "half_batch both_tokens dim"]:
    """Tokens of a view behind those of its twin of the other domain."""
    return torch.cat(tokens.chunk(NUM_DOMAINS), dim=1)


def split_domains(
    tokens: Float[Tensor, "half_batch both_tokens dim"],
) -> Float[Tensor, "batch token dim"]:
    """Inverse of `join_domains`."""
    return torch.cat(tokens.chunk(NUM_DOMAINS, dim=1))


def gather_rows(
    tokens: Float[Tensor, "batch token dim"], num_views: int, height: int
) -> Float[Tensor, "object_row view_column dim"]:
    """[(object view), (row column)] to [(object row), (view column)]."""
    grid = tokens.unflatten(1, (height, -1)).unflatten(0, (-1, num_views))
    return grid.transpose(1, 2).flatten(2, 3).flatten(0, 1)


def scatter_rows(
    rows: Float[Tensor, "object_row view_column dim"], num_views: int, height: int
) -> Float[Tensor, "batch token dim"]:
    """Inverse of `gather_rows`."""
    grid = rows.unflatten(1, (num_views, -1)).unflatten(0, (-1, height))
    return grid.transpose(1, 2).flatten(2, 3).flatten(0, 1)


class MultiviewTransformer(nn.Module):
    """diffusers' `Transformer2DModel` with blocks that know the views; takes its layers over."""

    def __init__(self, plain: Any, num_views: int) -> None:
        super().__init__()
        if not plain.config.use_linear_projection:
            raise ValueError(
                "The multi-view UNet has linear projections, but its configuration says "
                "use_linear_projection false; it belongs to another model."
            )
        self.norm, self.proj_in = plain.norm, plain.proj_in
        self.transformer_blocks = nn.ModuleList(
            MultiviewBlock(block, num_views) for block in plain.transformer_blocks
        )
        self.proj_out = plain.proj_out

    def forward(
        self,
        hidden_states: Float[Tensor, "batch channel height width"],
        encoder_hidden_states: Float[Tensor, "batch word width_of_text"],
        **settings: Any,
    ) -> tuple[Float[Tensor, "batch channel height width"]]:
        """As diffusers' blocks call it; further settings are not used."""
        height = hidden_states.shape[2]
        tokens = self.proj_in(self.norm(hidden_states).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, encoder_hidden_states, height)
        added = self.proj_out(tokens).transpose(1, 2).unflatten(2, (height, -1))
        return (hidden_states + added,)


def share_views(unet: Any, num_views: int) -> None:
    """Replace all transformers of a diffusers UNet by `MultiviewTransformer`; in place."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for index, plain in enumerate(getattr(block, "attentions", ())):
            block.attentions[index] = MultiviewTransformer(plain, num_views)
