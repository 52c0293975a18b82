"""Contains what the trainers of Flux models share: settings, data, loss, sample sheets, the card.

x_t = (1 - t) x0 + t noise; the network predicts v = noise - x0, and the loss is the mean square of
the error of v. Distilled models take their guidance scale as an input, which stays fixed.

References: Liu et al. 2023, Flow Straight and Fast; Kiss3DGen (Lin et al. 2025). The paper states
neither rank nor learning rate nor noise levels: all defaults here are our choice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..bundle_image import join_bundle
from ..diffusion.controls import AppliedControl
from ..diffusion.diffusers_model import DiffusersModel, load_diffusers_model
from ..diffusion.flux_network import FluxNetwork
from ..diffusion.model import Conditioning, Control
from ..diffusion.placement import Offload
from ..diffusion.schedules import expand_sigma
from ..evaluation.contact_sheet import make_contact_sheet
from ..formats.atomic import atomic_write
from ..formats.png import write_png
from ..pipelines.bundle_prompt import BUNDLE_PREFIX, BundlePrompt
from ..pipelines.text_to_bundle import BundleSampleParams, sample_bundle
from ..progress import ProgressCallback
from .config import settings_as_json
from .dataset import DatasetParams, open_dataset
from .encoded_bundles import EncodedBundles, encode_bundles
from .flow_matching import LevelParams, draw_levels, noised_and_velocity
from .loop import LoopParams, TrainingLoop
from .picture_shards import PictureShards
from .workers import Workers, find_workers

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class SheetParams:
    """What the sample sheets show.

    Attributes:
        prompts: one row each; without any, captions of the dataset.
        rows: how many captions of the dataset.
        steps: sampling steps, 0 for what the model was made for.
        guidance: guidance scale, 0 for what the model was made for.
        seed: of the noise.
    """

    prompts: tuple[str, ...] = ()
    rows: int = 4
    steps: int = 0
    guidance: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class FlowParams:
    """Settings that all trainers of Flux models have.

    Attributes:
        model: folder in diffusers layout, single file, or name of an embedded model.
        data: bundles with captions.
        output: folder of checkpoints, sample sheets, cached encodings and the card.
        result: what is made at the end; by default a name in ``output``.
        prefix: fixed words before every caption; the pooled encoder (CLIP) gets these alone.
        wordings: captions of a bundle that are used, from the first.
        batch: bundles in a step, per process and accumulated part.
        empty_share: share of steps without words; for models that are sampled with classifier-free
            guidance.
        guidance: input of distilled models; 1 as in most trainers, ignored by others.
        levels: how noise levels are drawn.
        dtype: number type of the frozen weights.
        device: such as "cpu" or "cuda"; empty for a graphics card if there is one.
        offload: "model" keeps only the network in use on the card.
        gradient_checkpointing: compute twice and keep less: slower, needs much less memory.
        sheet: sample sheets.
        loop: optimisation.
    """

    model: str
    data: DatasetParams
    output: Path
    result: Path | None = None
    prefix: str = BUNDLE_PREFIX
    wordings: int = 4
    batch: int = 1
    empty_share: float = 0.0
    guidance: float = 1.0
    levels: LevelParams = LevelParams(even_share=0.0)
    dtype: Literal["float16", "bfloat16", "float32"] = "bfloat16"
    device: str = ""
    offload: Offload = "model"
    gradient_checkpointing: bool = True
    sheet: SheetParams = SheetParams()
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(
            steps=2000, learning_rate=1e-4, warmup_steps=50, bfloat16=True, average=0.99
        )
    )

    def __post_init__(self) -> None:
        if self.batch < 1 or self.wordings < 1:
            raise ValueError(
                f"batch and wordings must be at least 1, got {self.batch}, {self.wordings}."
            )
        if not 0.0 <= self.empty_share <= 1.0:
            raise ValueError(f"empty_share must lie within 0..1, got {self.empty_share}.")


@dataclass(frozen=True)
class FlowRun:
    """A run that is ready to train.

    Attributes:
        params: settings.
        workers: processes that train together.
        pictures: the dataset.
        model: all networks.
        bundles: the encoded dataset.
    """

    params: FlowParams
    workers: Workers
    pictures: PictureShards
    model: DiffusersModel
    bundles: EncodedBundles

    @property
    def backbone(self) -> FluxNetwork:
        """The transformer as a denoiser."""
        backbone = self.model.parts.backbone
        assert isinstance(backbone, FluxNetwork)  # `prepare_run` has checked it
        return backbone

    @property
    def cache_folder(self) -> Path:
        """Where encodings are kept."""
        return self.params.output / "cache"

    def draw(
        self, generator: torch.Generator
    ) -> tuple[list[int], Float[Tensor, "bundle channel height width"], Conditioning]:
        """A random batch: numbers, latents, conditioning with the fixed guidance."""
        params = self.params
        numbers, latents, words = self.bundles.draw(
            params.batch, generator, self.workers.device, empty_share=params.empty_share
        )
        return numbers, latents, dataclasses.replace(words, guidance=params.guidance)

    def loss(
        self,
        latents: Float[Tensor, "bundle channel height width"],
        conditioning: Conditioning,
        generator: torch.Generator,
        controls: Sequence[AppliedControl] = (),
    ) -> Float[Tensor, ""]:
        """Flow-matching loss of one batch, in single precision."""
        lowest, highest = self.backbone.sigma_range
        levels = draw_levels(len(latents), generator, self.params.levels)
        levels = levels.clamp(lowest, highest).to(latents)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noised, velocity = noised_and_velocity(latents, noise, levels)
        clean = self.backbone.clean_latents(
            noised, levels, conditioning, controls, self.model.parts.placement
        )
        predicted = (noised - clean) / expand_sigma(levels, noised)  # x0 = x - t v
        return (predicted - velocity).float().square().mean()

    def sample_rows(
        self, controls: Sequence[Sequence[Control]] = ()
    ) -> tuple[list[str], list[Float[Tensor, "height width 3"]]]:
        """Prompts of the sheet and the bundle sampled for each.

        With controls, one list of them per row, the rows are those of `sheet_bundles`.
        """
        sheet = self.params.sheet
        prompts = (
            self.sheet_captions() if controls else list(sheet.prompts) or self.sheet_captions()
        )
        settings = BundleSampleParams(
            tile_px=self.pictures[0].shape[0] // 2,
            steps=sheet.steps,
            guidance=sheet.guidance,
            seed=sheet.seed,
        )
        images = []
        for row, prompt in enumerate(prompts):
            made = sample_bundle(
                self.model,
                BundlePrompt(prompt, self.params.prefix),
                settings,
                controls=controls[row] if controls else (),
            )
            images.append(join_bundle(made.bundles[0]).cpu())
        return prompts, images

    def sheet_bundles(self) -> list[int]:
        """Bundles whose captions the sheet shows, spread over the dataset."""
        rows = min(self.params.sheet.rows, len(self.pictures))
        return [row * len(self.pictures) // rows for row in range(rows)]

    def sheet_captions(self) -> list[str]:
        """First captions of `sheet_bundles`."""
        return [self.pictures.records[index].captions[0] for index in self.sheet_bundles()]

    def write_sheet(self, step: int, rows: list[list[Tensor]], labels: list[str]) -> None:
        """Write one sample sheet."""
        captions = [[label] * len(row) for label, row in zip(labels, rows, strict=True)]
        sheet = make_contact_sheet(rows, tile_labels=captions, title=f"step {step}")
        write_png(self.params.output / "samples" / f"step_{step:06}.png", sheet)

    def files(self) -> list[Path]:
        """Everything in the output folder but the cache."""
        found = self.params.output.rglob("*")
        return sorted(f for f in found if f.is_file() and self.cache_folder not in f.parents)


def prepare_run(params: FlowParams, on_progress: ProgressCallback) -> FlowRun:
    """Draw the dataset, load the model and encode the dataset, as far as that is not done yet.

    Raises:
        ValueError: the model is no Flux model, or the bundles have no size that it takes.
    """
    workers = find_workers(params.device)
    on_progress = workers.told(on_progress)
    with workers.first_goes_ahead():
        pictures = open_dataset(params.data, on_progress)
    model = load_diffusers_model(
        params.model, dtype=DTYPES[params.dtype], device=workers.device, offload=params.offload
    )
    if not isinstance(model.parts.backbone, FluxNetwork):
        raise ValueError(
            f"'{params.model}' is a {model.parts.backbone.architecture} model; this trainer "
            "trains Flux models."
        )
    with workers.first_goes_ahead():
        bundles = encode_bundles(
            model,
            params.model,
            pictures,
            params.output / "cache",
            prefix=params.prefix,
            max_wordings=params.wordings,
            on_progress=on_progress,
        )
    return FlowRun(params, workers, pictures, model, bundles)


def write_card(run: FlowRun, trainer: str, loop: TrainingLoop) -> None:
    """Write what was trained on what, with the losses, as ``training.json``."""
    card = {
        "trainer": trainer,
        "bundles": len(run.pictures),
        "steps": loop.step,
        "workers": run.workers.count,
        "torch": torch.__version__,
        "settings": settings_as_json(run.params),
        "losses": loop.history,
    }
    with atomic_write(run.params.output / "training.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1), encoding="utf-8")
