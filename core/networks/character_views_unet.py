"""Contains the UNet of Era3D and StdGEN: colours and normals of six views at once.

It is the UNet of Stable Diffusion 2.1 (unCLIP) with `multiview_attention` and a pose head: from the
middle of the network it estimates elevation e and focal length f of the given picture, and tells
its second half [sin e, sin f, cos e, cos f]. Keys are those of the published checkpoint.

Reference: Li et al. 2024, "Era3D", Sec. 3.2 and 3.3; He et al. 2025, "StdGEN", Sec. 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .multiview_attention import NUM_DOMAINS, share_views

NUM_VIEWS = 6
POSE_NUMBERS = 4


class _ResidualLayer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        silu = nn.functional.silu
        return silu(x + self.linear2(silu(self.linear1(x))))


class Regressor(nn.Module):
    """One number from features."""

    def __init__(self, num_inputs: int, dim: int, num_blocks: int) -> None:
        super().__init__()
        self.linear_in = nn.Sequential(nn.Linear(num_inputs, dim), nn.SiLU())
        self.blocks = nn.ModuleList(_ResidualLayer(dim) for _ in range(num_blocks))
        self.linear_out = nn.Linear(dim, 1)

    def forward(self, features: Float[Tensor, "entry feature"]) -> Float[Tensor, "entry 1"]:
        """The number of each entry."""
        hidden = self.linear_in(features)
        for block in self.blocks:
            hidden = block(hidden)
        return self.linear_out(hidden)


class CharacterViewsUNet(nn.Module):
    """The denoising network; the batch is [domain, branch, view], normals before colours.

    Args:
        plain: diffusers' UNet of the same sizes with a projected class embedding; its layers are
            taken over.
        num_views: of each object.
        num_regress_blocks: depth of the two regressors of the pose head.
    """

    def __init__(self, plain: Any, num_views: int = NUM_VIEWS, num_regress_blocks: int = 3) -> None:
        super().__init__()
        from diffusers.models.embeddings import TimestepEmbedding

        share_views(plain, num_views)
        self.config = plain.config
        self.num_views = num_views
        self.conv_in, self.time_proj = plain.conv_in, plain.time_proj
        self.time_embedding, self.class_embedding = plain.time_embedding, plain.class_embedding
        self.down_blocks, self.mid_block = plain.down_blocks, plain.mid_block
        self.up_blocks = plain.up_blocks
        self.conv_norm_out, self.conv_act = plain.conv_norm_out, plain.conv_act
        self.conv_out = plain.conv_out
        deepest = int(plain.config.block_out_channels[-1])
        told = int(plain.time_embedding.linear_2.out_features)
        self.camera_embedding = TimestepEmbedding(POSE_NUMBERS, told)
        self.elevation_regressor = Regressor(NUM_DOMAINS * deepest, deepest, num_regress_blocks)
        self.focal_regressor = Regressor(NUM_DOMAINS * deepest, deepest, num_regress_blocks)

    @property
    def class_channels(self) -> int:
        """Length of the class vector."""
        return int(self.config.projection_class_embeddings_input_dim)

    @property
    def token_width(self) -> int:
        """Width of the text's tokens."""
        return int(self.config.cross_attention_dim)

    def forward(
        self,
        sample: Float[Tensor, "batch channels_in height width"],
        timestep: int,
        text: Float[Tensor, "batch word text_width"],
        classes: Float[Tensor, "batch class_channels"],
    ) -> Float[Tensor, "batch channels_out height width"]:
        """What the network predicts.

        Args:
            sample: noisy latents and, behind them, the latents of the picture.
            timestep: of the training schedule.
            text: selects view and domain.
            classes: embedding of the picture and code of the level.

        Raises:
            ValueError: the batch is not made of both domains of all views.
        """
        group = NUM_DOMAINS * self.num_views
        if len(sample) % group:
            raise ValueError(
                f"The network paints {NUM_DOMAINS} domains of {self.num_views} views together; a "
                f"batch of {len(sample)} is no multiple of {group}."
            )
        steps = torch.full((len(sample),), timestep, device=sample.device)
        told = self.time_embedding(self.time_proj(steps).to(sample.dtype))
        told = told + self.class_embedding(classes)
        hidden = self.conv_in(sample)
        skipped = [hidden]
        for block in self.down_blocks:
            hidden, passed = block(hidden, temb=told, **_text_of(block, text))
            skipped += passed
        hidden = self.mid_block(hidden, temb=told, encoder_hidden_states=text)
        told = told + self.embed_pose(hidden)
        for block in self.up_blocks:
            count = len(block.resnets)
            passed, skipped = tuple(skipped[-count:]), skipped[:-count]
            size = skipped[-1].shape[-2:] if skipped else None
            hidden = block(hidden, passed, temb=told, upsample_size=size, **_text_of(block, text))
        return self.conv_out(self.conv_act(self.conv_norm_out(hidden)))

    def embed_pose(
        self, hidden: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch told"]:
        """What the second half is told: the pose estimated from the middle of the network.

        Both domains of a view are read together; all views of a branch share the mean.
        """
        pooled = hidden.detach().mean(dim=(2, 3))
        features = torch.cat(pooled.chunk(NUM_DOMAINS), dim=1)
        elevation, focal = (
            regressor(features).unflatten(0, (-1, self.num_views)).mean(dim=1)
            for regressor in (self.elevation_regressor, self.focal_regressor)
        )
        pose = torch.cat([elevation.sin(), focal.sin(), elevation.cos(), focal.cos()], dim=1)
        branches = self.camera_embedding(pose)
        return branches.repeat_interleave(self.num_views, dim=0).repeat(NUM_DOMAINS, 1)


def _text_of(block: Any, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
