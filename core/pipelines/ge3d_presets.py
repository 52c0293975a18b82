"""Contains the presets of text to Gaussians in ``configs/ge3d.yaml``, and changes of them."""

from __future__ import annotations

import dataclasses
import functools
import typing
from pathlib import Path
from typing import Any, Literal

from ..diffusion.objective import ObjectiveParams
from ..diffusion.trajectories import NodeParams
from .camera_schedule import CameraScheduleParams
from .reconstructive_refine import RefineParams, spread_rings
from .splat_optimizer import LearningRates, SplatOptimizerParams
from .text_to_splat import TextToSplatParams

Preset = Literal["paper", "reference", "small"]
PRESETS: tuple[Preset, ...] = typing.get_args(Preset)
CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "ge3d.yaml"


@functools.cache
def load_ge3d_params(preset: Preset = "paper") -> TextToSplatParams:
    """Settings of a preset: the paper's, changed where the preset says so.

    Raises:
        ValueError: there is no such preset.
    """
    from omegaconf import OmegaConf

    config: Any = OmegaConf.load(CONFIG_FILE)
    if preset not in config:
        raise ValueError(f"Unknown preset '{preset}'; choose {', '.join(map(str, config))}.")
    values = OmegaConf.to_container(OmegaConf.merge(config["paper"], config[preset]))
    return typing.cast(TextToSplatParams, _filled(TextToSplatParams, values))


def _filled(kind: Any, values: Any) -> Any:
    """Dataclass of plain values; lists become tuples."""
    hints = typing.get_type_hints(kind)
    given = {}
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"{CONFIG_FILE.name}: {kind.__name__} has no field '{name}'.")
        if dataclasses.is_dataclass(hints[name]):
            given[name] = _filled(hints[name], value)
        else:
            given[name] = tuple(value) if isinstance(value, list) else value
    return kind(**given)


@dataclasses.dataclass(frozen=True)
class RunChoices:
    """What users change of a preset; 0 keeps the preset's number.

    Attributes:
        iterations: in all.
        views: pictures in each.
        size_px: side of the pictures.
        model_px: side at which the model sees them.
        max_gaussians: most Gaussians.
        densify: add and remove Gaussians as the preset says; else their number stays.
        step_factor: on all step sizes.
        smoothness_factor: on the weights of smoothness and of the mean scale.
        preview_every: iterations between two preview pictures.
        patience: iterations without gain after which the run ends; 0 never.
        seed: of everything random.
    """

    iterations: int = 0
    views: int = 0
    size_px: int = 0
    model_px: int = 0
    max_gaussians: int = 0
    densify: bool = True
    step_factor: float = 1.0
    smoothness_factor: float = 1.0
    preview_every: int = 10
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.step_factor > 0 or self.smoothness_factor < 0:
            raise ValueError(
                "step_factor must be positive and smoothness_factor not negative, got "
                f"{self.step_factor} and {self.smoothness_factor}."
            )


def choose_params(
    preset: Preset,
    choices: RunChoices,
    *,
    objective: ObjectiveParams | None = None,
    cameras: CameraScheduleParams | None = None,
) -> TextToSplatParams:
    """A preset with a user's changes.

    Args:
        preset: name.
        choices: numbers to change.
        objective: recipe instead of the preset's.
        cameras: schedule instead of the preset's.
    """
    base = load_ge3d_params(preset)
    run = dataclasses.replace(
        base.run,
        iterations=choices.iterations or base.run.iterations,
        views=choices.views or base.run.views,
        size_px=choices.size_px or base.run.size_px,
        model_px=choices.model_px or base.run.model_px,
        color_smoothness=base.run.color_smoothness * choices.smoothness_factor,
        depth_smoothness=base.run.depth_smoothness * choices.smoothness_factor,
        cameras=cameras or base.run.cameras,
        preview_every=choices.preview_every,
        patience=choices.patience,
        seed=choices.seed,
    )
    splats = dataclasses.replace(
        base.splats,
        optimizer=_chosen_optimizer(base.splats.optimizer, choices),
        scale_weight=base.splats.scale_weight * choices.smoothness_factor,
    )
    return TextToSplatParams(objective or base.objective, run, splats)


