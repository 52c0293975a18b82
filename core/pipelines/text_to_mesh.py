"""Contains text to a mesh by distillation: an existing mesh reshaped and recoloured, or a field."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.model import DiffusionModel
from ..diffusion.objective import Distiller, ObjectiveParams
from ..mesh import Mesh
from ..progress import ProgressCallback, ignore_progress
from .distill_checkpoint import CheckpointFile
from .distill_loop import DistillationParams, DistillationReport, DistillationRun
from .mesh_target import MeshTarget, MeshTargetParams
from .text_to_splat import run_fingerprint
from .volume_target import VolumeTarget, VolumeTargetParams


def text_to_mesh(
    prompt: str,
    model: DiffusionModel,
    initial_mesh: Mesh,
    objective: ObjectiveParams | None = None,
    run: DistillationParams | None = None,
    target: MeshTargetParams | None = None,
    *,
    checkpoint: CheckpointFile | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> tuple[Mesh, DistillationReport]:
    """Reshape and recolour a mesh until a text-to-image model finds the prompt in its pictures.

    Args:
        prompt: the object.
        model: its image encoder must be differentiable.
        initial_mesh: within about [-1, 1]^3; its connectivity and texture coordinates stay.
        objective: the recipe.
        run: iterations, pictures, cameras.
        target: what is optimised.
        checkpoint: see `text_to_splat`.
        on_progress: see `text_to_splat`.

    Raises:
        ValueError: as in `text_to_splat`.
    """
    objective, run = objective or ObjectiveParams(), run or DistillationParams()
    params = target or MeshTargetParams()
    with torch.inference_mode(False), torch.enable_grad():
        with torch.no_grad():  # tensors made under inference mode cannot be optimised
            start = initial_mesh.clone()
        tensors = {n: v for n, v in vars(start).items() if isinstance(v, Tensor)}
        held = MeshTarget(start, params, iterations=run.iterations)
        distillation = DistillationRun(
            held,
            model,
            Distiller(model, prompt, objective),
            run,
            fingerprint=run_fingerprint(prompt, model, (objective, run, params), tensors),
            checkpoint=checkpoint,
            on_progress=on_progress,
        )
        report = distillation.run()
        return held.mesh(), report


def text_to_field(
    prompt: str,
    model: DiffusionModel,
    objective: ObjectiveParams | None = None,
    run: DistillationParams | None = None,
    target: VolumeTargetParams | None = None,
    *,
    checkpoint: CheckpointFile | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> tuple[VolumeTarget, DistillationReport]:
    """Grow a radiance field in a triplane until the model finds the prompt in its pictures.

    Args:
        prompt: the object.
        model: its image encoder must be differentiable.
        objective: the recipe.
        run: iterations, pictures, cameras.
        target: size and step sizes of the field.
        checkpoint: see `text_to_splat`.
        on_progress: see `text_to_splat`.

    Returns:
        The field, which can be drawn (``look``) or turned into a mesh (``mesh``), and the report.
    """
    objective, run = objective or ObjectiveParams(), run or DistillationParams()
    params = target or VolumeTargetParams()
    with torch.inference_mode(False), torch.enable_grad():
        field = VolumeTarget(params, iterations=run.iterations, seed=run.seed)
        distillation = DistillationRun(
            field,
            model,
            Distiller(model, prompt, objective),
            run,
            fingerprint=run_fingerprint(prompt, model, (objective, run, params), "field"),
            checkpoint=checkpoint,
            on_progress=on_progress,
        )
        return field, distillation.run()
