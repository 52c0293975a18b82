"""Contains the loop that all trainers share: schedule, averaging, checkpoints, resuming.

A trainer gives a module and a loss as a function of (step, random generator). All randomness of a
step comes from that generator, whose seed is the step's number: a resumed run takes the same path.
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
from ..progress import Progress, ProgressCallback, ignore_progress

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
        own = {name: value.detach().clone() for name, value in module.named_parameters()}
        try:
            _copy_weights(module, self.weights)
            yield
        finally:
            _copy_weights(module, own)


class TrainingLoop:
    """Trains one module and keeps its state in a folder.

    Args:
        module: its parameters that need gradients are trained.
        folder: of checkpoints; an existing one is resumed.
        params: settings.
    """

    def __init__(self, module: nn.Module, folder: Path, params: LoopParams) -> None:
        self.module = module
        self.folder = Path(folder)
        self.params = params
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
        on_progress: ProgressCallback = ignore_progress,
        sample: SampleFunction | None = None,
    ) -> None:
        """Train to the last step; what ``on_progress`` raises passes on after a checkpoint."""
        report = _Report(self.params, self.step)
        try:
            while self.step < self.params.steps:
                report.add(self.train_step(loss))
                line = report.line(self.step)
                on_progress(Progress(self.step, self.params.steps, line))
                self._save_and_sample(sample)
        finally:
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
            index = self.step * params.accumulate + part
            generator = torch.Generator().manual_seed(params.seed * 1_000_003 + index)
            with torch.autocast(_device_of(self.module).type, torch.bfloat16, params.bfloat16):
                losses = loss(self.step, generator)
            (losses["total"] / params.accumulate).backward()
            for name, value in losses.items():
                values[name] = values.get(name, 0.0) + float(value.detach()) / params.accumulate
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
        state = {
            "step": self.step,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.weights,
        }
        with atomic_write(self.checkpoint_file) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        if not self.checkpoint_file.is_file():
            return
        state = torch.load(self.checkpoint_file, map_location="cpu", weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            for name, value in self.average.weights.items():
                value.copy_(state["average"][name])
        self.step = int(state["step"])
        LOGGER.info("Resuming at step %d of %d.", self.step, self.params.steps)

    def _save_and_sample(self, sample: SampleFunction | None) -> None:
        params = self.params
        if params.save_every and self.step % params.save_every == 0:
            self.save()
        last = self.step == params.steps
        if sample is not None and params.sample_every:
            if last or self.step % params.sample_every == 0:
                with self.averaged(), torch.no_grad():
                    sample(self.step)


class _Report:
    """Means of the losses since the last line of the log."""

    def __init__(self, params: LoopParams, first_step: int) -> None:
        self.params = params
        self.first_step = first_step
        self.started = time.monotonic()
        self.sums: dict[str, float] = {}
        self.count = 0
        self.text = ""

    def add(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def line(self, step: int) -> str:
        if step % self.params.report_every and step != self.params.steps:
            return self.text
        seconds = time.monotonic() - self.started
        means = ", ".join(f"{name} {value / self.count:.4f}" for name, value in self.sums.items())
        pace = seconds / max(step - self.first_step, 1)
        left = pace * (self.params.steps - step) / 60
        self.text = f"step {step}: {means}; {pace:.3f} s per step, {left:.1f} min left"
        LOGGER.info(self.text)
        self.sums, self.count = {}, 0
        return self.text


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
