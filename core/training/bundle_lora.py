"""Contains the training of a bundle LoRA: a Flux model learns to draw 3D bundle images.

On FLUX.1-dev this makes what Kiss3DGen publishes as ``rgb_normal.safetensors``; on the embedded
model it adds a subject or a style, as the paper's "Doll" LoRA does.

Reference: Kiss3DGen (Lin et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..progress import ProgressCallback
from .flux_flow import FlowParams, FlowRun, prepare_run, write_card
from .loop import Losses, TrainingLoop
from .lora_adapter import LoraParams, add_lora, save_lora

TRAINER = "bundle-lora"
RESULT = "bundle_lora.safetensors"


@dataclass(frozen=True)
class BundleLoraParams(FlowParams):
    """Settings of the trainer ``bundle-lora``.

    Attributes:
        lora: size of the LoRA.
    """

    lora: LoraParams = LoraParams()


class LoraTraining(nn.Module):
    """The transformer with its LoRA, and the loss on random bundles."""

    def __init__(self, run: FlowRun) -> None:
        super().__init__()
        self.run = run
        self.transformer = run.backbone.network

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """Loss of one batch."""
        _, latents, conditioning = self.run.draw(generator)
        return {"total": self.run.loss(latents, conditioning, generator)}


def train_bundle_lora(params: BundleLoraParams, on_progress: ProgressCallback) -> list[Path]:
    """Train a LoRA and write it; a stopped run goes on where it was.

    Returns:
        The files of the run, by the first process; the LoRA is ``params.result``.
    """
    run = prepare_run(params, on_progress)
    transformer = run.backbone.network
    layers = add_lora(transformer, params.lora, seed=params.loop.seed)
    if params.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    run.model.parts.placement.prepare(transformer)
    training = LoraTraining(run)
    loop = TrainingLoop(training, params.output, params.loop, run.workers)
    loop.run(training.loss, on_progress=run.workers.told(on_progress), sample=_sheet_writer(run))
    result = params.result or params.output / RESULT
    if not run.workers.is_first:
        return []
    with loop.averaged():
        save_lora(result, transformer, layers, params.lora, _metadata(params))
    write_card(run, TRAINER, loop)
    return sorted({*run.files(), result})


def _sheet_writer(run: FlowRun) -> Callable[[int], None]:
    def write(step: int) -> None:
        prompts, images = run.sample_rows()
        run.write_sheet(step, [[image] for image in images], prompts)

    return write


def _metadata(params: BundleLoraParams) -> dict[str, str]:
    return {
        "prompt_prefix": params.prefix,
        "base_model": Path(params.model).name,
        "rank": str(params.lora.rank),
        "alpha": f"{params.lora.alpha:g}",
        "steps": str(params.loop.steps),
    }
