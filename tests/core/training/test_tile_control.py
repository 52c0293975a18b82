"""Tile ControlNets: the conditions, what is learnt, resuming, and the file that others read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flow_scenes import Stop, ignore, make_data, quick_loop, stop_at
from lift3d.core.diffusion.diffusers_model import load_diffusers_model
from lift3d.core.diffusion.model import Control
from lift3d.core.formats.png import read_png
from lift3d.core.training.flux_flow import SheetParams, prepare_run
from lift3d.core.training.tile_control import (
    DegradeParams,
    TileControlParams,
    degrade_bundle,
    make_control,
    train_tile_control,
)
from tiny_models import make_tiny_flux_folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def settings(model: Path, data: Path, output: Path, **changes) -> TileControlParams:
    values = {
        "dtype": "float32", "device": "cpu", "batch": 2, "prefix": "", "single_blocks": 1,
        "loop": quick_loop(4), "gradient_checkpointing": False,
    }  # fmt: skip
    return TileControlParams(str(model), make_data(data), output, **{**values, **changes})


@pytest.fixture(scope="module")
def trained(tiny: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("control")
    params = settings(tiny, data_folder, output, loop=quick_loop(25), file_dtype="float32")
    train_tile_control(params, ignore)
    return output


def read_file(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "diffusion_pytorch_model.safetensors")


def picture() -> torch.Tensor:
    return torch.rand(128, 256, 3, generator=torch.Generator().manual_seed(3))


def test_pictures_are_degraded_by_their_number_only() -> None:
    params = DegradeParams(clean_share=0.25)
    made = [degrade_bundle(picture(), row, params) for row in range(40)]
    again = [degrade_bundle(picture(), row, params) for row in range(40)]
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    clean = [row for row, image in enumerate(made) if torch.equal(image, picture())]
    assert 3 < len(clean) < 20
    # What is lost is detail: the picture's variance falls, its mean stays.
    for row, image in enumerate(made):
        assert image.shape == picture().shape
        assert image.mean() == pytest.approx(float(picture().mean()), abs=0.01)
        assert image.var() <= picture().var() + 1e-6 or row in clean
    assert min(float(image.var()) for image in made) < 0.2 * float(picture().var())


def test_a_new_control_changes_nothing(tiny: Path, data_folder: Path, tmp_path: Path) -> None:
    params = settings(tiny, data_folder, tmp_path)
    run = prepare_run(params, ignore)
    control = make_control(run.backbone.network, params)
    control.save_pretrained(tmp_path / "control")
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 16, 32, generator=generator)
    words = run.model.encode_text(["a red mug"])
    sigma = torch.tensor([0.7])
    loaded = run.model.load_control(tmp_path / "control")
    steered = replace(words, controls=(Control(loaded, picture()[None]),))
    assert torch.equal(
        run.model.denoise(latents, sigma, words), run.model.denoise(latents, sigma, steered)
    )


def test_the_control_learns_what_its_picture_shows(trained: Path) -> None:
    losses = json.loads((trained / "training.json").read_text())["losses"]
    assert losses[0]["total"] > 1.2
    assert sum(row["total"] for row in losses[-5:]) / 5 < 1.0


def test_the_file_is_what_diffusers_reads_and_steers_the_model(tiny: Path, trained: Path) -> None:
    from diffusers import FluxControlNetModel

    network = FluxControlNetModel.from_pretrained(trained / "control_tile")
    assert network.config.num_layers == 1 and network.config.num_single_layers == 1
    assert not network.union and network.controlnet_x_embedder.weight.any()
    model = load_diffusers_model(tiny, device="cpu")
    loaded = model.load_control(trained / "control_tile")
    words = model.encode_text(["a red mug"])
    latents, sigma = torch.randn(1, 16, 16, 32), torch.tensor([0.7])
    plain = model.denoise(latents, sigma, words)
    steered = [
        model.denoise(latents, sigma, replace(words, controls=(Control(loaded, image[None]),)))
        for image in (picture(), 1 - picture())
    ]
    assert (steered[0] - plain).abs().max() > 1e-3
    assert (steered[0] - steered[1]).abs().max() > 1e-4


def test_the_model_itself_is_not_trained(tiny: Path, data_folder: Path, tmp_path: Path) -> None:
    train_tile_control(settings(tiny, data_folder, tmp_path), ignore)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["module"] and all(name.startswith("control.") for name in state["module"])


def test_an_interrupted_run_writes_the_same_network(
    tiny: Path, data_folder: Path, tmp_path: Path
) -> None:
    train_tile_control(settings(tiny, data_folder, tmp_path / "whole"), ignore)
    params = settings(tiny, data_folder, tmp_path / "parts")
    with pytest.raises(Stop):
        train_tile_control(params, stop_at(2))
    train_tile_control(params, ignore)
    whole, parts = (read_file(tmp_path / name / "control_tile") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert whole["x_embedder.weight"].dtype == torch.float16


def test_sheets_show_condition_result_and_original(
    tiny: Path, data_folder: Path, tmp_path: Path
) -> None:
    params = settings(
        tiny, data_folder, tmp_path / "run", result=tmp_path / "tile",
        sheet=SheetParams(rows=2, steps=1, guidance=1.0), loop=quick_loop(2, sample_every=2),
    )  # fmt: skip
    files = train_tile_control(params, ignore)
    sheet = read_png(tmp_path / "run" / "samples" / "step_000002.png")
    assert sheet.shape[1] >= 3 * 256 and sheet.shape[0] > 2 * 128
    assert {path.name for path in files if path.parent.name == "tile"} == {
        "config.json", "diffusion_pytorch_model.safetensors",
    }  # fmt: skip


def test_senseless_settings_are_refused(tiny: Path, data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 double and 1 single blocks; .* cannot have 2 and 1"):
        train_tile_control(settings(tiny, data_folder, tmp_path, double_blocks=2), ignore)
    with pytest.raises(ValueError, match="needs loop.bfloat16"):
        settings(tiny, data_folder, tmp_path, dtype="bfloat16")
    with pytest.raises(ValueError, match="variants and down_scale"):
        DegradeParams(variants=0)


def test_bfloat16_weights_are_trained_with_mixed_precision(
    tiny: Path, data_folder: Path, tmp_path: Path
) -> None:
    loop = quick_loop(2, bfloat16=True)
    params = settings(tiny, data_folder, tmp_path, dtype="bfloat16", loop=loop)
    train_tile_control(replace(params, gradient_checkpointing=True), ignore)
    losses = json.loads((tmp_path / "training.json").read_text())["losses"]
    assert 0.5 < losses[-1]["total"] < 2
