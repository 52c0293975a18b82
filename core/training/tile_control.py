"""Contains the training of a tile ControlNet: it keeps the content of a degraded bundle image.

The network is a copy of the first blocks of the transformer whose output is added to the blocks of
the frozen original. Its condition is the degraded bundle, encoded by the model's own autoencoder
and packed as its latents are; published Flux ControlNets of this layout do the same.

References: Zhang et al. 2023, Adding Conditional Control; Kiss3DGen (Lin et al. 2025).
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..bundle_image import split_bundle
from ..diffusion.controls import AppliedControl, ControlNetwork
from ..diffusion.model import Control
from ..diffusion.placement import Offload
from ..formats.atomic import atomic_write
from ..pipelines.control_images import ControlImageParams, make_control_image
from ..progress import ProgressCallback
from .encoded_bundles import encode_pictures
from .flux_flow import DTYPES, FlowParams, FlowRun, prepare_run, write_card
from .loop import Losses, TrainingLoop

TRAINER = "tile-control"
RESULT = "control_tile"


@dataclass(frozen=True)
class DegradeParams:
    """How bundles are degraded: blurred, or shrunk and enlarged again, half of them each.

    Attributes:
        variants: degraded versions of each bundle.
        blur_share: largest standard deviation of the blur, as a share of the side of a tile.
        down_scale: largest factor of shrinking.
        clean_share: share of pictures that stay as they are.
    """

    variants: int = 2
    blur_share: float = 0.05
    down_scale: float = 8.0
    clean_share: float = 0.1

    def __post_init__(self) -> None:
        if self.variants < 1 or self.down_scale < 1 or self.blur_share < 0:
            raise ValueError(
                "variants and down_scale must be at least 1 and blur_share not negative, got "
                f"{self.variants}, {self.down_scale}, {self.blur_share}."
            )


@dataclass(frozen=True)
class TileControlParams(FlowParams):
    """Settings of the trainer ``tile-control``.

    Attributes:
        double_blocks: double blocks of the ControlNet, at most those of the model.
        single_blocks: its single blocks.
        degrade: how the conditions are made.
        file_dtype: number type in the file.
    """

    # Transformer and ControlNet run in every step: taking turns on the card would be slow.
    offload: Offload = "none"
    double_blocks: int = 1
    single_blocks: int = 2
    degrade: DegradeParams = DegradeParams()
    file_dtype: Literal["float16", "bfloat16", "float32"] = "float16"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype != "float32" and not self.loop.bfloat16:
            raise ValueError(
                f"dtype {self.dtype} needs loop.bfloat16: true, because the ControlNet itself is "
                "trained in single precision."
            )


def degrade_bundle(
    picture: Float[Tensor, "height width 3"], row: int, params: DegradeParams
) -> Float[Tensor, "height width 3"]:
    """Degraded bundle; how, depends on the number of the row only."""
    generator = torch.Generator().manual_seed(row)
    kept, kind, amount = torch.rand(3, generator=generator).tolist()
    if kept < params.clean_share:
        return picture
    bundle = split_bundle(picture)
    if kind < 0.5:
        blur_px = amount * params.blur_share * bundle.rgb_views.shape[1]
        return make_control_image(bundle, "blur", ControlImageParams(blur_px=blur_px))
    # Even in the logarithm: a step from 1 to 2 loses as much as one from 4 to 8.
    return make_control_image(
        bundle, "tile", ControlImageParams(down_scale=params.down_scale**amount)
    )


def make_control(transformer: Any, params: TileControlParams) -> Any:
    """A ControlNet that begins as a copy of the transformer's first blocks and adds nothing yet.

    Raises:
        ValueError: more blocks than the transformer has.
    """
    from diffusers import FluxControlNetModel

    limits = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
    if not (0 <= params.double_blocks <= limits[0] and 0 <= params.single_blocks <= limits[1]):
        raise ValueError(
            f"The model has {limits[0]} double and {limits[1]} single blocks; the ControlNet "
            f"cannot have {params.double_blocks} and {params.single_blocks}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.loop.seed)
        return FluxControlNetModel.from_transformer(
            transformer,
            num_layers=params.double_blocks,
            num_single_layers=params.single_blocks,
            attention_head_dim=transformer.config.attention_head_dim,
            num_attention_heads=transformer.config.num_attention_heads,
        ).float()


class ControlTraining(nn.Module):
    """The ControlNet before the frozen transformer, and the loss on random degraded bundles."""

    def __init__(self, run: FlowRun, control: Any, conditions: np.ndarray, variants: int) -> None:
        super().__init__()
        self.run = run
        self.control = control
        self.conditions = conditions
        self.variants = variants

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """Loss of one batch."""
        numbers, latents, conditioning = self.run.draw(generator)
        which = torch.randint(self.variants, (len(numbers),), generator=generator).tolist()
        rows = [
            self.variants * number + variant for number, variant in zip(numbers, which, strict=True)
        ]
        picture = torch.from_numpy(self.conditions[rows]).float().to(latents.device)
        # The picture is encoded already, so the control itself needs none.
        control = Control(self.handle(), torch.zeros(1, 1, 1, 3))
        applied = AppliedControl(control, picture)
        return {"total": self.run.loss(latents, conditioning, generator, [applied])}

    def handle(self) -> ControlNetwork:
        """The ControlNet as diffusion models take it."""
        return ControlNetwork(self.control, self.run.backbone.architecture, RESULT)


def train_tile_control(params: TileControlParams, on_progress: ProgressCallback) -> list[Path]:
    """Train a tile ControlNet and write it; a stopped run goes on where it was.

    Returns:
        The files of the run, by the first process; the ControlNet is the folder ``params.result``.
    """
    run = prepare_run(params, on_progress)
    transformer = run.backbone.network.requires_grad_(False)
    control = make_control(transformer, params)
    with run.workers.first_goes_ahead():
        conditions = encode_pictures(
            run.model,
            params.model,
            run.pictures,
            run.cache_folder,
            "conditions",
            change=lambda picture, row: degrade_bundle(picture, row, params.degrade),
            variants=params.degrade.variants,
            change_name=repr(params.degrade),
            on_progress=run.workers.told(on_progress),
        )
    if params.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
        control.enable_gradient_checkpointing()
    for network in (transformer, control):
        run.model.parts.placement.prepare(network)
    training = ControlTraining(run, control, conditions, params.degrade.variants)
    loop = TrainingLoop(training, params.output, params.loop, run.workers)
    told = run.workers.told(on_progress)
    loop.run(training.loss, on_progress=told, sample=_sheet_writer(training, params))
    result = params.result or params.output / RESULT
    if not run.workers.is_first:
        return []
    with loop.averaged():
        save_control(result, control, DTYPES[params.file_dtype])
    write_card(run, TRAINER, loop)
    return sorted({*run.files(), *result.iterdir()})


def save_control(folder: Path, control: Any, dtype: torch.dtype) -> None:
    """Write a ControlNet in diffusers layout; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        copied = copy.deepcopy(control).to("cpu", dtype)
        copied.register_to_config(_name_or_path="")  # diffusers notes where its base lay
        copied.save_pretrained(made)
        for path in Path(made).iterdir():
            with atomic_write(folder / path.name) as temporary:
                shutil.copyfile(path, temporary)


def _sheet_writer(training: ControlTraining, params: TileControlParams) -> Callable[[int], None]:
    """Sheets with the condition, what the model makes of it, and the original."""
    run = training.run

    def write(step: int) -> None:
        chosen = run.sheet_bundles()
        originals = [torch.from_numpy(run.pictures[index]).float() / 255 for index in chosen]
        degraded = [
            degrade_bundle(image, params.degrade.variants * index, params.degrade)
            for index, image in zip(chosen, originals, strict=True)
        ]
        controls = [[Control(training.handle(), image[None])] for image in degraded]
        prompts, images = run.sample_rows(controls)
        rows = [list(row) for row in zip(degraded, images, originals, strict=True)]
        run.write_sheet(step, rows, prompts)

    return write
