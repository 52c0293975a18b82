"""Contains the image encoder of large reconstruction models: a ViT that knows the camera.

Each view is encoded on its own by DINO's ViT; an embedding of its camera shifts and scales the
tokens after every layer norm (adaLN). Keys are those of published checkpoints.

Reference: Caron et al. 2021 (DINO); Xu et al. 2024, "InstantMesh", Sec. 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .attention import attend

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

# DINO resizes its position embedding by (patches + 0.1) / grid, which also moves the samples.
RESIZE_OFFSET = 0.1


@dataclass(frozen=True)
class VisionEncoderParams:
    """Size of the encoder; the defaults are DINO ViT-B/16.

    Attributes:
        dim: width of a token.
        num_layers: transformer layers.
        num_heads: attention heads.
        mlp_dim: hidden width of the feed-forward part.
        patch_px: side of a patch.
        position_grid: side of the grid that the position embedding was trained for, in patches.
        camera_dim: numbers per camera.
        layer_norm_eps: of all layer norms.
    """

    dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    patch_px: int = 16
    position_grid: int = 14
    camera_dim: int = 16
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if min(self.dim, self.num_heads, self.patch_px, self.position_grid) < 1:
            raise ValueError(f"The sizes of the vision encoder must be positive, got {self}.")
        if self.dim % self.num_heads:
            raise ValueError(
                f"dim {self.dim} must be a multiple of the number of heads {self.num_heads}."
            )


class _PatchEmbeddings(nn.Module):
    def __init__(self, params: VisionEncoderParams):
        super().__init__()
        self.projection = nn.Conv2d(3, params.dim, params.patch_px, stride=params.patch_px)


class _Embeddings(nn.Module):
    """Patches of an image as tokens, the class token first, with their positions added."""

    def __init__(self, params: VisionEncoderParams):
        super().__init__()
        self.params = params
        num_positions = params.position_grid**2 + 1
        self.cls_token = nn.Parameter(torch.randn(1, 1, params.dim) * 0.02)
        self.position_embeddings = nn.Parameter(torch.randn(1, num_positions, params.dim) * 0.02)
        self.patch_embeddings = _PatchEmbeddings(params)

    def forward(self, pixels: Float[Tensor, "view 3 height width"]) -> Tensor:
        patches = self.patch_embeddings.projection(pixels)
        rows, columns = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self._positions(rows, columns)

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 token dim"]:
        """Position embedding resized to the patches of this image."""
        grid = self.params.position_grid
        if (rows, columns) == (grid, grid):
            return self.position_embeddings
        first, rest = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        picture = rest.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        factors = ((rows + RESIZE_OFFSET) / grid, (columns + RESIZE_OFFSET) / grid)
        resized = nn.functional.interpolate(
            picture, scale_factor=factors, mode="bicubic", align_corners=False
        )
        return torch.cat([first, resized.flatten(2).transpose(1, 2)], dim=1)


class _Projections(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)


class _Dense(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int):
        super().__init__()
        self.dense = nn.Linear(num_inputs, num_outputs)


class _Attention(nn.Module):
    def __init__(self, params: VisionEncoderParams):
        super().__init__()
        self.num_heads = params.num_heads
        self.attention = _Projections(params.dim)
        self.output = _Dense(params.dim, params.dim)

    def forward(self, x: Tensor) -> Tensor:
        project = self.attention
        attended = attend(project.query(x), project.key(x), project.value(x), self.num_heads)
        return self.output.dense(attended)


class _Layer(nn.Module):
    """Attention and feed-forward, both residual; the camera modulates their inputs, no gates."""

    def __init__(self, params: VisionEncoderParams):
        super().__init__()
        dim, eps = params.dim, params.layer_norm_eps
        self.attention = _Attention(params)
        self.intermediate = _Dense(dim, params.mlp_dim)
        self.output = _Dense(params.mlp_dim, dim)
        self.layernorm_before = nn.LayerNorm(dim, eps=eps)
        self.layernorm_after = nn.LayerNorm(dim, eps=eps)
        modulation = nn.Linear(dim, 4 * dim)
        nn.init.zeros_(modulation.weight)  # unmodulated at the start, as adaLN is usually trained
        nn.init.zeros_(modulation.bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), modulation)

    def forward(self, x: Tensor, camera: Float[Tensor, "view dim"]) -> Tensor:
        modulation = self.adaLN_modulation(camera)[:, None].chunk(4, dim=-1)
        shift_attention, scale_attention, shift_mlp, scale_mlp = modulation
        h = self.layernorm_before(x) * (1 + scale_attention) + shift_attention
        x = x + self.attention(h)
        h = self.layernorm_after(x) * (1 + scale_mlp) + shift_mlp
        return x + self.output.dense(nn.functional.gelu(self.intermediate.dense(h)))


class _LayerStack(nn.Module):
    def __init__(self, params: VisionEncoderParams):
        super().__init__()
        self.layer = nn.ModuleList(_Layer(params) for _ in range(params.num_layers))


class _VisionTransformer(nn.Module):
    def __init__(self, params: VisionEncoderParams):
        super().__init__()
        self.embeddings = _Embeddings(params)
        self.encoder = _LayerStack(params)
        self.layernorm = nn.LayerNorm(params.dim, eps=params.layer_norm_eps)

    def forward(self, pixels: Tensor, camera: Tensor) -> Tensor:
        x = self.embeddings(pixels)
        for layer in self.encoder.layer:
            x = layer(x, camera)
        return self.layernorm(x)


def normalize_pixels(
    images: Float[Tensor, "view 3 height width"],
) -> Float[Tensor, "view 3 height width"]:
    """Pictures in 0..1 with ImageNet's mean and deviation taken out."""
    mean = images.new_tensor(IMAGE_MEAN)[:, None, None]
    return (images - mean) / images.new_tensor(IMAGE_STD)[:, None, None]


class VisionEncoder(nn.Module):
    """Views and their cameras to tokens."""

    def __init__(self, params: VisionEncoderParams):
        super().__init__()
        self.params = params
        self.model = _VisionTransformer(params)
        self.camera_embedder = nn.Sequential(
            nn.Linear(params.camera_dim, params.dim), nn.SiLU(), nn.Linear(params.dim, params.dim)
        )

    def forward(
        self,
        images: Float[Tensor, "batch view 3 height width"],
        cameras: Float[Tensor, "batch view camera"],
    ) -> Float[Tensor, "batch token dim"]:
        """Tokens of all views one after the other, each view's class token first.

        Args:
            images: 0..1; sides are multiples of the patch.
            cameras: see `lrm_cameras`.
        """
        height, width = images.shape[-2:]
        if height % self.params.patch_px or width % self.params.patch_px:
            raise ValueError(
                f"Images of {width}x{height} pixels do not divide into patches of "
                f"{self.params.patch_px}; resize them to a multiple of it."
            )
        pixels = normalize_pixels(images.flatten(0, 1))
        tokens = self.model(pixels, self.camera_embedder(cameras.flatten(0, 1)))
        return tokens.reshape(len(images), -1, tokens.shape[-1])
