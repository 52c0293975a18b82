"""Contains the making of the embedded text-to-bundle model, from nothing to a diffusers folder.

Stages: draw procedural bundles, train the autoencoder, whiten its latents, encode the bundles,
train transformer and text encoder, write the folder. Each stage is kept and resumed.
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

from ..bundle_image import join_bundle
from ..datasets.captions import canonical_caption, caption_words
from ..datasets.materials import HUES
from ..datasets.procedural_objects import ACCENT_PARTS, VOCABULARY
from ..evaluation.contact_sheet import make_contact_sheet
from ..formats.atomic import atomic_write
from ..formats.png import write_png
from ..pipelines.bundle_prompt import BUNDLE_PREFIX, BundlePrompt
from ..pipelines.prompt_fidelity import PromptCase
from ..pipelines.text_to_bundle import BundleSampleParams, sample_bundle
from ..progress import ProgressCallback, ignore_progress
from .bundle_dataset import BundleDatasetParams, draw_bundle_dataset, held_out_pairs
from .flux_bundle import (
    FluxBundleParams,
    FluxBundleTraining,
    encode_pictures,
    fit_color_directions,
    save_model,
)
from .loop import TrainingLoop
from .picture_shards import JoinedPictures, PictureShards
from .vae import VaeParams, VaeTraining, whiten_latents
from .vae_decoder import DecoderParams, DecoderTraining
from .words import make_word_tokenizer

LOGGER = logging.getLogger(__name__)
MIN_COLOR_SHARE = 0.99
SHEET_PROMPTS = 12

EMBEDDED_CATEGORIES = (
    "mug", "chair", "table", "lamp", "mushroom", "tree", "house", "car",
    "rocket", "snowman", "vase", "sword", "cake", "boat", "bird", "robot",
)  # fmt: skip


@dataclass(frozen=True)
class EmbeddedBundleParams:
    """Settings of all stages.

    Attributes:
        work: folder of data and checkpoints.
        result: folder of the finished model.
        bundles: what transformer and autoencoder learn.
        free_views: more pictures for the autoencoder: all categories from any side.
        vae: autoencoder.
        decoder: polish of its decoder, which leaves the latents alone.
        flux: transformer and text encoder.
        guidance: scale that nodes use by default.
        compile_network: let torch compile the transformer; needs a C++ compiler, a third faster.
    """

    work: Path
    result: Path
    bundles: BundleDatasetParams = field(
        default_factory=lambda: BundleDatasetParams(24_000, EMBEDDED_CATEGORIES)
    )
    free_views: BundleDatasetParams = field(
        default_factory=lambda: BundleDatasetParams(
            5_000, seed=2_000_000, hold_out=False, free_views=True
        )
    )
    vae: VaeParams = field(default_factory=VaeParams)
    decoder: DecoderParams = field(default_factory=DecoderParams)
    flux: FluxBundleParams = field(default_factory=FluxBundleParams)
    guidance: float = 2.5
    compile_network: bool = False


def train_embedded_bundle(
    params: EmbeddedBundleParams, on_progress: ProgressCallback = ignore_progress
) -> list[Path]:
    """Run all stages that are not done yet; returns the files of the finished model."""
    draw_bundle_dataset(params.work / "free_views", params.free_views, on_progress)
    draw_bundle_dataset(params.work / "bundles", params.bundles, on_progress)
    pictures = PictureShards(params.work / "bundles", params.bundles.count)
    free_views = PictureShards(params.work / "free_views", params.free_views.count)
    train_vae(params, JoinedPictures((free_views, pictures)), on_progress)
    train_flux(params, pictures, on_progress)
    polish_decoder(params, pictures, on_progress)
    return sorted(path for path in params.result.rglob("*") if path.is_file())


def train_vae(
    params: EmbeddedBundleParams, pictures: JoinedPictures, on_progress: ProgressCallback
) -> None:
    """Train the autoencoder, whiten it and write it in half precision, unless it is there."""
    if (params.result / "vae" / "config.json").is_file():
        return
    torch.manual_seed(params.vae.loop.seed)
    training = VaeTraining(pictures, params.vae)
    loop = TrainingLoop(training, params.work / "vae", params.vae.loop)
    loop.run(training.loss, on_progress=on_progress)
    vae = training.vae.float().eval()
    whiten_latents(vae, pictures)
    vae.half().save_pretrained(params.result / "vae")


def train_flux(
    params: EmbeddedBundleParams, pictures: PictureShards, on_progress: ProgressCallback
) -> None:
    """Train transformer and text encoder on the encoded bundles and write the whole folder."""
    latents = encoded_latents(params, pictures)
    directions, share = fit_color_directions(latents, pictures)
    LOGGER.info("Share of colour that is linear in the latents: %.4f", share)
    if share < MIN_COLOR_SHARE:
        raise ValueError(
            f"The autoencoder has not learnt hues: a linear read-out explains {share:.3f} of the "
            f"colours, expected {MIN_COLOR_SHARE}. Train it longer (vae.loop.steps)."
        )
    tokenizer = make_word_tokenizer(
        VOCABULARY, max_length=params.flux.text_tokens, ignored=[BUNDLE_PREFIX]
    )
    torch.manual_seed(params.flux.loop.seed)
    training = FluxBundleTraining(latents, pictures.records, tokenizer, directions, params.flux)
    if params.compile_network:
        training.transformer.compile()
    loop = TrainingLoop(training, params.work / "flux", params.flux.loop)

    def sample(step: int) -> None:
        folder = params.work / "samples" / "model"
        write_folder(params, training, tokenizer, folder, loop)
        write_sheet(params, folder, params.work / "samples" / f"step_{step:06}.png")

    loop.run(training.loss, on_progress=on_progress, sample=sample)
    with loop.averaged():
        write_folder(params, training, tokenizer, params.result, loop)


def polish_decoder(
    params: EmbeddedBundleParams, pictures: PictureShards, on_progress: ProgressCallback
) -> None:
    """Train the decoder alone on the latents that the transformer was trained on."""
    from diffusers import AutoencoderKL

    if params.decoder.loop is None:
        return
    vae = AutoencoderKL.from_pretrained(params.result / "vae").float()
    training = DecoderTraining(vae, encoded_latents(params, pictures), pictures, params.decoder)
    loop = TrainingLoop(training, params.work / "decoder", params.decoder.loop)
    loop.run(training.loss, on_progress=on_progress)
    vae.register_to_config(_name_or_path="")  # diffusers notes where it was loaded from
    vae.half().save_pretrained(params.result / "vae")


def encoded_latents(params: EmbeddedBundleParams, pictures: PictureShards) -> Tensor:
    """Latents of all bundles in half precision, made once."""
    from diffusers import AutoencoderKL

    path = params.work / "latents.npy"
    if path.is_file():
        return torch.from_numpy(np.load(path, allow_pickle=False))
    vae = AutoencoderKL.from_pretrained(params.result / "vae").float().eval()
    latents = encode_pictures(vae, pictures, bfloat16=params.vae.loop.bfloat16)
    with atomic_write(path) as temporary:
        np.save(temporary, latents.numpy())
    return latents


def write_folder(
    params: EmbeddedBundleParams,
    training: FluxBundleTraining,
    tokenizer: Any,
    folder: Path,
    loop: TrainingLoop,
) -> None:
    """Write the layout of a FluxPipeline without CLIP, and ``lift3d.json``."""
    import shutil

    save_model(training, tokenizer, folder)
    if folder != params.result:
        shutil.copytree(params.result / "vae", folder / "vae", dirs_exist_ok=True)
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "FluxPipeline",
            "_diffusers_version": "0.32.0",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": [None, None],
            "text_encoder_2": ["transformers", "T5EncoderModel"],
            "tokenizer": [None, None],
            "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
            "transformer": ["diffusers", "FluxTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    _write_json(
        folder / "scheduler" / "scheduler_config.json",
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3},
    )
    _write_json(
        folder / "lift3d.json",
        {
            "defaults": {
                "tile_px": params.bundles.tile_px,
                "guidance": params.guidance,
                "guidance_kind": "classifier_free",
                "steps": 20,
            },
            "words": known_words(training),
            "training": {
                "bundles": len(training.latents),
                "steps": loop.step,
                "settings": _plain(dataclasses.asdict(params)),
                "losses": loop.history,
            },
        },
    )


def known_words(training: FluxBundleTraining) -> list[str]:
    """Words that occur in the captions, sorted."""
    return sorted(
        {
            word
            for record in training.records
            for text in record.captions
            for word in caption_words(text)
        }
    )


def held_out_cases(categories: Sequence[str] = EMBEDDED_CATEGORIES) -> list[PromptCase]:
    """The prompts of all pairs that training never shows; every second one names a second hue."""
    cases = []
    for index, (category, hue) in enumerate(held_out_pairs(categories)):
        others = [name for name in HUES if name != hue]
        second = others[(3 * index + 2) % len(others)] if index % 2 != index // 2 % 2 else None
        part = ACCENT_PARTS[category] if second else None
        prompt = canonical_caption(category, hue, part, second)
        cases.append(PromptCase(prompt, category, hue, second))
    return cases


def write_sheet(params: EmbeddedBundleParams, folder: Path, path: Path) -> None:
    """Sample the sheet's prompts with the model of a folder and write one picture."""
    from ..diffusion.diffusers_model import load_diffusers_model

    model = load_diffusers_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    cases = held_out_cases(params.bundles.categories)
    prompts = [case.prompt for case in cases[:: max(len(cases) // SHEET_PROMPTS, 1)]]
    tiles = []
    for prompt in prompts:
        made = sample_bundle(model, BundlePrompt(prompt), BundleSampleParams(method="euler"))
        tiles.append(join_bundle(made.bundles[0]))
    rows = [tiles[first : first + 3] for first in range(0, len(tiles), 3)]
    captions = [prompts[first : first + 3] for first in range(0, len(tiles), 3)]
    write_png(path, make_contact_sheet(rows, tile_labels=captions))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not isinstance(item, Path)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
