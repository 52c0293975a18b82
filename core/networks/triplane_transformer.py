"""Contains the transformer that turns image tokens into feature planes.

Learned tokens, one per place on each plane, look at the image tokens and at each other; a
transposed convolution makes planes of twice the resolution of them.

Reference: Hong et al. 2024, "LRM: Large reconstruction model for single image to 3D", Sec. 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..progress import Progress, ProgressCallback, ignore_progress
from .attention import CrossAttention, SelfAttention

FINAL_NORM_EPS = 1e-6


@dataclass(frozen=True)
class TriplaneTransformerParams:
    """Size of the transformer; the defaults are those of InstantMesh-large.

    Attributes:
        dim: width of a token.
        condition_dim: width of an image token.
        num_layers: transformer layers.
        num_heads: attention heads.
        low_res: tokens along each side of a plane.
        num_channels: features per plane.
        lora_rank: rank of the adapters in all attentions; 0 for none.
        lora_alpha: numerator of their scale alpha / rank.
    """

    dim: int = 1024
    condition_dim: int = 768
    num_layers: int = 16
    num_heads: int = 16
    low_res: int = 32
    num_channels: int = 80
    lora_rank: int = 0
    lora_alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must not be negative, got {self.lora_rank}.")

    @property
    def high_res(self) -> int:
        """Samples along each side of the planes that come out."""
        return 2 * self.low_res


class _Block(nn.Module):
    """Cross-attention, self-attention and feed-forward, all residual."""

    def __init__(self, params: TriplaneTransformerParams):
        super().__init__()
        dim, num_heads = params.dim, params.num_heads
        rank, alpha = params.lora_rank, params.lora_alpha
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = CrossAttention(
            dim, params.condition_dim, num_heads, lora_rank=rank, lora_alpha=alpha
        )
        self.norm2 = nn.LayerNorm(dim)
        self.self_attn = SelfAttention(dim, num_heads, lora_rank=rank, lora_alpha=alpha)
        self.norm3 = nn.LayerNorm(dim)
        # The identities keep the published numbering, where dropout stood.
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = x + self.cross_attn(self.norm1(x), condition)
        x = x + self.self_attn(self.norm2(x))
        return x + self.mlp(self.norm3(x))


class TriplaneTransformer(nn.Module):
    """Image tokens to feature planes."""

    def __init__(self, params: TriplaneTransformerParams):
        super().__init__()
        self.params = params
        num_tokens = 3 * params.low_res**2
        self.pos_embed = nn.Parameter(
            torch.randn(1, num_tokens, params.dim) * (1.0 / params.dim) ** 0.5
        )
        self.layers = nn.ModuleList(_Block(params) for _ in range(params.num_layers))
        self.norm = nn.LayerNorm(params.dim, eps=FINAL_NORM_EPS)
        self.deconv = nn.ConvTranspose2d(params.dim, params.num_channels, kernel_size=2, stride=2)

    def forward(
        self,
        condition: Float[Tensor, "batch token condition_dim"],
        *,
        on_progress: ProgressCallback = ignore_progress,
    ) -> Float[Tensor, "batch plane=3 channel height width"]:
        """Planes over (x, y), (x, z) and (z, y); reports progress after each layer."""
        x = self.pos_embed.expand(len(condition), -1, -1)
        for index, layer in enumerate(self.layers):
            x = layer(x, condition)
            on_progress(Progress(index + 1, len(self.layers), "Making feature planes"))
        side = self.params.low_res
        # Tokens are ordered by plane, then row, then column.
        maps = self.norm(x).reshape(-1, side, side, self.params.dim).permute(0, 3, 1, 2)
        return self.deconv(maps).unflatten(0, (len(condition), 3))
