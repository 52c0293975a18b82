"""Contains the widgets that all optimisations by text share, and what they mean."""

from __future__ import annotations

from typing import Any

from ..core.pipelines.distill_checkpoint import CheckpointFile
from ..core.pipelines.distill_loop import DistillationReport
from ..core.pipelines.ge3d_presets import PRESETS, RunChoices
from ..core.progress import ProgressCallback
from .host import ADVANCED, checkpoint_file, io, make_progress, make_stoppable_progress
from .sockets import DiffusionSocket
from .widgets import choice, number, seed_input, whole

DIFFUSION_TOOLTIP = "Model from Load Diffusion Model or Wrap Native Model."
INTERRUPTIONS = ["stop", "keep"]


def model_inputs() -> list[Any]:
    """The model, and what it is asked for."""
    return [
        DiffusionSocket.Input("diffusion", tooltip=DIFFUSION_TOOLTIP),
        io.String.Input(
            "prompt",
            default="a red mug",
            multiline=True,
            tooltip="The object; type it here or connect View Prompt.",
        ),
    ]


def run_inputs() -> list[Any]:
    """Widgets that every optimisation has."""
    return [
        choice(
            "preset",
            list(PRESETS),
            "paper",
            "Where 0 is given below, and for step sizes and densification: 'paper' for Stable "
            "Diffusion at 512 pixels, 'reference' as its released code, 'small' for the embedded "
            "model on a CPU.",
        ),
        whole("iterations", 0, 0, 1_000_000, "Iterations in all; 0 takes the preset's."),
        whole("views", 0, 0, 64, "Pictures in each iteration; 0 takes the preset's."),
        whole(
            "size_px",
            0,
            0,
            2048,
            "Side of the pictures in pixels, a multiple of 8; 0 takes the preset's.",
            step=8,
        ),
        seed_input("The same seed gives the same result on the same machine."),
        whole(
            "model_px",
            0,
            0,
            2048,
            "Pictures are scaled to this side for the model; 0 leaves them. Draw at 256 and let "
            "the model see 512 to save time.",
            step=8,
            **ADVANCED,
        ),
        number(
            "step_factor", 1.0, 0.01, 100.0, "Factor on all step sizes of the preset.", **ADVANCED
        ),
        number(
            "smoothness_factor",
            1.0,
            0.0,
            1000.0,
            "Factor on the preset's weights of smooth colours and depth, and of small Gaussians.",
            **ADVANCED,
        ),
        whole(
            "preview_every", 10, 0, 10_000, "Iterations between two previews; 0 for none.",
            **ADVANCED,
        ),
        whole(
            "patience",
            0,
            0,
            1_000_000,
            "End when prompt and picture have not come closer for so many iterations; 0 never.",
            **ADVANCED,
        ),
        whole(
            "checkpoint_every",
            50,
            0,
            1_000_000,
            "Iterations between two saves of the whole state below the output folder; the next "
            "run with the same settings goes on from there. 0 saves nothing.",
            **ADVANCED,
        ),
        io.Boolean.Input(
            "resume",
            default=True,
            tooltip="Go on from the saved state of an interrupted run with the same settings.",
            **ADVANCED,
        ),
        choice(
            "when_interrupted",
            INTERRUPTIONS,
            "stop",
            "'stop' saves the state and ends the workflow, 'keep' hands on what there is and lets "
            "the workflow go on.",
            **ADVANCED,
        ),
    ]  # fmt: skip


def run_choices(values: dict[str, Any]) -> RunChoices:
    """What the widgets change of a preset."""
    names = (
        "iterations", "views", "size_px", "seed", "model_px", "step_factor", "smoothness_factor",
        "preview_every", "patience", "max_gaussians", "densify",
    )  # fmt: skip
    return RunChoices(**{name: values[name] for name in names if name in values})


def run_checkpoint(values: dict[str, Any], name: str) -> CheckpointFile | None:
    """Where the state of the run is saved; None for nowhere."""
    every = values["checkpoint_every"]
    if not every:
        return None
    path = checkpoint_file(name)
    return CheckpointFile(path, every, values["resume"], keep=False, per_run=True)


def run_progress(values: dict[str, Any]) -> ProgressCallback:
    """Progress that treats interruptions as the widgets say."""
    keep = values["when_interrupted"] == "keep"
    return make_stoppable_progress() if keep else make_progress()


def report_text(report: DistillationReport) -> str:
    """What happened, for people."""
    seconds = {name: value for name, value in report.seconds.items() if name != "model"}
    lines = [
        f"{report.iterations} iterations, {report.ending}; {report.evaluations} evaluations of "
        "the model in this run.",
        f"Disagreement of guided and unguided noise at the end: {report.disagreement:.3f}.",
        f"{sum(seconds.values()):.1f} s, of which {report.seconds['model']:.1f} s in the model.",
    ]
    if report.skipped:
        lines.append(f"{report.skipped} iterations were skipped: something was not finite.")
    if report.restored:
        lines.append(f"Everything vanished {report.restored} times; the last good state was taken.")
    return "\n".join(lines)
