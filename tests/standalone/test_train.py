"""The command `train`: exit codes, what it prints, and that every shipped configuration is valid."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from lift3d.core.progress import Progress
from lift3d.core.training.config import CONFIG_FOLDER, read_config
from lift3d.core.training.trainers import TRAINERS
from lift3d.standalone import train
from lift3d.standalone.cli import DONE, FAILED, INVALID, main

SHIPPED = {
    "ablation_views_4": "gs-decoder",
    "ablation_views_8": "gs-decoder",
    "ablation_without_picture": "gs-decoder",
    "bundle_dataset": "bundle-dataset",
    "embedded_bundle": "embedded-bundle",
    "embedded_doll_lora": "bundle-lora",
    "embedded_geometric_distillation": "geometric-distillation",
    "embedded_gs_decoder": "gs-decoder",
    "embedded_orbit": "embedded-orbit",
    "embedded_slrm": "slrm",
    "embedded_tile_control": "tile-control",
    "embedded_views": "embedded-views",
    "train_bundle_lora": "bundle-lora",
    "train_geometric_distillation": "geometric-distillation",
    "train_gs_decoder": "gs-decoder",
    "train_slrm": "slrm",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"folder: {tmp_path / 'data'}\n"
        "procedural: {count: 2, categories: [mug], supersampling: 1}\n"
    )
    return path


def test_a_trainer_runs_and_its_files_are_named(config: Path, tmp_path: Path, capsys) -> None:
    assert main(["train", "bundle-dataset", str(config)]) == DONE
    printed = capsys.readouterr().out
    assert "drew picture 2 of 2" in printed
    assert f"wrote {tmp_path / 'data'}: pictures_00000.npy, records_00000.json (0.2 MB)" in printed


def test_settings_replace_values_of_the_file(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    settings = ["--set", f"folder={other}", "--set", "procedural.count=1"]
    assert main(["train", "bundle-dataset", str(config), *settings]) == DONE
    assert (other / "records_00000.json").is_file() and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "NAME is one of"),
        (["train", "bundle-dataset"], "CONFIG is a YAML file"),
        (["train", "dragon", "x.yaml"], "There is no trainer 'dragon'"),
        (["train", "bundle-dataset", "missing.yaml"], "neither a file nor the name"),
        (["train", "bundle-dataset", "{config}", "--set", "colour=red"], "unknown key colour"),
        (["train", "bundle-dataset", "{config}", "--set", "limit=few"], "limit must be a whole"),
        (["train", "bundle-lora", "{config}"], "unknown key folder"),
    ],
)
def test_bad_arguments_and_configurations_exit_with_2(
    arguments: list[str], message: str, config: Path, capsys
) -> None:
    assert main([argument.format(config=config) for argument in arguments]) == INVALID
    assert message in capsys.readouterr().err


def test_what_fails_while_running_exits_with_1(config: Path, capsys) -> None:
    assert main(["train", "bundle-dataset", str(config), "--set", "procedural=null"]) == FAILED
    assert "Training stopped: name 'assets'" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_configurations_are_valid(name: str) -> None:
    params = read_config(TRAINERS[SHIPPED[name]].params, name)
    assert dataclasses.is_dataclass(params)


def test_every_trainer_has_a_shipped_configuration() -> None:
    assert set(SHIPPED.values()) == set(TRAINERS)
    assert {path.stem for path in CONFIG_FOLDER.glob("*.yaml")} >= set(SHIPPED)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("views_4", {"num_frames": 4}),
        ("views_8", {"num_frames": 8}),
        ("without_picture", {"use_picture": False}),
    ],
)
def test_an_ablation_changes_one_setting_and_its_folders(name: str, changed: dict) -> None:
    kind = TRAINERS["gs-decoder"].params
    full, other = read_config(kind, "embedded_gs_decoder"), read_config(kind, f"ablation_{name}")
    folders = {"output": other.output, "result": other.result}
    assert other == dataclasses.replace(full, **folders, **changed)
    assert other.output != full.output and other.result != full.result


def test_embedded_trainers_learn_from_other_objects_than_the_base() -> None:
    base = read_config(TRAINERS["embedded-bundle"].params, "embedded_bundle")
    doll = read_config(TRAINERS["bundle-lora"].params, "embedded_doll_lora")
    tile = read_config(TRAINERS["tile-control"].params, "embedded_tile_control")
    procedural = doll.data.procedural
    assert not set(procedural.categories) & set(base.bundles.categories)
    assert set(tile.data.procedural.categories) == set(base.bundles.categories)
    assert {p.levels for p in (doll, tile)} == {base.flux.levels}
    assert {Path(p.model) for p in (doll, tile)} == {base.result}


def test_progress_is_printed_now_and_then(capsys, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    lines = train.ProgressLines()
    for step, message in ((1, "a"), (2, "b"), (3, "c"), (3, "c")):
        lines(Progress(step, 3, message))
    now[0] += 6
    lines(Progress(1, 9, "d"))
    lines(Progress(2, 9, "e"))
    assert capsys.readouterr().out.split() == ["a", "c", "d"]


def test_many_files_of_a_folder_share_a_line(tmp_path: Path) -> None:
    files = [tmp_path / f"{index}.bin" for index in range(6)]
    for path in files:
        path.write_bytes(bytes(2**19))
    assert train.describe_files(files) == [
        f"wrote {tmp_path}: 0.bin, 1.bin, 2.bin, 3.bin and 2 more (3.0 MB)"
    ]
