"""A model with known wishes, and a small run: what the tests of distillation share."""

from __future__ import annotations

from dataclasses import replace

import torch
from lift3d.core.diffusion.distillation import AlignmentParams
from lift3d.core.diffusion.model import Conditioning, LatentFormat, ModelDefaults
from lift3d.core.diffusion.objective import ObjectiveParams
from lift3d.core.diffusion.trajectories import NodeParams
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.pipelines.camera_schedule import CameraScheduleParams
from lift3d.core.pipelines.distill_loop import DistillationParams
from lift3d.core.pipelines.initial_splats import InitialSplatParams, splats_in_shape
from lift3d.core.pipelines.splat_optimizer import (
    DensifyParams,
    LearningRates,
    SplatOptimizerParams,
)
from lift3d.core.pipelines.splat_target import SplatTargetParams
from lift3d.core.pipelines.text_to_splat import TextToSplatParams
from torch import Tensor

RED = (0.9, 0.1, 0.1)
SIZE = 32
CAMERAS = CameraScheduleParams(
    elevation_deg=(0.0, 30.0), azimuth_begin_deg=180.0, radius_begin=(4.5, 4.5),
    radius_end=(4.5, 4.5), fov_begin_deg=(30.0, 30.0), fov_end_deg=(30.0, 30.0), expand_every=0,
    target_jitter=0.0,
)  # fmt: skip


class WishfulModel:
    """Knows what it wants: a picture of one colour in the middle, whatever the view.

    Latents are 4x4 means of colours, -1..1. For the empty text it expects any picture (a normal
    distribution), for another its own.
    """

    family = "variance_preserving"
    latent_format = LatentFormat(channels=3, downscale=4)
    sigma_range = (0.02, 15.0)
    device = torch.device("cpu")
    defaults = ModelDefaults(SIZE, 7.5)

    def __init__(self, color=RED) -> None:
        self.color = color
        self.calls = 0
        self.answers_nan_at: set[int] = set()
        self.weight = torch.ones((), requires_grad=True)

    def wish(self) -> Tensor:
        side = SIZE // 4
        place = (torch.arange(side) + 0.5) / side * 2 - 1
        inside = (place[:, None] ** 2 + place[None] ** 2 < 0.3).float()
        color = torch.tensor(self.color)[:, None, None]
        return 2 * (inside * color + (1 - inside)) - 1

    def encode_text(self, prompts, *, pooled_prompts=None) -> Conditioning:
        return Conditioning(torch.tensor([[[float(bool(p))]] for p in prompts]))

    def denoise(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        self.calls += 1
        if self.calls in self.answers_nan_at:
            return latents * torch.nan
        anything = latents / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)
        asked = conditioning.tokens[:, 0].reshape(-1, 1, 1, 1)
        return self.weight * (asked * self.wish() + (1 - asked) * anything)

    def encode_image(self, images: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2) * 2 - 1, 4)
        return self.weight * small

    def decode_latents(self, latents: Tensor) -> Tensor:
        large = torch.nn.functional.interpolate(latents, scale_factor=4, mode="nearest")
        return ((large + 1) / 2).permute(0, 2, 3, 1).clamp(0, 1)

    def preview_latents(self, latents: Tensor) -> Tensor:
        return self.decode_latents(latents[:1])[0]

    def with_image_prompt(self, conditioning, image, strength):
        raise ValueError("no image prompts")

    def with_lora(self, path, strength=1.0):
        raise ValueError("no LoRA")

    def load_control(self, path):
        raise ValueError("no ControlNet")


def small_params(iterations: int = 8, **run) -> TextToSplatParams:
    """Few, small pictures; densification from the start."""
    return TextToSplatParams(
        ObjectiveParams(
            guidance_scale=1.5,  # a model without doubts overshoots with more
            perp_neg=None,
            alignment=AlignmentParams(NodeParams(2, (150, 200), (100, 150), 600, 400)),
        ),
        DistillationParams(
            **{
                "iterations": iterations, "views": 2, "size_px": SIZE, "cameras": CAMERAS,
                "white_share": 1.0, "black_share": 0.0, "preview_px": 16,
                "color_smoothness": 0.01, "depth_smoothness": 0.01, **run,
            }
        ),
        SplatTargetParams(
            SplatOptimizerParams(
                LearningRates(
                    means=(5e-3, 1e-3), base=(0.05, 0.02), opacity_logits=(0.1, 0.05),
                    log_scales=(0.02, 0.01),
                ),
                DensifyParams(
                    every=3, start=2, gradient_threshold=1e-3, reset_opacity_every=0,
                    max_gaussians=400, oversize_after=10**6,
                ),
            ),
            extent=1.0,
            scale_weight=0.01,
        ),
    )  # fmt: skip


def with_densify(params: TextToSplatParams, **changes) -> TextToSplatParams:
    optimizer = params.splats.optimizer
    densify = replace(optimizer.densify, **changes)
    splats = replace(params.splats, optimizer=replace(optimizer, densify=densify))
    return replace(params, splats=splats)


def start(count: int = 150) -> GaussianCloud:
    return splats_in_shape(InitialSplatParams(count, radius=0.6))


def same(first: GaussianCloud, second: GaussianCloud) -> bool:
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
