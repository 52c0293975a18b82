"""Contains texture look-ups: bilinear, differentiable, with optional mip levels."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Wrap = Literal["repeat", "clamp"]


def sample_texture(
    texture: Float[Tensor, "texture_height texture_width channel"],
    uvs: Float[Tensor, "*batch 2"],
    *,
    wrap: Wrap = "repeat",
    level: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch channel"]:
    """Bilinear values of a texture, differentiable with respect to texels and coordinates.

    Args:
        texture: row 0 is the top.
        uvs: (0, 0) is the top-left corner of the texture, (1, 1) the bottom-right one; texel
            centres lie at half texels.
        wrap: what lies outside 0..1: the texture again, or its border texels.
        level: mip level per look-up (0 is the texture itself, each further one halves it); None
            reads the texture itself. Not differentiated.
    """
    if wrap not in ("repeat", "clamp"):
        raise ValueError(f"Unknown wrap mode '{wrap}'; choose repeat or clamp.")
    flat = uvs.reshape(-1, 2)
    if level is None:
        return _sample_bilinear(texture, flat, wrap).reshape(*uvs.shape[:-1], texture.shape[-1])
    pyramid = [texture, *_smaller_levels(texture)]
    exact = level.detach().reshape(-1).clamp(0, len(pyramid) - 1)
    lower = exact.floor()
    out = flat.new_zeros(len(flat), texture.shape[-1]).to(texture.dtype)
    for index, image in enumerate(pyramid):  # each look-up mixes the two nearest levels
        weight = (1 - (exact - index).abs()).clamp(min=0)
        chosen = torch.nonzero((lower == index) | ((lower + 1 == index) & (weight > 0))).squeeze(1)
        if len(chosen):
            values = _sample_bilinear(image, flat[chosen], wrap)
            out = out.index_add(0, chosen, weight[chosen, None].to(out.dtype) * values)
    return out.reshape(*uvs.shape[:-1], texture.shape[-1])


def _smaller_levels(texture: Tensor) -> list[Tensor]:
    levels, image = [], texture.permute(2, 0, 1)[None]
    while min(image.shape[-2:]) > 1:
        image = F.avg_pool2d(image, 2, ceil_mode=True, count_include_pad=False)
        levels.append(image[0].permute(1, 2, 0))
    return levels


def _sample_bilinear(texture: Tensor, uvs: Tensor, wrap: Wrap) -> Tensor:
    """Values at ``uvs`` [point, 2]."""
    height, width, channels = texture.shape
    if not len(uvs):
        return texture.new_zeros(0, channels)
    size = uvs.new_tensor([width, height])
    image = texture.permute(2, 0, 1)[None]
    if wrap == "repeat":
        texels = (uvs - uvs.detach().floor()) * size + 1  # one texel of margin on each side
        image = F.pad(image, (1, 1, 1, 1), mode="circular")
    else:
        texels = uvs * size
    grid = texels / uvs.new_tensor([image.shape[3], image.shape[2]]) * 2 - 1
    values = F.grid_sample(
        image,
        grid[None, :, None].to(image.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )  # [1, C, point, 1]
    return values[0, :, :, 0].T
