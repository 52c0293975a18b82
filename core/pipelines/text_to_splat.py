"""Contains text to Gaussians by distillation: GE3D, score distillation, interval score matching."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from ..diffusion.model import DiffusionModel
from ..diffusion.objective import Distiller, ObjectiveParams
from ..gaussian_cloud import GaussianCloud
from ..progress import ProgressCallback, ignore_progress
from .distill_checkpoint import CheckpointFile, fingerprint
from .distill_loop import DistillationParams, DistillationReport, DistillationRun
from .splat_target import SplatTarget, SplatTargetParams


@dataclass(frozen=True)
class TextToSplatParams:
    """Everything but the model, the prompt and the start.

    Attributes:
        objective: the recipe.
        run: iterations, pictures, cameras.
        splats: drawing and optimisation of the Gaussians.
    """

    objective: ObjectiveParams = field(default_factory=ObjectiveParams)
    run: DistillationParams = field(default_factory=DistillationParams)
    splats: SplatTargetParams = field(default_factory=SplatTargetParams)


def text_to_splat(
    prompt: str,
    model: DiffusionModel,
    initial_cloud: GaussianCloud,
    params: TextToSplatParams | None = None,
    *,
    checkpoint: CheckpointFile | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> tuple[GaussianCloud, DistillationReport]:
    """Shape Gaussians until a text-to-image model finds the prompt in their pictures.

    Works under ``torch.inference_mode`` and changes neither the model nor the initial cloud.

    Args:
        prompt: the object.
        model: its image encoder must be differentiable.
        initial_cloud: where to start, in the world frame.
        params: settings.
        checkpoint: saved now and then and at the end, interruptions included.
        on_progress: called after each iteration, sometimes with a picture. `StopEarly` ends the
            run with the last good state; any other exception passes on.

    Returns:
        The Gaussians and what happened. Same arguments: same result, also after a resumption.

    Raises:
        ValueError: an empty prompt or cloud, a model that keeps giving NaN or has no gradient, a
            checkpoint of another run.

    Reference: GE3D (text to Gaussians by trajectory alignment), Algorithm; A.5 of its facts.
    """
    params = params or TextToSplatParams()
    with torch.inference_mode(False), torch.enable_grad():
        start = _copied(initial_cloud)
        distiller = Distiller(model, prompt, params.objective)
        target = SplatTarget(
            start, params.splats, iterations=params.run.iterations, seed=params.run.seed
        )
        run = DistillationRun(
            target,
            model,
            distiller,
            params.run,
            fingerprint=run_fingerprint(prompt, model, params, vars(start)),
            checkpoint=checkpoint,
            on_progress=on_progress,
        )
        report = run.run()
        return target.cloud(), report


def run_fingerprint(prompt: str, model: DiffusionModel, params: object, start: object) -> str:
    """What a checkpoint must share with a run; previews may differ."""
    kind = (type(model).__name__, model.family, model.latent_format, model.sigma_range)
    if isinstance(params, TextToSplatParams):
        params = replace(params, run=replace(params.run, preview_every=0, preview_px=0))
    return fingerprint(prompt, kind, params, start)


def _copied(cloud: GaussianCloud) -> GaussianCloud:
    """Copy with ordinary tensors: those made under inference mode cannot be optimised."""
    copies = {name: value.detach().clone().float() for name, value in vars(cloud).items()}
    return GaussianCloud(**copies)
