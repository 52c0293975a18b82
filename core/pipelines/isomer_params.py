"""Contains the settings of ISOMER and their presets in ``configs/isomer.yaml``."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..geometry.mesh_adam import MeshOptimizerParams

Preset = Literal["published", "from_hull", "from_sphere"]
CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "isomer.yaml"


@dataclass(frozen=True)
class StageParams:
    """One stage of the refinement.

    Attributes:
        steps: optimisation steps.
        learning_rate: step of a vertex in units of the reference edge length.
        learning_rate_decay: factor per step.
        ramp: steps over which the learning rate grows to its value.
        edge_length_limits: shortest and longest reference edge, world units.
        initial_edge_length: reference edge at the start, world units.
        gain: how fast the reference edge follows the vertices' relative speed.
        normal_weight: of the squared difference of normal colours on covered pixels.
        background_weight: of coverage where the target is background.
        uncovered_weight: of missing coverage where the target is foreground (not published).
        expansion_weight: of the push along the vertex normals.
        explicit_target: compare with the views' normals projected onto the mesh and drawn from it,
            instead of the views themselves.
    """

    steps: int
    learning_rate: float
    learning_rate_decay: float
    ramp: float
    edge_length_limits: tuple[float, float]
    initial_edge_length: float
    gain: float
    normal_weight: float
    background_weight: float
    uncovered_weight: float
    expansion_weight: float
    explicit_target: bool

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must not be negative, got {self.steps}.")
        if not 0 < self.learning_rate_decay <= 1:
            raise ValueError(
                f"learning_rate_decay must lie within 0..1, got {self.learning_rate_decay}."
            )
        weights = (self.normal_weight, self.background_weight, self.uncovered_weight)
        if min(*weights, self.expansion_weight) < 0:
            raise ValueError(f"Loss weights must not be negative, got {weights}.")


@dataclass(frozen=True)
class OptimizerParams:
    """What both stages share of continuous remeshing; see `geometry.mesh_adam`."""

    betas: tuple[float, float, float]
    nu_ref: float
    edge_length_tolerance: float
    laplacian: float
    gradient_clamp: float


@dataclass(frozen=True)
class IsomerParams:
    """Settings of both stages.

    Attributes:
        image_px: longest side of the pictures that are compared; larger views are shrunk.
        coarse: stage 1.
        fine: stage 2.
        target_first_steps: the explicit target is made anew in each of the first steps ...
        target_interval: ... and then in every so many.
        target_view_weights: of the projected normals, used when their number fits the views.
        target_confidence: vertices seen with less weight keep their own normal.
        target_raster_px: size of the visibility raster of the projection, for pictures of
            ``image_px``.
        optimizer: memory and limits of the optimiser.
        preview_interval: steps between two preview pictures; 0 for none.
        seed: of the remeshing.
    """

    image_px: int
    coarse: StageParams
    fine: StageParams
    target_first_steps: int
    target_interval: int
    target_view_weights: tuple[float, ...]
    target_confidence: float
    target_raster_px: int
    optimizer: OptimizerParams
    preview_interval: int = 5
    seed: int = 0

    def is_target_step(self, step: int) -> bool:
        """Whether the explicit target is made anew in this step."""
        return step < self.target_first_steps or step % self.target_interval == 0

    def limited_to(self, edge: float) -> IsomerParams:
        """Copy that makes no edges shorter than ``edge``: finer ones only follow the pixels."""

        def limited(stage: StageParams, least: float) -> StageParams:
            low, high = stage.edge_length_limits
            limits = (max(low, least), max(high, 2 * least))
            start = stage.initial_edge_length * (limits[0] / low)
            return replace(
                stage, edge_length_limits=limits, initial_edge_length=min(start, limits[1])
            )

        return replace(self, coarse=limited(self.coarse, edge), fine=limited(self.fine, edge))

    def for_pictures(self, longest_px: int) -> IsomerParams:
        """Copy whose visibility raster shrinks with pictures smaller than ``image_px``."""
        share = min(1.0, longest_px / self.image_px)
        return replace(self, target_raster_px=max(1, round(share * self.target_raster_px)))

    def mesh_optimizer(self, stage: StageParams) -> MeshOptimizerParams:
        """Settings of the remeshing optimiser for a stage."""
        return MeshOptimizerParams(
            learning_rate=stage.learning_rate,
            betas=self.optimizer.betas,
            edge_length_limits=stage.edge_length_limits,
            initial_edge_length=stage.initial_edge_length,
            edge_length_tolerance=self.optimizer.edge_length_tolerance,
            local_edge_length=False,
            gain=stage.gain,
            nu_ref=self.optimizer.nu_ref,
            laplacian=self.optimizer.laplacian,
            gradient_clamp=self.optimizer.gradient_clamp,
            ramp=stage.ramp,
            seed=self.seed,
        )


@functools.cache
def load_isomer_params(preset: Preset = "from_hull") -> IsomerParams:
    """Settings of a preset: the published numbers, changed where the preset says so."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.load(CONFIG_FILE)
    if preset not in config:
        raise ValueError(f"Unknown preset '{preset}'; choose {', '.join(map(str, config))}.")
    merged = OmegaConf.merge(config["published"], config[preset])
    return isomer_params_from(OmegaConf.to_container(merged, resolve=True))


def isomer_params_from(config: Any) -> IsomerParams:
    """Settings from the plain dictionary of a configuration file."""
    values = dict(config)
    coarse, fine, optimizer = (values.pop(name) for name in ("coarse", "fine", "optimizer"))
    return IsomerParams(
        coarse=StageParams(**_tuples(coarse)),
        fine=StageParams(**_tuples(fine)),
        optimizer=OptimizerParams(**_tuples(optimizer)),
        **_tuples(values),
    )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
