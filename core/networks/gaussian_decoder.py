"""Contains the Gaussian splatting decoder: latents of views to Gaussians along their pixel rays.

    latents + Pluecker rays -> patches -> L x (self-attention over all views, cross-attention to
    the picture's features, MLP) -> u x (pixel shuffle, windowed transformer layers) -> 12 numbers
    per pixel: depth, colour, opacity, scales, rotation (`gaussian_heads`)

The structure is that of GSV3D, which is "inspired by GRM"; widths, windows and initial values are
GRM's where GSV3D names none.

Reference: Tao et al. 2025, "GSV3D", Sec. 3.3, Eq. 1-2; Xu et al. 2024, "GRM", Sec. 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..progress import Progress, ProgressCallback, ignore_progress
from .attention import CrossAttention, SelfAttention
from .gaussian_heads import NUM_CHANNELS, HeadParams

RAY_CHANNELS = 6
DEPTH_STD, OTHER_STD, POSITION_STD = 0.015, 0.02, 0.02
QUICK_GELU = 1.702
CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "decoder.yaml"
DecoderSize = Literal["published", "small", "tiny"]


@dataclass(frozen=True)
class GaussianDecoderParams:
    """Size of the decoder; the defaults are those intended for SV3D's latents.

    Attributes:
        latent_channels: of the latents.
        grid: patches along each side that the position embedding is made for; others resize it.
        patch: latent pixels along each side of a patch.
        dim: width of a token.
        num_layers: transformer layers; L in the paper.
        head_dim: width of an attention head, at least.
        context_dim: width of the picture's features (DINOv2 ViT-B: 768); 0 for a decoder without.
        upsamplings: pixel shuffles by 2.
        upsampler_layers: transformer layers behind each.
        smallest_dim: width below which shuffles do not go.
        window: largest side of the windows that upsampler layers attend in, in pixels.
        shuffle: the heads give so many Gaussians along each side of a pixel (GRM shuffles them
            to the full resolution).
        heads: how the 12 numbers become Gaussians.
    """

    latent_channels: int = 4
    grid: int = 18
    patch: int = 4
    dim: int = 768
    num_layers: int = 16
    head_dim: int = 64
    context_dim: int = 768
    upsamplings: int = 2
    upsampler_layers: int = 2
    smallest_dim: int = 64
    window: int = 12
    shuffle: int = 1
    heads: HeadParams = field(default_factory=HeadParams)

    def __post_init__(self) -> None:
        sizes = (
            self.latent_channels, self.grid, self.patch, self.dim, self.head_dim, self.window,
            self.shuffle,
        )  # fmt: skip
        if min(sizes) < 1 or min(self.num_layers, self.upsamplings, self.context_dim) < 0:
            raise ValueError(f"The sizes of the Gaussian decoder must be positive, got {self}.")
        if any(width % num_heads(width, self.head_dim) for width in self.widths):
            raise ValueError(
                f"The widths {self.widths} do not divide into heads of about {self.head_dim}."
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the tokens, and behind each pixel shuffle."""
        widths = [self.dim]
        for _ in range(self.upsamplings):
            widths.append(max(widths[-1] // 2, self.smallest_dim))
        return tuple(widths)

    def output_side(self, latent_side: int) -> int:
        """Gaussians along a side of latents of this many pixels."""
        return latent_side // self.patch * 2**self.upsamplings * self.shuffle


def num_heads(width: int, head_dim: int) -> int:
    """Attention heads of a layer; one that is narrower than a head has one."""
    return max(width // head_dim, 1)


def load_decoder_params(size: DecoderSize) -> GaussianDecoderParams:
    """Sizes by name, from ``configs/decoder.yaml``.

    Raises:
        ValueError: an unknown name.
    """
    from omegaconf import OmegaConf

    if size not in get_args(DecoderSize):
        raise ValueError(
            f"Unknown size '{size}'; choose one of {', '.join(get_args(DecoderSize))}."
        )
    content: Any = OmegaConf.to_container(OmegaConf.load(CONFIG_FILE))
    return decoder_params_from(content[size])


def decoder_params_from(values: dict[str, Any]) -> GaussianDecoderParams:
    """Sizes of plain values, as they stand in a file.

    Raises:
        ValueError: unknown names, or values out of range.
    """
    try:
        heads = dict(values.get("heads", {}))
        if "scale_range" in heads:
            low, high = heads["scale_range"]
            heads["scale_range"] = (float(low), float(high))
        return GaussianDecoderParams(**{**values, "heads": HeadParams(**heads)})
    except TypeError as error:
        raise ValueError(f"The sizes of the Gaussian decoder are wrong: {error}.") from error


class _QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(QUICK_GELU * x)


def _mlp(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 4 * dim), _QuickGelu(), nn.Linear(4 * dim, dim))


class _Layer(nn.Module):
    """Self-attention, cross-attention where there is a picture, and MLP, all pre-norm residual."""

    def __init__(self, dim: int, head_dim: int, context_dim: int):
        super().__init__()
        self.norm_self = nn.LayerNorm(dim)
        self.self_attention = SelfAttention(dim, num_heads(dim, head_dim))
        if context_dim:
            self.norm_cross = nn.LayerNorm(dim)
            self.cross_attention = CrossAttention(dim, context_dim, num_heads(dim, head_dim))
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = _mlp(dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x + self.self_attention(self.norm_self(x))
        if context is not None:
            x = x + self.cross_attention(self.norm_cross(x), context)
        return x + self.mlp(self.norm_mlp(x))


class _Upsampling(nn.Module):
    """Twice the side at half the width, then layers that attend in windows of each view."""

    def __init__(self, before: int, after: int, params: GaussianDecoderParams):
        super().__init__()
        self.window = params.window
        self.expand = nn.Linear(before, 4 * after)
        self.layers = nn.ModuleList(
            _Layer(after, params.head_dim, 0) for _ in range(params.upsampler_layers)
        )

    def forward(self, maps: Float[Tensor, "view height width channel"]) -> Tensor:
        wide = self.expand(maps).permute(0, 3, 1, 2)
        x = nn.functional.pixel_shuffle(wide, 2).permute(0, 2, 3, 1)
        for index, layer in enumerate(self.layers):
            x = attend_in_windows(layer, x, self.window, shifted=index % 2 == 1)
        return x


def attend_in_windows(
    layer: nn.Module,
    maps: Float[Tensor, "view height width channel"],
    window: int,
    *,
    shifted: bool,
) -> Float[Tensor, "view height width channel"]:
    """Apply a layer to square windows of each view.

    Args:
        layer: acts on [batch, token, channel].
        maps: features.
        window: largest side; each side is cut into equal windows not larger than that.
        shifted: windows moved by half their side, round the border, so that information passes
            between those of the layer before.
    """
    views, height, width, channels = maps.shape
    tall, broad = window_side(height, window), window_side(width, window)
    shift = (tall // 2, broad // 2) if shifted else (0, 0)
    x = maps.roll((-shift[0], -shift[1]), dims=(1, 2))
    x = x.reshape(views, height // tall, tall, width // broad, broad, channels)
    tokens = x.transpose(2, 3).reshape(-1, tall * broad, channels)
    tokens = layer(tokens).reshape(views, height // tall, width // broad, tall, broad, channels)
    return tokens.transpose(2, 3).reshape(maps.shape).roll(shift, dims=(1, 2))


def window_side(side: int, limit: int) -> int:
    """Largest divisor of ``side`` that is not above ``limit``."""
    return next(size for size in range(min(side, limit), 0, -1) if side % size == 0)


class GaussianDecoder(nn.Module):
    """Latents of any number of views to 12 numbers per pixel.

    Attributes:
        gradient_checkpointing: recompute layers in the backward pass instead of keeping them.
    """

    def __init__(self, params: GaussianDecoderParams):
        super().__init__()
        self.params = params
        self.gradient_checkpointing = False
        channels = params.latent_channels + RAY_CHANNELS
        self.patchify = nn.Conv2d(channels, params.dim, params.patch, params.patch, bias=False)
        positions = torch.randn(1, params.dim, params.grid, params.grid)
        self.positions = nn.Parameter(POSITION_STD * positions)
        self.norm_in = nn.LayerNorm(params.dim)
        self.layers = nn.ModuleList(
            _Layer(params.dim, params.head_dim, params.context_dim)
            for _ in range(params.num_layers)
        )
        self.norm_middle = nn.LayerNorm(params.dim)
        widths = params.widths
        self.upsampler = nn.ModuleList(
            _Upsampling(before, after, params)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norm_out = nn.LayerNorm(widths[-1])
        # Channels of the shuffle are innermost: row 0 .. shuffle^2 - 1 is depth.
        per_channel = params.shuffle**2
        self.heads = nn.Linear(widths[-1], NUM_CHANNELS * per_channel, bias=False)
        nn.init.normal_(self.heads.weight, std=OTHER_STD)
        nn.init.normal_(self.heads.weight[:per_channel], std=DEPTH_STD)

    def forward(
        self,
        latents: Float[Tensor, "batch view channel height width"],
        rays: Float[Tensor, "batch view 6 height width"],
        context: Float[Tensor, "batch token feature"] | None = None,
        *,
        on_progress: ProgressCallback = ignore_progress,
    ) -> Float[Tensor, "batch view 12 out_height out_width"]:
        """The 12 numbers of `gaussian_heads` for every pixel of every view.

        Args:
            latents: normalised as the diffusion model's; see the checkpoint's facts.
            rays: see `geometry.pluecker.rig_pluecker`.
            context: features of the picture; needed unless ``context_dim`` is 0.
            on_progress: called after each layer.
        """
        self._check(latents, context)
        batch, views = latents.shape[:2]
        maps = self.patchify(torch.cat([latents, rays.to(latents)], dim=2).flatten(0, 1))
        rows, columns = maps.shape[-2:]
        tokens = (maps + self._positions(rows, columns)).flatten(2).transpose(1, 2)
        x = self.norm_in(tokens).reshape(batch, views * rows * columns, -1)
        total = len(self.layers) + len(self.upsampler)
        for index, layer in enumerate(self.layers):
            x = self._run(layer, x, context)
            on_progress(Progress(index + 1, total, "Decoding Gaussians"))
        x = self.norm_middle(x).reshape(batch * views, rows, columns, -1)
        for index, stage in enumerate(self.upsampler):
            x = self._run(stage, x)
            on_progress(Progress(len(self.layers) + index + 1, total, "Decoding Gaussians"))
        raw = self.heads(self.norm_out(x)).permute(0, 3, 1, 2)
        return nn.functional.pixel_shuffle(raw, self.params.shuffle).unflatten(0, (batch, views))

    def _run(self, module: nn.Module, *inputs: Tensor | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            result: Tensor = checkpoint(module, *inputs, use_reentrant=False)  # type: ignore[assignment]
            return result
        return module(*inputs)

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 dim rows columns"]:
        if self.positions.shape[-2:] == (rows, columns):
            return self.positions
        return nn.functional.interpolate(
            self.positions, (rows, columns), mode="bilinear", align_corners=False
        )

    def _check(self, latents: Tensor, context: Tensor | None) -> None:
        params = self.params
        channels, height, width = latents.shape[2:]
        if channels != params.latent_channels:
            raise ValueError(
                f"The decoder takes latents of {params.latent_channels} channels, got {channels}."
            )
        if height % params.patch or width % params.patch:
            raise ValueError(
                f"Latents of {width} x {height} do not divide into patches of {params.patch}."
            )
        if (context is None) != (params.context_dim == 0):
            wanted = "no features of the picture" if context is not None else "its features"
            raise ValueError(f"This decoder was made with {wanted}; see its context_dim.")


def num_parameters(params: GaussianDecoderParams) -> int:
    """Parameters of a decoder of this size, without making one in memory."""
    with torch.device("meta"):
        return sum(math.prod(value.shape) for value in GaussianDecoder(params).parameters())
