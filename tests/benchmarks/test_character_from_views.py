"""The benchmark of characters from views prints both states of each character, means and a sheet."""

from __future__ import annotations

from pathlib import Path

import pytest
from lift3d.benchmarks import character_from_views
from lift3d.core.datasets.characters import CHARACTER_PARTS, character_meshes, make_character
from lrm_scenes import write_tiny_slrm


@pytest.fixture(scope="module")
def truth():
    return list(character_meshes(make_character(976), cell=0.025).values())


def test_the_truth_scores_best(truth, monkeypatch) -> None:
    monkeypatch.setattr(character_from_views, "NUM_POINTS", 1500)
    points, labels = character_from_views.outer_points(make_character(976), truth)
    made = character_from_views.judge(truth, truth, points, labels)
    for part in CHARACTER_PARTS:
        iou, distance, f_score = made.shapes[part]
        assert iou == 1.0 and distance < 1e-5 and f_score == 1.0
    assert made.whole["parts"] > 0.99 and made.whole["in body"] < 0.1
    swapped = [truth[0], truth[2], truth[1]]
    worse = character_from_views.judge(swapped, truth, points, labels)
    assert worse.whole["parts"] < 0.5 and worse.shapes["hair"][0] < 0.05


@pytest.mark.slow
def test_it_prints_two_rows_per_character_the_means_and_a_sheet(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(character_from_views, "NUM_POINTS", 1000)
    model = tmp_path / "slrm.pt"
    write_tiny_slrm(model)
    options = ["--count", "1", "--size", "64", "--steps", "2", "1", "--model", str(model)]
    assert character_from_views.main([*options, "--out", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = [line.split("|")[1].strip() for line in lines]
    assert names[1:4] == ["---", "976 read", "976 refined"]
    assert names[-2:] == ["mean, read", "mean, refined"] and "hair, refined" in names
    assert (tmp_path / "character_from_views.png").stat().st_size > 1000


def test_a_missing_model_is_said(tmp_path: Path, capsys) -> None:
    assert character_from_views.main(["--model", str(tmp_path / "none.pt")]) == 2
    assert "There is no S-LRM at" in capsys.readouterr().out
