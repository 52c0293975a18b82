"""Contains the table of trainers that ``run.py train`` knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..progress import ProgressCallback
from .bundle_lora import BundleLoraParams, train_bundle_lora
from .dataset import DatasetParams, draw_dataset
from .embedded_bundle import EmbeddedBundleParams, train_embedded_bundle
from .embedded_views import EmbeddedViewsParams, train_embedded_views
from .geometric_distillation import (
    GeometricDistillationParams,
    train_geometric_distillation,
)
from .gs_decoder import GsDecoderParams, train_gs_decoder
from .orbit_diffusion import EmbeddedOrbitParams, train_embedded_orbit
from .slrm import SlrmParams, train_slrm
from .tile_control import TileControlParams, train_tile_control


@dataclass(frozen=True)
class Trainer:
    """Something that can be trained by a configuration.

    Attributes:
        summary: one line for people.
        params: frozen dataclass that the configuration fills.
        train: (params, progress) -> files made; goes on where an earlier run stopped.
    """

    summary: str
    params: type
    train: Callable[[Any, ProgressCallback], list[Path]]


TRAINERS: dict[str, Trainer] = {
    "bundle-dataset": Trainer(
        "draws bundle images with captions, from a folder of meshes or the built-in generator",
        DatasetParams,
        draw_dataset,
    ),
    "bundle-lora": Trainer(
        "LoRA that teaches a Flux model to draw bundle images, or one of a new style or subject",
        BundleLoraParams,
        train_bundle_lora,
    ),
    "embedded-bundle": Trainer(
        "the embedded text-to-bundle model, from drawing its data to the finished folder",
        EmbeddedBundleParams,
        train_embedded_bundle,
    ),
    "embedded-orbit": Trainer(
        "the embedded orbit model, from drawing its orbits to the finished folder",
        EmbeddedOrbitParams,
        train_embedded_orbit,
    ),
    "embedded-views": Trainer(
        "the embedded text-to-splat model, from drawing its views to the finished folder",
        EmbeddedViewsParams,
        train_embedded_views,
    ),
    "geometric-distillation": Trainer(
        "LoRA that makes the frames of an orbit model agree in 3D, through a Gaussian decoder",
        GeometricDistillationParams,
        train_geometric_distillation,
    ),
    "gs-decoder": Trainer(
        "decoder that turns the latents of an orbit into Gaussians",
        GsDecoderParams,
        train_gs_decoder,
    ),
    "slrm": Trainer(
        "reconstruction of characters with classes (S-LRM), from drawing its characters",
        SlrmParams,
        train_slrm,
    ),
    "tile-control": Trainer(
        "small ControlNet that keeps the content of a blurred bundle image",
        TileControlParams,
        train_tile_control,
    ),
}
