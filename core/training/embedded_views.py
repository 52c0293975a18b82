"""Contains the making of the embedded text-to-splat model, from nothing to a diffusers folder.

Stages: draw single views of procedural objects, encode them with the autoencoder that all embedded
models share, train UNet and text encoder, write the folder. Each stage is kept and resumed.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diffusion.view_prompts import write_view_prompt
from ..evaluation.contact_sheet import make_contact_sheet
from ..formats.atomic import atomic_write
from ..formats.png import write_png
from ..progress import ProgressCallback, ignore_progress
from .bundle_tiles import ColorTiles
from .embedded_bundle import EMBEDDED_CATEGORIES, held_out_cases
from .flux_bundle import encode_pictures, fit_color_directions
from .loop import TrainingLoop
from .picture_shards import PictureShards
from .view_dataset import ViewDatasetParams, draw_view_dataset
from .view_diffusion import (
    ViewDiffusionParams,
    ViewDiffusionTraining,
    make_view_tokenizer,
    save_view_model,
)
from .view_samples import sample_views

LOGGER = logging.getLogger(__name__)
MIN_COLOR_SHARE = 0.95
SHEET_PROMPTS = 12
SHEET_VIEWS = ("front", "side", "back")


@dataclass(frozen=True)
class EmbeddedViewsParams:
    """Settings of all stages.

    Attributes:
        work: folder of data and checkpoints.
        result: folder of the finished model.
        vae: folder of the autoencoder, in diffusers layout.
        views: what the model learns.
        model: UNet and text encoder.
        bundles: folder of bundles drawn for the embedded bundle model; their colour tiles are
            views too. None for none.
        bundle_share: share of the views that are such tiles, in a step.
        guidance: scale that nodes use by default.
        compile_network: let torch compile the network; needs a C++ compiler.
    """

    work: Path
    result: Path
    vae: Path
    views: ViewDatasetParams = field(
        default_factory=lambda: ViewDatasetParams(24_000, EMBEDDED_CATEGORIES)
    )
    model: ViewDiffusionParams = field(default_factory=ViewDiffusionParams)
    bundles: Path | None = None
    bundle_share: float = 0.6
    guidance: float = 4.0
    compile_network: bool = False


def train_embedded_views(
    params: EmbeddedViewsParams, on_progress: ProgressCallback = ignore_progress
) -> list[Path]:
    """Run all stages that are not done yet; returns the files of the finished model.

    Raises:
        ValueError: there is no autoencoder, or it has not learnt hues.
    """
    if not (params.vae / "config.json").is_file():
        raise ValueError(
            f"{params.vae} holds no autoencoder; train the embedded bundle model first, whose "
            "autoencoder this model shares (run.py train embedded-bundle embedded_bundle)."
        )
    draw_view_dataset(params.work / "views", params.views, on_progress)
    pictures = PictureShards(params.work / "views", params.views.count)
    train_views(params, pictures, on_progress)
    return sorted(path for path in params.result.rglob("*") if path.is_file())


def train_views(
    params: EmbeddedViewsParams, pictures: PictureShards, on_progress: ProgressCallback
) -> None:
    """Train UNet and text encoder on the encoded views and write the whole folder."""
    vae = _read_vae(params.vae)
    latents = encoded_views(params.work / "latents.npy", pictures, vae)
    directions, share = fit_color_directions(latents, pictures, samples=2000)
    LOGGER.info("Share of colour that is linear in the latents: %.4f", share)
    if share < MIN_COLOR_SHARE:
        raise ValueError(
            f"The autoencoder has not learnt hues: a linear read-out explains {share:.3f} of the "
            f"colours, expected {MIN_COLOR_SHARE}. Train it longer."
        )
    tokenizer = make_view_tokenizer(params.model)
    torch.manual_seed(params.model.loop.seed)
    more = None
    if params.bundles is not None:
        tiles = ColorTiles(PictureShards(params.bundles))
        more = encoded_views(params.work / "tile_latents.npy", tiles, vae), tiles.records
    training = ViewDiffusionTraining(
        latents, pictures.records, tokenizer, directions, params.model,
        more=more, more_share=params.bundle_share,
    )  # fmt: skip
    if params.compile_network:
        training.unet.compile()
    loop = TrainingLoop(training, params.work / "model", params.model.loop)

    def sample(step: int) -> None:
        sheet = draw_sheet(params, training, tokenizer, vae)
        write_png(params.work / f"sheet_{step:06}.png", sheet)

    loop.run(training.loss, on_progress=on_progress, sample=sample)
    with loop.averaged():
        save_view_model(training, tokenizer, params.result, _read_vae(params.vae))
        _write_facts(params, training, loop)


def encoded_views(path: Path, pictures: Sequence[np.ndarray], vae: Any) -> Tensor:
    """Latents of all views in half precision, made once and kept in a file."""
    if path.is_file():
        return torch.from_numpy(np.load(path, allow_pickle=False))
    latents = encode_pictures(vae, pictures, batch=64)
    with atomic_write(path) as temporary:
        np.save(temporary, latents.numpy())
    return latents


def draw_sheet(
    params: EmbeddedViewsParams, training: ViewDiffusionTraining, tokenizer: Any, vae: Any
) -> Tensor:
    """Pictures of prompts that training never saw, from the front, the side and the back."""
    cases = held_out_cases(params.views.categories)
    prompts = [case.prompt for case in cases[:: max(len(cases) // SHEET_PROMPTS, 1)]]
    rows = [
        list(
            sample_views(
                training, tokenizer, vae, [write_view_prompt(text, view) for text in prompts],
                scale=params.guidance,
            )
        )
        for view in SHEET_VIEWS
    ]  # fmt: skip
    return make_contact_sheet(rows, row_labels=SHEET_VIEWS, column_labels=prompts)


def _read_vae(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder).float().eval()
    vae.register_to_config(_name_or_path="")  # diffusers notes where it was loaded from
    return vae


def _write_facts(
    params: EmbeddedViewsParams, training: ViewDiffusionTraining, loop: TrainingLoop
) -> None:
    settings = {
        "views": dataclasses.asdict(params.views),
        "model": dataclasses.asdict(params.model),
    }
    content = {
        "defaults": {
            "tile_px": params.views.size_px,
            "guidance": params.guidance,
            "guidance_kind": "classifier_free",
            "steps": 20,
        },
        "training": {
            "views": len(training.latents),
            "steps": loop.step,
            "settings": settings,
            "losses": loop.history,
        },
    }
    with atomic_write(params.result / "lift3d.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
