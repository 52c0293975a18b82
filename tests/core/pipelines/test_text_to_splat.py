"""Text to Gaussians: it obeys its model, repeats, resumes bit for bit, and survives bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distill_scenes import RED, WishfulModel, same, small_params, start, with_densify
from lift3d.core.camera import make_orbit_rig
from lift3d.core.pipelines.distill_checkpoint import CheckpointFile
from lift3d.core.pipelines.text_to_splat import text_to_splat
from lift3d.core.progress import StopEarly
from lift3d.core.rendering.splats import render_splats


def middle_colors(cloud) -> torch.Tensor:
    rig = make_orbit_rig([0.0, 120.0], 10.0, radius=4.5)
    rgb = render_splats(cloud, rig, width=32, height=32).rgb
    return rgb[:, 13:19, 13:19].mean(dim=(1, 2))


class Interruption(Exception):
    """What a host raises when its user presses stop."""


def stop_after(iteration: int, error: type[Exception]):
    def on_progress(progress) -> None:
        if progress.step == iteration:
            raise error

    return on_progress


# -- what it does ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ge3d", "sds", "ism"])
def test_gaussians_become_what_the_model_wants(kind) -> None:
    params = small_params(40)
    params = replace(params, objective=replace(params.objective, kind=kind))
    cloud, report = text_to_splat("a red ball", WishfulModel(), start(), params)
    wanted = torch.tensor(RED)
    before = float((middle_colors(start()) - wanted).abs().mean())
    after = float((middle_colors(cloud) - wanted).abs().mean())
    assert after < 0.3 * before
    assert report.iterations == 40 and report.ending == "finished" and report.skipped == 0


def test_the_prompt_decides() -> None:
    params = small_params(20)
    red, blue = (
        middle_colors(text_to_splat("a ball", WishfulModel(c), start(), params)[0]).mean(dim=0)
        for c in (RED, (0.1, 0.1, 0.9))
    )
    assert float(red[0] - red[2]) > 0.2 and float(blue[2] - blue[0]) > 0.2


def test_the_number_of_evaluations_is_three_per_node_and_view() -> None:
    params = small_params(5)
    model = WishfulModel()
    _, report = text_to_splat("a ball", model, start(), params)
    nodes, batch = 2, 2
    assert report.evaluations == 5 * 3 * nodes * batch
    assert model.calls == 5 * 2 * nodes


def test_model_and_start_are_left_alone() -> None:
    model, cloud = WishfulModel(), start()
    before = cloud.clone()
    text_to_splat("a ball", model, cloud, small_params(2))
    assert same(cloud, before) and model.weight.grad is None


def test_it_works_on_inference_tensors() -> None:
    model = WishfulModel()
    with torch.inference_mode():
        cloud = start()
        made, _ = text_to_splat("a ball", model, cloud, small_params(2))
        again, _ = text_to_splat("a ball", model, start(), small_params(2))
    assert same(made, again) and not made.means.requires_grad


def test_progress_tells_pace_and_time_left_and_shows_the_object() -> None:
    reports = []
    text_to_splat(
        "a ball", WishfulModel(), start(), small_params(4, preview_every=2),
        on_progress=reports.append,
    )  # fmt: skip
    assert [r.step for r in reports] == [1, 2, 3, 4] and reports[0].total == 4
    assert [r.preview is not None for r in reports] == [False, True, False, True]
    assert reports[1].preview.shape == (16, 16, 3)
    for word in ("iteration 3/4", "Gaussians", "it/s", "left", "disagreement"):
        assert word in reports[2].message


def test_a_run_that_has_settled_ends() -> None:
    params = small_params(40, patience=3, tolerance=0.9)
    _, report = text_to_splat("a ball", WishfulModel(), start(), params)
    assert report.ending == "settled" and report.iterations < 40


def test_time_is_accounted_for() -> None:
    _, report = text_to_splat("a ball", WishfulModel(), start(), small_params(3))
    assert set(report.seconds) == {"draw", "encode", "ask", "move", "model"}
    assert 0 < report.seconds["model"] <= report.seconds["ask"]


# -- repeating and resuming ------------------------------------------------------------------


def test_the_same_seed_repeats_and_another_does_not() -> None:
    first, again, other = (
        text_to_splat("a ball", WishfulModel(), start(), small_params(6, seed=s))[0]
        for s in (3, 3, 4)
    )
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_an_interrupted_run_resumes_to_the_same_gaussians(stop_at: int, tmp_path: Path) -> None:
    params = with_densify(small_params(8), reset_opacity_every=5)
    straight, _ = text_to_splat("a ball", WishfulModel(), start(), params)
    checkpoint = CheckpointFile(tmp_path / "run.safetensors", every=0)
    with pytest.raises(Interruption):
        text_to_splat(
            "a ball", WishfulModel(), start(), params, checkpoint=checkpoint,
            on_progress=stop_after(stop_at, Interruption),
        )  # fmt: skip
    steps = []
    resumed, report = text_to_splat(
        "a ball", WishfulModel(), start(), params, checkpoint=checkpoint,
        on_progress=lambda p: steps.append(p.step),
    )  # fmt: skip
    assert same(straight, resumed) and steps[0] == stop_at + 1 and report.iterations == 8


def test_an_error_in_the_middle_of_an_iteration_keeps_the_last_whole_one(tmp_path: Path) -> None:
    params = small_params(6)
    straight, _ = text_to_splat("a ball", WishfulModel(), start(), params)
    checkpoint = CheckpointFile(tmp_path / "run.safetensors", every=0)
    model = WishfulModel()
    denoise = model.denoise

    def failing(latents, sigma, conditioning):
        if model.calls == 14:
            raise Interruption
        return denoise(latents, sigma, conditioning)

    model.denoise = failing
    with pytest.raises(Interruption):
        text_to_splat("a ball", model, start(), params, checkpoint=checkpoint)
    resumed, _ = text_to_splat("a ball", WishfulModel(), start(), params, checkpoint=checkpoint)
    assert same(straight, resumed)


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    checkpoint = CheckpointFile(tmp_path / "run.safetensors")
    first, _ = text_to_splat(
        "a ball", WishfulModel(), start(), small_params(3), checkpoint=checkpoint
    )
    model = WishfulModel()
    again, _ = text_to_splat("a ball", model, start(), small_params(3), checkpoint=checkpoint)
    assert model.calls == 0 and same(first, again)


def test_checkpoints_are_written_every_few_iterations(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    seen = []
    text_to_splat(
        "a ball", WishfulModel(), start(), small_params(5),
        checkpoint=CheckpointFile(path, every=2),
        on_progress=lambda p: seen.append(path.is_file()),
    )  # fmt: skip
    assert seen == [False, False, True, True, True]  # reports come before the save
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_stopping_keeps_what_there_is(tmp_path: Path) -> None:
    cloud, report = text_to_splat(
        "a ball", WishfulModel(), start(), small_params(8),
        on_progress=stop_after(3, StopEarly),
    )  # fmt: skip
    assert report.ending == "stopped" and report.iterations == 3
    assert cloud.num_gaussians > 0 and not same(cloud, start())


def test_a_stop_right_after_lowered_opacities_gives_the_gaussians_from_before() -> None:
    params = with_densify(small_params(8), every=1, start=1, reset_opacity_every=4)
    cloud, _ = text_to_splat(
        "a ball", WishfulModel(), start(), params, on_progress=stop_after(5, StopEarly)
    )
    assert float(cloud.opacities.max()) > 0.05


def test_every_run_can_have_its_own_file_which_goes_when_it_is_done(tmp_path: Path) -> None:
    checkpoint = CheckpointFile(tmp_path / "run.safetensors", keep=False, per_run=True)
    for prompt in ("a ball", "a cube"):
        text_to_splat(
            prompt, WishfulModel(), start(), small_params(4), checkpoint=checkpoint,
            on_progress=stop_after(2, StopEarly),
        )  # fmt: skip
    assert len(list(tmp_path.iterdir())) == 2
    steps = []
    text_to_splat(
        "a cube", WishfulModel(), start(), small_params(4), checkpoint=checkpoint,
        on_progress=lambda p: steps.append(p.step),
    )  # fmt: skip
    assert steps == [3, 4] and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("change", ["prompt", "seed", "start", "model"])
def test_the_checkpoint_of_another_run_is_refused(change: str, tmp_path: Path) -> None:
    checkpoint = CheckpointFile(tmp_path / "run.safetensors")
    text_to_splat("a ball", WishfulModel(), start(), small_params(2), checkpoint=checkpoint)
    model = WishfulModel()
    if change == "model":
        model.sigma_range = (0.02, 80.0)
    prompt = "a cube" if change == "prompt" else "a ball"
    cloud = start(151) if change == "start" else start()
    params = small_params(2, seed=1 if change == "seed" else 0)
    with pytest.raises(ValueError, match="checkpoint of another run"):
        text_to_splat(prompt, model, cloud, params, checkpoint=checkpoint)
    fresh = replace(checkpoint, resume=False)
    text_to_splat(prompt, model, cloud, params, checkpoint=fresh)


def test_a_checkpoint_cut_short_is_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    checkpoint = CheckpointFile(path)
    text_to_splat("a ball", WishfulModel(), start(), small_params(2), checkpoint=checkpoint)
    whole = path.read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"run\.safetensors"):
            text_to_splat("a ball", WishfulModel(), start(), small_params(2), checkpoint=checkpoint)
        assert path.read_bytes() == whole[:length]


# -- bad input -------------------------------------------------------------------------------


def test_nan_from_the_model_is_skipped_and_counted() -> None:
    model = WishfulModel()
    model.answers_nan_at = {5, 9}  # a call of the second iteration, and one of a later
    cloud, report = text_to_splat("a red ball", model, start(), small_params(6))
    assert report.skipped == 2 and report.iterations == 6
    assert bool(torch.isfinite(cloud.means).all())


def test_nan_again_and_again_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    model = WishfulModel()
    model.answers_nan_at = set(range(9, 1000))
    path = tmp_path / "run.safetensors"
    with pytest.raises(ValueError, match="5 iterations in a row failed.*float32"):
        text_to_splat(
            "a ball", model, start(), small_params(30), checkpoint=CheckpointFile(path, every=0)
        )
    cloud, report = text_to_splat(
        "a ball", WishfulModel(), start(), small_params(30), checkpoint=CheckpointFile(path)
    )
    assert report.skipped == 4 and report.iterations == 30 and cloud.num_gaussians


def test_a_loss_without_end_is_skipped() -> None:
    model = WishfulModel()
    encode, calls = model.encode_image, []

    def encode_image(images):
        calls.append(1)
        return encode(images) * (torch.inf if len(calls) == 2 else 1.0)

    model.encode_image = encode_image
    _, report = text_to_splat("a ball", model, start(), small_params(4))
    assert report.skipped == 1


def test_when_everything_would_be_pruned_the_last_good_state_is_taken() -> None:
    rules = {"every": 2, "start": 2, "min_opacity": 0.9999, "gradient_threshold": 1e9}
    params = with_densify(small_params(3), **rules)
    cloud, report = text_to_splat("a ball", WishfulModel(), start(), params)
    assert report.restored == 1 and cloud.num_gaussians >= 150
    again = with_densify(small_params(30), **rules)
    with pytest.raises(ValueError, match="vanished 5 times"):
        text_to_splat("a ball", WishfulModel(), start(), again)


def test_an_encoder_without_gradients_is_refused() -> None:
    model = WishfulModel()
    encode = model.encode_image
    model.encode_image = lambda images: encode(images.detach())
    with pytest.raises(ValueError, match="gives no gradient"):
        text_to_splat("a ball", model, start(), small_params(2))
    model.encode_image = lambda images: encode(images).detach()
    with pytest.raises(ValueError, match="gives no gradient"):
        text_to_splat("a ball", model, start(), small_params(2))
    assert model.calls == 2 * 2  # in the second case nothing was asked in vain


def test_an_empty_prompt_or_splat_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        text_to_splat("  ", WishfulModel(), start(), small_params(2))
    with pytest.raises(ValueError, match="initial splat is empty"):
        text_to_splat(
            "a ball", WishfulModel(), start().select(torch.zeros(0, dtype=torch.int64)),
            small_params(2),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, "at least 1"),
        ({"views": 0}, "at least 1"),
        ({"size_px": 4}, "size_px at least 8"),
        ({"white_share": 0.9, "black_share": 0.3}, "sum to at most 1"),
        ({"flip_share": 1.5}, "flip_share"),
    ],
)
def test_senseless_runs_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        small_params(**change)


def test_checkpoint_files_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end in .safetensors"):
        CheckpointFile(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="every must not be negative"):
        CheckpointFile(tmp_path / "run.safetensors", every=-1)
