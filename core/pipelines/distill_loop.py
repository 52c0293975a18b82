"""Contains the loop of a distillation: draw, encode, ask the model, step; whatever is optimised.

All randomness of an iteration follows from (seed, iteration), and a checkpoint holds everything
else: a resumed run gives the same result, bit for bit on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..camera import make_orbit_rig
from ..diffusion.distillation import surrogate_loss
from ..diffusion.model import DiffusionModel
from ..diffusion.objective import Distiller, LatentGradient, NonFiniteError
from ..progress import Progress, ProgressCallback, StopEarly, ignore_progress
from .camera_schedule import CameraScheduleParams, SampledViews, sample_views, step_generator
from .distill_checkpoint import CheckpointFile
from .distill_target import DistillationTarget, Drawn, State, relative_disparity, total_variation
from .distill_track import RunTrack, Stopwatch

AUGMENTATION, QUESTIONS = 2, 3
NO_GRADIENT = (
    "The model's image encoder gives no gradient: the latents do not depend on the pictures. Use a "
    "VAE that can be differentiated (not a tiled or compiled one)."
)
Ending = Literal["finished", "settled", "stopped"]


@dataclass(frozen=True)
class DistillationParams:
    """How a distillation runs.

    Attributes:
        iterations: in all.
        views: pictures in each.
        size_px: side of the pictures.
        model_px: they are scaled to this side for the model; 0 leaves them.
        cameras: where they are taken from.
        white_share: share of white backgrounds.
        black_share: share of black ones; the rest have a random colour.
        flip_share: share of iterations whose pictures are mirrored.
        color_smoothness: weight of the total variation of colours.
        depth_smoothness: weight of the total variation of relative disparities.
        seed: of everything random.
        preview_every: iterations between two preview pictures; 0 for none.
        preview_px: their side.
        patience: the run ends when the disagreement has not fallen for so many iterations; 0 never.
        tolerance: by which share it must fall to count.
        max_failures: so many failed iterations in a row end the run with an error.
    """

    iterations: int = 3000
    views: int = 4
    size_px: int = 512
    model_px: int = 0
    cameras: CameraScheduleParams = field(default_factory=CameraScheduleParams)
    white_share: float = 0.34
    black_share: float = 0.33
    flip_share: float = 0.5
    color_smoothness: float = 1.0
    depth_smoothness: float = 1.0
    seed: int = 0
    preview_every: int = 10
    preview_px: int = 256
    patience: int = 0
    tolerance: float = 0.01
    max_failures: int = 5

    def __post_init__(self) -> None:
        if min(self.iterations, self.views, self.max_failures) < 1 or self.size_px < 8:
            raise ValueError(
                "iterations, views and max_failures must be at least 1 and size_px at least 8, got "
                f"{self.iterations}, {self.views}, {self.max_failures} and {self.size_px}."
            )
        if self.white_share < 0 or self.black_share < 0 or self.white_share + self.black_share > 1:
            raise ValueError(
                "Shares of backgrounds must not be negative and sum to at most 1, got "
                f"{self.white_share} and {self.black_share}."
            )
        if not 0 <= self.flip_share <= 1:
            raise ValueError(f"flip_share must lie within 0..1, got {self.flip_share}.")


@dataclass(frozen=True)
class DistillationReport:
    """What happened in a run.

    Attributes:
        iterations: done, including those before a resumption.
        ending: finished, settled (the disagreement stopped falling) or stopped by the user.
        skipped: iterations without a step because something was not finite.
        restored: how often everything had vanished and the last good state was taken.
        evaluations: latents that the model was asked about, in this session.
        seconds: spent in each part, in this session.
        disagreement: running mean of guided against unguided noise at the end.
    """

    iterations: int
    ending: Ending
    skipped: int
    restored: int
    evaluations: int
    seconds: dict[str, float]
    disagreement: float


class DistillationRun:
    """One distillation of a target by a model.

    Args:
        target: is changed.
        model: gives latents with gradients.
        distiller: the recipe, bound to the same model and a prompt.
        params: settings.
        fingerprint: of the run, for its checkpoints.
        checkpoint: where to save; None for nowhere.
        on_progress: told about every iteration. It may raise `StopEarly` to end the run with what
            there is; whatever else it raises passes on after a checkpoint.
    """

    def __init__(
        self,
        target: DistillationTarget,
        model: DiffusionModel,
        distiller: Distiller,
        params: DistillationParams,
        *,
        fingerprint: str = "",
        checkpoint: CheckpointFile | None = None,
        on_progress: ProgressCallback = ignore_progress,
    ) -> None:
        self.target = target
        self.model = model
        self.distiller = distiller
        self.params = params
        self.fingerprint = fingerprint
        self.checkpoint = None if checkpoint is None else checkpoint.of_run(fingerprint)
        self.on_progress = on_progress
        self.track = RunTrack()
        self.watch = Stopwatch()
        # What is saved: counters and state always belong to the same, whole iteration.
        self._current: tuple[Tensor, State] = (self.track.as_tensor(), {})
        self._good: State = {}

    def run(self) -> DistillationReport:
        """Run to the end; afterwards the target has its last good state.

        Raises:
            ValueError: the model keeps giving NaN, or cannot be differentiated.
        """
        self._begin()
        ending: Ending = "finished"
        try:
            while self.track.iteration < self.params.iterations:
                self._iterate()
                if self._has_settled():
                    ending = "settled"
                    break
        except StopEarly:
            ending = "stopped"
        finally:
            self._save()
        if self.checkpoint is not None and not self.checkpoint.keep and ending != "stopped":
            self.checkpoint.path.unlink(missing_ok=True)
        if not self.target.is_presentable or ending == "stopped":
            self.target.restore(self._good)
        return DistillationReport(
            iterations=self.track.iteration,
            ending=ending,
            skipped=self.track.skipped,
            restored=self.track.restored,
            evaluations=self.distiller.denoise.entries,
            seconds=self.watch.seconds | {"model": self.distiller.denoise.seconds},
            disagreement=self.track.disagreement,
        )

    def _begin(self) -> None:
        saved = None if self.checkpoint is None else self.checkpoint.load(self.fingerprint)
        if saved is not None:
            self.track = RunTrack.from_tensor(saved.pop("track", torch.zeros(0)))
            self.target.restore(_part(saved, "now."))
        self._remember()
        self._good = _part(saved or {}, "good.") or self._current[1]

    def _remember(self) -> None:
        state = self.target.state()
        self._current = (self.track.as_tensor(), state)
        if self.target.is_presentable:
            self._good = state

    def _save(self) -> None:
        """Write the state after the last whole iteration."""
        counters, state = self._current
        if self.checkpoint is None or not counters[0]:
            return
        content = {f"now.{name}": value for name, value in state.items()}
        if self._good is not state:
            content |= {f"good.{name}": value for name, value in self._good.items()}
        self.checkpoint.save({"track": counters, **content}, self.fingerprint)

    def _iterate(self) -> None:
        """One iteration; a failed one is counted and changes nothing else."""
        number, collapses = self.track.iteration, self.target.collapses
        try:
            self.track.add(self._step(number))
        except NonFiniteError as error:
            self._fail(error)
        self.track.notice_gain(self.params.tolerance)
        if self.target.collapses > collapses:
            self._recover()
        self._remember()
        self._report()
        if self.checkpoint and self.checkpoint.every:
            if self.track.iteration % self.checkpoint.every == 0:
                self._save()

    def _fail(self, error: NonFiniteError) -> None:
        self.target.discard()
        self.track.fail()
        if self.track.failures_in_a_row >= self.params.max_failures:
            raise ValueError(
                f"{self.track.failures_in_a_row} iterations in a row failed, the last one with "
                f"'{error}' Load the model in a wider number type (float32 or bfloat16), or lower "
                "the guidance scale or the step sizes."
            ) from error

    def _recover(self) -> None:
        self.track.restored += 1
        if self.track.restored >= self.params.max_failures:
            raise ValueError(
                f"Everything became transparent and vanished {self.track.restored} times. Lower "
                "the step size of the opacities, reset them less often, or check that the model "
                "knows the prompt."
            )
        self.target.restore(self._good, keep_clock=True)

    def _step(self, number: int) -> float:
        """Draw, ask, and move the target; the disagreement of guided and unguided noise."""
        params = self.params
        views = sample_views(params.cameras, number, params.views, params.seed)
        generator = step_generator(params.seed, AUGMENTATION, number)
        with self.watch.part("draw"):
            backgrounds = _backgrounds(params, generator).to(self.target.device)
            rig = views.rig.to(self.target.device)
            drawn = self.target.draw(rig, params.size_px, backgrounds, generator)
        # Cut in two: the backward pass ends at the pictures and never enters the model's weights.
        pictures = drawn.rgb.detach().requires_grad_()
        with self.watch.part("encode"):
            latents = self._encode(pictures, generator)
        with self.watch.part("ask"):
            answer = self._ask(latents, views, number)
        with self.watch.part("encode"):
            pull = _gradient(surrogate_loss(latents, answer.gradient), pictures)
        with self.watch.part("move"):
            loss = surrogate_loss(drawn.rgb, pull) + drawn.penalty + self._smoothness(drawn)
            loss.backward()
            if not self.target.update():
                raise NonFiniteError("A gradient of the pictures was NaN or infinity.")
        return answer.disagreement

    def _encode(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        if float(torch.rand((), generator=generator)) < self.params.flip_share:
            pictures = pictures.flip(2)
        if self.params.model_px and self.params.model_px != pictures.shape[1]:
            pictures = _scaled(pictures, self.params.model_px)
        latents = self.model.encode_image(pictures.to(self.model.device))
        if not latents.requires_grad:
            raise ValueError(NO_GRADIENT)
        if not math.isfinite(float(latents.detach().float().sum())):
            raise NonFiniteError("The image encoder gave NaN or infinity.")
        return latents

    def _ask(self, latents: Tensor, views: SampledViews, number: int) -> LatentGradient:
        return self.distiller.gradient(
            latents.detach(),
            views.azimuths_deg,
            views.elevations_deg,
            iteration=number,
            total_iterations=self.params.iterations,
            generator=step_generator(self.params.seed, QUESTIONS, number),
        )

    def _smoothness(self, drawn: Drawn) -> Tensor:
        total = drawn.penalty.new_zeros(())
        if self.params.color_smoothness:
            total = total + self.params.color_smoothness * total_variation(drawn.rgb)
        if self.params.depth_smoothness:
            disparity = relative_disparity(drawn.depth, drawn.alpha)[..., None]
            total = total + self.params.depth_smoothness * total_variation(disparity)
        return total

    def _has_settled(self) -> bool:
        patience = self.params.patience
        return bool(patience) and self.track.iterations_without_gain > patience

    def _report(self) -> None:
        done, total = self.track.iteration, self.params.iterations
        pace = self.watch.pace(done)
        text = [f"iteration {done}/{total}", self.target.describe()]
        if pace > 0:
            left = round((total - done) / pace)
            text.append(f"{pace:.2f} it/s, {left // 60}:{left % 60:02} left")
        text.append(f"disagreement {self.track.disagreement:.3f}")
        if self.track.skipped:
            text.append(f"{self.track.skipped} skipped")
        preview = None
        every = self.params.preview_every
        if every and (done % every == 0 or done == total):
            rig = make_orbit_rig([30 + 720 * done / total], 15.0, radius=4.5, fov_y_deg=30.0)
            preview = self.target.look(rig.to(self.target.device), self.params.preview_px)[0]
        self.on_progress(Progress(done, total, ", ".join(text), preview))


def _gradient(loss: Tensor, pictures: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, pictures, allow_unused=True)
    if gradient is None:
        raise ValueError(NO_GRADIENT)
    return gradient


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = len(prefix)
    return {name[start:]: value for name, value in state.items() if name.startswith(prefix)}


def _backgrounds(params: DistillationParams, generator: torch.Generator) -> Tensor:
    draws = torch.rand(params.views, generator=generator)[:, None]
    colors = torch.rand(params.views, 3, generator=generator)
    colors = torch.where(draws < params.white_share + params.black_share, 0.0, colors)
    return torch.where(draws < params.white_share, 1.0, colors)


def _scaled(pictures: Tensor, side: int) -> Tensor:
    channels_first = pictures.permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(
        channels_first, size=(side, side), mode="bilinear", antialias=True
    )
    return scaled.permute(0, 2, 3, 1)
