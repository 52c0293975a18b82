"""Sample sheets of S-LRM: what is drawn is what the model says, beside the truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.datasets.characters import CharacterLabel, make_character
from lift3d.core.networks.lrm import make_lrm
from lift3d.core.training.character_dataset import (
    CharacterData,
    CharacterDataParams,
    draw_characters,
)
from lift3d.core.training.slrm_sheets import (
    CLASS_COLORS,
    COLUMNS,
    draw_model,
    draw_truth,
    score_points,
    sheet_rig,
    write_slrm_sheet,
)
from lift3d.core.triplane import Triplane
from lrm_scenes import TINY


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> CharacterData:
    folder = tmp_path_factory.mktemp("characters")
    return draw_characters(
        CharacterDataParams(folder, characters=2, held_out=1, image_px=32, points=256, cell=0.03)
    )


def test_the_truth_shows_each_part_in_the_colour_of_its_class(data):
    classes, colors = draw_truth(data, 1, size_px=64)
    assert classes.shape == colors.shape == (2, 64, 64, 3)
    for label in CharacterLabel:
        hue = CLASS_COLORS[label] / CLASS_COLORS[label].norm()
        of_class = torch.nn.functional.cosine_similarity(classes, hue, dim=-1) > 0.999
        assert bool(of_class[0].any()), label.name  # all four show from the front
        if label == CharacterLabel.FACE:
            assert not bool(of_class[1].any())  # and the face only from there


def test_a_model_that_knows_the_truth_scores_full_marks(data, monkeypatch):
    character, item, model = make_character(1), data[1], make_lrm(TINY)

    def scores_of_classes(points):
        return torch.nn.functional.one_hot(character.solid(points)[1], 4).float()

    monkeypatch.setattr(model, "features", lambda _, places: model.to_world(places))
    monkeypatch.setattr(model.decoder, "sdf", lambda points: character.solid(points)[0])
    monkeypatch.setattr(model.decoder, "semantic_logits", scores_of_classes)
    planes = Triplane(torch.zeros(1, 3, 8, 8, 8))
    assert score_points(model, planes, item) == (1.0, 1.0)
    monkeypatch.setattr(model.decoder, "sdf", lambda points: -character.solid(points)[0])
    assert score_points(model, planes, item)[0] == pytest.approx(0.0, abs=0.01)


def test_a_model_without_a_surface_is_drawn_white():
    model = make_lrm(TINY)
    last = model.decoder.net_sdf[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(1.0)
    for picture in draw_model(model, Triplane(torch.zeros(1, 3, 8, 8, 8)), size_px=16):
        assert bool((picture == 1).all()) and len(picture) == len(sheet_rig())


@pytest.mark.parametrize("stage", ["mesh", "nerf"])
def test_a_sheet_has_a_row_for_each_held_out_character(stage, data, tmp_path, caplog):
    caplog.set_level("INFO")
    model = make_lrm(replace(TINY, decoder=replace(TINY.decoder, stage=stage)))
    write_slrm_sheet(tmp_path / "sheet.png", model, data, title="step 1", size_px=24)
    assert (tmp_path / "sheet.png").stat().st_size > 1000 and len(COLUMNS) == 9
    assert caplog.text.count("IoU") == 1