def _chosen_optimizer(base: SplatOptimizerParams, choices: RunChoices) -> SplatOptimizerParams:
    densify = dataclasses.replace(
        base.densify, max_gaussians=choices.max_gaussians or base.densify.max_gaussians
    )
    if not choices.densify:
        densify = dataclasses.replace(densify, every=0, reset_opacity_every=0)
    return dataclasses.replace(_scaled(base, choices.step_factor), densify=densify)


@dataclasses.dataclass(frozen=True)
class RefineChoices:
    """What users choose of reconstructive generation.

    Attributes:
        views: cameras on all rings together.
        size_px: side of their pictures.
        steps: of the fit, in all rounds.
        farthest: timestep to which views are noised in the first round.
        farthest_end: the same in the last round; 0 takes 70 % of ``farthest``.
        rounds: how often the views are redrawn.
        radius: distance of the cameras.
        fov_y_deg: their field of view.
        step_factor: on all step sizes.
        batch: views that the model sees at once.
        seed: of noise and fit.
    """

    views: int = 36
    size_px: int = 512
    steps: int = 1440
    farthest: int = 200
    farthest_end: int = 0
    rounds: int = 1
    radius: float = 3.15
    fov_y_deg: float = 31.5
    step_factor: float = 1.0
    batch: int = 4
    seed: int = 0


SMALL_COARSE = RefineChoices(
    views=20, size_px=64, steps=720, farthest=970, farthest_end=120, rounds=6, radius=4.5,
    fov_y_deg=30.0, step_factor=6.5, batch=20,
)  # fmt: skip
"""A coarse object from a grey ball, by small models: every view starts from nearly the same noise,
which the ball gives, so that the views agree."""
SMALL_SHARP = dataclasses.replace(
    SMALL_COARSE, steps=240, farthest=300, farthest_end=120, rounds=2, seed=1
)
"""What ends a run of small models: the views are redrawn nearby, cut out of white, and fitted."""
SMALL_JUMPS = 6
SMALL_MASK_WEIGHT = 1.0
"""Views that a small model redraws differ at their outlines; weighting coverage keeps haze away."""


def choose_refine_params(preset: Preset, choices: RefineChoices) -> RefineParams:
    """Reconstructive generation with the step sizes and jumps of a preset.

    "small" takes up to `SMALL_JUMPS` even jumps, leaves the number of Gaussians as it is, moves
    those that fade, cuts the pictures out of their background and fits the coverage more strictly.

    Raises:
        ValueError: there is no such preset, or a timestep is too small for two nodes or above 1000.
    """
    base = RefineParams()
    last = choices.farthest_end or max(choices.farthest * 7 // 10, 2)
    optimizer, mask_weight = base.fit.optimizer, base.fit.mask_weight
    if preset == "small":
        mask_weight = SMALL_MASK_WEIGHT
        rates = load_ge3d_params("small").splats.optimizer.rates
        optimizer = dataclasses.replace(
            optimizer, rates=rates, densify=dataclasses.replace(optimizer.densify, every=0)
        )
        first_jump, last_jump = (max(far // SMALL_JUMPS, 1) for far in (choices.farthest, last))
        jumps = (first_jump, first_jump + 1), (last_jump, last_jump + 1)
    else:
        load_ge3d_params(preset)  # its error, if it does not exist
        jump = min(75, choices.farthest // 2)
        if choices.farthest_end:
            last_jump = max(min(jump, last // 2), 1)
        else:
            last, last_jump = max(last, jump + 2), jump
        jumps = (jump, 2 * jump), (last_jump, min(2 * last_jump, last))
    return RefineParams(
        rings=spread_rings(choices.views),
        radius=choices.radius,
        fov_y_deg=choices.fov_y_deg,
        size_px=choices.size_px,
        nodes=NodeParams(8, *jumps, choices.farthest, last),
        rounds=choices.rounds,
        batch=choices.batch,
        cut=preset == "small",
        respawn=preset == "small",
        fit=dataclasses.replace(
            base.fit,
            num_steps=choices.steps,
            seed=choices.seed,
            mask_weight=mask_weight,
            optimizer=_scaled(optimizer, choices.step_factor),
        ),
        seed=choices.seed,
    )


def _scaled(optimizer: SplatOptimizerParams, factor: float) -> SplatOptimizerParams:
    rates = {
        name: (factor * first, factor * last)
        for name, (first, last) in dataclasses.asdict(optimizer.rates).items()
    }
    return dataclasses.replace(optimizer, rates=LearningRates(**rates))
