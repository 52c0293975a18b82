"""The benchmarks are found by name, take their own options, and need nothing but this repository."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from lift3d.benchmarks import round_trip, run_all
from lift3d.benchmarks._objects import PROCEDURAL, add_object_options, chosen_objects
from lift3d.core.datasets.procedural_objects import CATEGORIES


def objects_of(*arguments: str):
    parser = argparse.ArgumentParser()
    add_object_options(parser)
    return chosen_objects(parser.parse_args(arguments))


def test_helpers_are_no_benchmarks(capsys) -> None:
    assert run_all.main(["--list"]) == 0
    names = capsys.readouterr().out.split()
    assert {"mesh_rendering", "splat_rendering", "round_trip", "texture_bake"} <= set(names)
    assert "run_all" not in names and not any(name.startswith("_") for name in names)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["paint"], "Unknown benchmark paint"),
        (["--faces", "50"], "name it first"),
        (["remeshing", "round_trip", "--only", "x"], "name it first"),
        (["round_trip", "--only", "nothing"], "fits no object"),
    ],
)
def test_what_cannot_be_run_is_said(arguments: list[str], part: str, capsys) -> None:
    assert run_all.main(arguments) == 2
    assert part in capsys.readouterr().out


def test_objects_are_procedural_unless_a_folder_is_named(tmp_path: Path) -> None:
    from lift3d.core.formats import write_mesh

    assert set(PROCEDURAL) <= set(CATEGORIES) and len(PROCEDURAL) == 12
    found = objects_of("--only", "ellipsoid,procedural mug")
    assert list(found) == ["ellipsoid", "procedural mug"]
    write_mesh(tmp_path / "cup.obj", found["procedural mug"])
    (tmp_path / "notes.txt").write_text("no mesh")
    mine = objects_of("--meshes", str(tmp_path), "--no-procedural")
    assert list(mine) == ["cup"] and mine["cup"].vertex_colors is not None
    low, high = mine["cup"].bounds()
    assert float((high - low).max()) == pytest.approx(1.8, abs=1e-4)


@pytest.mark.slow
def test_the_round_trip_prints_both_rows_the_means_and_a_sheet(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(round_trip, "NUM_POINTS", 2000)
    monkeypatch.setattr(round_trip, "EVALUATION_PX", 64)
    options = ["--only", "ellipsoid", "--tile", "64", "--steps", "1", "--out", str(tmp_path)]
    assert round_trip.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if line.startswith("| ") and "---" not in line]
    assert [line.split("|")[1].strip() for line in lines] == [
        "object", "ellipsoid, hull", "ellipsoid", "mean, hull", "**mean**",
    ]  # fmt: skip
    iou, normals = (float(cell) for cell in lines[2].split("|")[2:4])
    assert iou > 0.95 and normals < 10
    assert (tmp_path / "round_trip.png").stat().st_size > 1000


def test_the_forward_pass_of_the_decoder_is_measured_at_any_size(capsys) -> None:
    from lift3d.benchmarks import decoder_forward

    assert decoder_forward.main(["--size", "tiny", "--views", "3", "--side", "16"]) == 0
    printed = capsys.readouterr().out
    assert "3 views of 16 x 16 to 3,072 Gaussians" in printed and "M parameters, made" in printed
