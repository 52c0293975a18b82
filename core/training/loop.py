"""Contains the loop that all trainers share: schedule, averaging, checkpoints, resuming.

A trainer gives a module and a loss as a function of (step, random generator). All randomness of a
step comes from that generator, whose seed is the step's number: a resumed run takes the same path.
With several workers the parts of a step are shared out: two workers do what one does with twice
the accumulation.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..formats.atomic import atomic_write
from ..progress import Progress, ProgressCallback
from .workers import Workers

LOGGER = logging.getLogger(__name__)
Losses = Mapping[str, Tensor]
"""Named losses of one step; ``total`` is minimised, the others are reported."""

LossFunction = Callable[[int, torch.Generator], Losses]
SampleFunction = Callable[[int], None]


@dataclass(frozen=True)
class LoopParams:
    """How a module is trained.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: highest learning rate.
        betas: of AdamW.
        weight_decay: of AdamW, on matrices only.
        warmup_steps: steps of linear growth.
        decay_start: share of the steps after which the rate falls by a cosine.
        final_share: learning rate of the last step as a share of the highest.
        clip_norm: largest norm of the gradient.
        accumulate: losses added up for one step.
        average: decay of the running mean of the weights; 0 for none.
        bfloat16: compute in mixed precision.
        seed: of all random numbers.
        report_every: steps between two lines of the log.
        save_every: steps between two checkpoints; 0 for the end only.
        sample_every: steps between two sample sheets; 0 for none.
    """

    steps: int
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay_start: float = 0.0
    final_share: float = 0.01
    clip_norm: float = 1.0
    accumulate: int = 1
    average: float = 0.0
    bfloat16: bool = False
    seed: int = 0
    report_every: int = 100
    save_every: int = 500
    sample_every: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.accumulate < 1:
            raise ValueError(
                f"steps and accumulate must be at least 1, got {self.steps}, {self.accumulate}."
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}.")


def learning_rate_at(step: int, params: LoopParams) -> float:
    """Learning rate of a step: linear warm-up, plateau, cosine."""
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    start = max(params.decay_start * params.steps, params.warmup_steps)
    if step <= start:
        return params.learning_rate
    share = (step - start) / max(params.steps - start, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return params.learning_rate * (params.final_share + (1 - params.final_share) * cosine)


class WeightAverage:
    """Running mean of a module's weights; grows in step with the run at its beginning."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {
            name: value.detach().clone()
            for name, value in module.named_parameters()
            if value.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(value.detach(), 1 - decay)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Block in which the module has the mean weights."""
        own = {
            name: value.detach().clone()
            for name, value in module.named_parameters()
            if name in self.weights
        }
        try:
            _copy_weights(module, self.weights)
            yield
        finally:
            _copy_weights(module, own)


class TrainingLoop:
    """Trains one module and keeps its state in a folder.

    Args:
        module: its parameters that need gradients are trained; others are not kept.
        folder: of checkpoints; an existing one is resumed.
        params: settings.
        workers: processes that train together.

    Attributes:
        history: mean losses between reports, with the step of each report.
    """

    def __init__(
        self,
        module: nn.Module,
        folder: Path,
        params: LoopParams,
        workers: Workers = Workers(),  # noqa: B008 - frozen
    ) -> None:
        self.module = module
        self.folder = Path(folder)
        self.params = params
        self.workers = workers
        self.history: list[dict[str, float]] = []
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(module, params.weight_decay),
            lr=params.learning_rate,
            betas=params.betas,
        )
        self.average = WeightAverage(module, params.average) if params.average else None
        self.step = 0
        self._resume()

    def run(
        self,
        loss: LossFunction,
        *,
        on_progress: ProgressCallback | None = None,
        sample: SampleFunction | None = None,
    ) -> None:
        """Train to the last step; what ``on_progress`` raises passes on after a checkpoint.

        Args:
            loss: see `LossFunction`.
            on_progress: told about every step; None writes the reports to the log.
            sample: draws a sheet every ``sample_every`` steps.
        """
        tell = _log_new_messages() if on_progress is None else on_progress
        report = _Report(self.params, self.step)
        torch.set_flush_denormal(True)  # arithmetic on them is slow on a CPU
        try:
            while self.step < self.params.steps:
                report.add(self.train_step(loss))
                if self.step % self.params.report_every == 0 or self.step == self.params.steps:
                    self.history.append(report.close(self.step))
                tell(Progress(self.step, self.params.steps, report.text))
                self._save_and_sample(sample)
        finally:
            torch.set_flush_denormal(False)
            self.save()

    def train_step(self, loss: LossFunction) -> dict[str, float]:
        """One optimiser step; the losses, averaged over the accumulated parts.

        Raises:
            ValueError: the loss is not finite.
        """
        params = self.params
        self.module.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, params)
        self.optimizer.zero_grad(set_to_none=True)
        values: dict[str, float] = {}
        for part in range(params.accumulate):
            index = (self.step * params.accumulate + part) * self.workers.count + self.workers.index
            generator = torch.Generator().manual_seed(params.seed * 1_000_003 + index)
            with torch.autocast(_device_of(self.module).type, torch.bfloat16, params.bfloat16):
                losses = loss(self.step, generator)
            (losses["total"] / params.accumulate).backward()
            for name, value in losses.items():
                values[name] = values.get(name, 0.0) + float(value.detach()) / params.accumulate
        values = self._average_over_workers(values)
        if not math.isfinite(values["total"]):
            raise ValueError(
                f"The loss of step {self.step} is {values['total']}; lower the learning rate "
                f"(now {params.learning_rate}) or check the data."
            )
        nn.utils.clip_grad_norm_(self.module.parameters(), params.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.module, self.step)
        self.step += 1
        return values

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The module in evaluation mode, with the running mean of its weights if there is one."""
        self.module.eval()
        if self.average is None:
            yield self.module
            return
        with self.average.applied(self.module):
            yield self.module

    @property
    def checkpoint_file(self) -> Path:
        """Where the state of the run is kept."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the whole state; the old one stays until the new one is complete."""
        if not self.workers.is_first:
            return
        state = {
            "step": self.step,
            "history": self.history,
            "module": self._kept_weights(),
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.weights,
        }
        with atomic_write(self.checkpoint_file) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        if not self.checkpoint_file.is_file():
            return
        state = torch.load(self.checkpoint_file, map_location="cpu", weights_only=True)
        self._require_own(state["module"])
        self.module.load_state_dict(state["module"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            for name, value in self.average.weights.items():
                value.copy_(state["average"].get(name, state["module"][name]))
        self.step = int(state["step"])
        self.history = list(state.get("history", []))
        LOGGER.info("Resuming at step %d of %d.", self.step, self.params.steps)

    def _kept_weights(self) -> dict[str, Tensor]:
        """State without frozen parameters: those come from elsewhere and may be huge."""
        frozen = {name for name, value in self.module.named_parameters() if not value.requires_grad}
        state = self.module.state_dict()
        return {name: value for name, value in state.items() if name not in frozen}

    def _require_own(self, saved: Mapping[str, Tensor]) -> None:
        for name, value in self._kept_weights().items():
            if name not in saved or saved[name].shape != value.shape:
                found = list(saved[name].shape) if name in saved else "nothing"
                raise ValueError(
                    f"{self.checkpoint_file} belongs to a run with other settings: {name} is "
                    f"{found} there, {list(value.shape)} now. Remove it to begin anew, or name "
                    "another folder."
                )

    def _average_over_workers(self, values: dict[str, float]) -> dict[str, float]:
        """Average gradients in place; returns the averaged losses."""
        if self.workers.count == 1:
            return values
        gradients = [value.grad for value in self.module.parameters() if value.grad is not None]
        losses = torch.tensor(list(values.values()), device=_device_of(self.module))
        self.workers.average([*gradients, losses])
        return dict(zip(values, losses.tolist(), strict=True))

    def _save_and_sample(self, sample: SampleFunction | None) -> None:
        params = self.params
        if params.save_every and self.step % params.save_every == 0:
            self.save()
        last = self.step == params.steps
        if sample is not None and params.sample_every and self.workers.is_first:
            if last or self.step % params.sample_every == 0:
                with self.averaged(), torch.no_grad():
                    sample(self.step)


class _Report:
    """Means of the losses since the last line of the log; losses may come and go."""

    def __init__(self, params: LoopParams, first_step: int) -> None:
        self.params = params
        self.first_step = first_step
        self.started = time.monotonic()
        self.values: dict[str, list[float]] = {}
        self.text = ""

    def add(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            self.values.setdefault(name, []).append(value)

    def close(self, step: int) -> dict[str, float]:
        """Means since the last report; they begin anew, and ``text`` says them."""
        seconds = time.monotonic() - self.started
        means = {name: sum(found) / len(found) for name, found in self.values.items()}
        listed = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
        pace = seconds / max(step - self.first_step, 1)
        left = pace * (self.params.steps - step) / 60
        self.text = f"step {step}: {listed}; {pace:.3f} s per step, {left:.1f} min left"
        self.values = {}
        return {"step": float(step), **means}


def _log_new_messages() -> ProgressCallback:
    last = ""

    def tell(progress: Progress) -> None:
        nonlocal last
        if progress.message != last:
            last = progress.message
            LOGGER.info(last)

    return tell


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    trained = [value for value in module.parameters() if value.requires_grad]
    if not trained:
        raise ValueError("The module has no parameter that needs a gradient; nothing to train.")
    return [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": weight_decay},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _copy_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, value in module.named_parameters():
        if name in weights:
            value.copy_(weights[name])


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
