"""The shared loop: schedule, averaging, checkpoints, and the same path after an interruption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lift3d.core.training.loop import LoopParams, TrainingLoop, learning_rate_at
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[3]
PARAMS = LoopParams(
    steps=12, learning_rate=0.05, warmup_steps=2, average=0.9, save_every=0, report_every=4
)


class Line(nn.Module):
    """Fits y = 3x - 1 from noisy samples; the frozen part must not reach the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))
        self.bias = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.ones(1000), requires_grad=False)

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        inputs = torch.randn(8, 1, generator=generator)
        targets = 3 * inputs - 1 + 0.1 * torch.randn(8, 1, generator=generator)
        error = (inputs @ self.weight + self.bias - targets).square().mean()
        return {"total": error, "error": error}


class Stop(Exception):
    pass


def stop_at(step: int):
    def tell(progress) -> None:
        if progress.step == step:
            raise Stop

    return tell


def test_the_learning_rate_grows_stays_and_falls() -> None:
    params = LoopParams(
        steps=100, learning_rate=2.0, warmup_steps=10, decay_start=0.5, final_share=0.1
    )
    rates = [learning_rate_at(step, params) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == 2.0
    assert all(rate == 2.0 for rate in rates[9:51])
    assert rates[75] == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert rates[100] == pytest.approx(0.2)


def test_training_finds_the_line(tmp_path: Path) -> None:
    line = Line()
    params = replace(PARAMS, steps=300, learning_rate=0.1, average=0.0)
    TrainingLoop(line, tmp_path, params).run(line.loss)
    assert line.weight.item() == pytest.approx(3, abs=0.05)
    assert line.bias.item() == pytest.approx(-1, abs=0.05)


def test_an_interrupted_run_ends_bit_for_bit_as_one_in_one_piece(tmp_path: Path) -> None:
    whole = Line()
    loop = TrainingLoop(whole, tmp_path / "whole", PARAMS)
    loop.run(whole.loss)
    first = Line()
    with pytest.raises(Stop):
        TrainingLoop(first, tmp_path / "parts", PARAMS).run(first.loss, on_progress=stop_at(5))
    second = Line()
    resumed = TrainingLoop(second, tmp_path / "parts", PARAMS)
    assert resumed.step == 5
    resumed.run(second.loss)
    assert torch.equal(whole.weight, second.weight) and torch.equal(whole.bias, second.bias)
    with loop.averaged(), resumed.averaged():
        assert torch.equal(whole.weight, second.weight)
    assert [row["step"] for row in resumed.history] == [4, 8, 12]
    assert resumed.history[0] == loop.history[0] and resumed.history[2] == loop.history[2]


def test_frozen_weights_are_not_kept(tmp_path: Path) -> None:
    line = Line()
    loop = TrainingLoop(line, tmp_path, PARAMS)
    loop.save()
    state = torch.load(loop.checkpoint_file, weights_only=True)
    assert sorted(state["module"]) == ["bias", "weight"]
    other = Line()
    other.frozen.data.fill_(5)
    TrainingLoop(other, tmp_path, PARAMS)
    assert (other.frozen == 5).all()


def test_accumulated_parts_are_the_mean_of_their_losses(tmp_path: Path) -> None:
    line = Line()
    TrainingLoop(line, tmp_path, replace(PARAMS, accumulate=3, clip_norm=1e9)).train_step(line.loss)
    reference = Line()
    losses = [reference.loss(0, torch.Generator().manual_seed(part))["total"] for part in range(3)]
    torch.stack(losses).mean().backward()
    assert torch.allclose(line.weight.grad, reference.weight.grad)


def test_the_mean_of_the_weights_lags_and_is_taken_off_again(tmp_path: Path) -> None:
    line = Line()
    loop = TrainingLoop(line, tmp_path, PARAMS)
    loop.run(line.loss)
    own = line.weight.item()
    with loop.averaged():
        assert 0 < line.weight.item() < own
        assert not line.training
    assert line.weight.item() == own


def test_sample_sheets_come_at_their_steps_and_at_the_end(tmp_path: Path) -> None:
    line = Line()
    steps: list[int] = []
    loop = TrainingLoop(line, tmp_path, replace(PARAMS, sample_every=5))
    loop.run(line.loss, sample=steps.append)
    assert steps == [5, 10, 12]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    TrainingLoop(Line(), tmp_path, PARAMS).save()

    class Wide(Line):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 1))

    with pytest.raises(ValueError, match=r"weight is \[1, 1\] there, \[2, 1\] now. Remove it"):
        TrainingLoop(Wide(), tmp_path, PARAMS)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    line = Line()
    with pytest.raises(ValueError, match="loss of step 0 is nan; lower the learning rate"):
        TrainingLoop(line, tmp_path, PARAMS).run(
            lambda s, g: {"total": line.bias.sum() * torch.nan}
        )
    assert line.bias.item() == 0


def test_nothing_to_train_and_senseless_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        TrainingLoop(Line().requires_grad_(False), tmp_path, PARAMS)
    with pytest.raises(ValueError, match="steps and accumulate"):
        LoopParams(steps=0)
    with pytest.raises(ValueError, match="learning_rate"):
        LoopParams(steps=1, learning_rate=0.0)


WORKER = """
import sys; sys.path.insert(0, sys.argv[1]); sys.path.insert(0, sys.argv[2])
import run; run.register_package()
import json, torch
from pathlib import Path
from lift3d.core.training.loop import TrainingLoop
from lift3d.core.training.workers import find_workers
from test_loop import Line, PARAMS
workers = find_workers("cpu")
line = Line()
with workers.first_goes_ahead():
    print("ahead", workers.index)
loop = TrainingLoop(line, Path(sys.argv[3]), PARAMS, workers)
loop.run(line.loss)
Path(sys.argv[3], f"{workers.index}.json").write_text(json.dumps(
    [workers.count, line.weight.item(), line.bias.item(), loop.history[0]["total"]]))
"""


@pytest.mark.slow
def test_two_workers_do_what_one_does_with_twice_the_accumulation(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    here = Path(__file__).parent
    base = dict(os.environ, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", OMP_NUM_THREADS="1")
    base.update(MASTER_PORT=str(20000 + os.getpid() % 20000), LOCAL_WORLD_SIZE="2")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(ROOT), str(here), str(tmp_path)],
            env=dict(base, RANK=str(rank), LOCAL_RANK=str(rank)),
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert results[0] == results[1] and results[0][0] == 2
    line = Line()
    loop = TrainingLoop(line, tmp_path / "one", replace(PARAMS, accumulate=2))
    loop.run(line.loss)
    single = [line.weight.item(), line.bias.item(), loop.history[0]["total"]]
    assert results[0][1:] == pytest.approx(single, rel=1e-5)


def test_a_loss_that_comes_later_is_averaged_over_the_steps_that_had_it(tmp_path) -> None:
    line = Line()

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        found = {"total": line.loss(step, generator)["total"]}
        return found if step < 6 else {**found, "late": torch.tensor(5.0)}

    loop = TrainingLoop(line, tmp_path, PARAMS)
    loop.run(loss, on_progress=lambda progress: None)
    assert ["late" in row for row in loop.history] == [False, True, True]
    assert [row["late"] for row in loop.history[1:]] == [5.0, 5.0]
