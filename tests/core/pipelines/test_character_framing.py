"""Framing of characters: published sizes, what is cut off, room for legs, squares."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.pipelines.character_framing import (
    clean_matte,
    fit_portrait,
    fit_view,
    frame_character,
    pad_to_square,
    place_on_canvas,
)


def scene(height: int = 120, width: int = 80, box=(10, 110, 30, 60)):
    picture = torch.full((height, width, 3), 0.3)
    mask = torch.zeros(height, width)
    top, bottom, left, right = box
    mask[top:bottom, left:right] = 1
    picture[top:bottom, left:right] = torch.tensor([0.9, 0.2, 0.1])
    return picture, mask


def test_the_canvas_has_the_published_size_and_place():
    assert place_on_canvas(300, 900) == ((1080, 675), 90, 187)


def test_the_character_fills_its_share_of_the_portrait_on_white():
    framed = frame_character(*scene())
    assert framed.image.shape == (1024, 640, 3) and not framed.warnings
    rows = (framed.mask > 0.5).any(dim=1).nonzero()[:, 0]
    assert float(len(rows)) == pytest.approx(1024 / 1.2, abs=12)
    assert abs(int(rows[0]) - (1023 - int(rows[-1]))) <= 10
    torch.testing.assert_close(
        framed.image[512, 320], torch.tensor([0.9, 0.2, 0.1]), atol=0.01, rtol=0
    )
    torch.testing.assert_close(framed.image[0, 0], torch.ones(3))
    assert float(framed.free.max()) == 0


def test_the_last_row_and_column_are_kept():
    picture, mask = scene()
    picture[109, 30:60] = 0.0  # a black last row
    framed = frame_character(picture, mask)
    rows = (framed.mask > 0.5).any(dim=1).nonzero()[:, 0]
    assert float(framed.image[int(rows[-1]) - 1, 320].max()) < 0.35


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((10, 120, 30, 60), "cut off below"),
        ((0, 110, 30, 60), "cut off above"),
        ((40, 90, 10, 70), "hardly higher than wide"),
    ],
)
def test_what_is_cut_off_is_told(box, words):
    assert any(words in line for line in frame_character(*scene(box=box)).warnings)


def test_room_for_legs_is_marked():
    framed = frame_character(*scene(box=(60, 120, 30, 60)), pad_below=1.0)
    feet = (framed.mask > 0.5).any(dim=1).nonzero()[-1]
    assert 400 < int(feet) < 620
    assert (
        float(framed.free[int(feet) + 10 :].min()) == 1
        and float(framed.free[: int(feet) - 10].max()) == 0
    )


def test_wide_characters_stay_whole():
    framed = frame_character(*scene(60, 200, (20, 40, 10, 190)))
    columns = (framed.mask > 0.5).any(dim=0).nonzero()[:, 0]
    assert int(columns[0]) > 20 and int(columns[-1]) < 620


def test_views_lose_and_gain_the_published_columns():
    image = torch.arange(640.0).expand(1024, 640)[..., None].expand(1024, 640, 3)
    cropped = fit_view(image)
    assert cropped.shape == (1024, 576, 3) and float(cropped[0, 0, 0]) == 32
    square = pad_to_square(torch.zeros(6, 1024, 576, 3))
    assert square.shape == (6, 1024, 1024, 3)
    assert float(square[:, :, :224].min()) == 1 and float(square[:, :, 224:800].max()) == 0
    assert pad_to_square(square) is square


def test_empty_and_full_masks_and_wrong_sizes_are_refused(unchecked_shapes):
    picture, mask = scene()
    with pytest.raises(ValueError, match="mask is empty"):
        frame_character(picture, 0 * mask)
    with pytest.raises(ValueError, match="no background"):
        frame_character(picture, torch.ones_like(mask))
    with pytest.raises(ValueError, match="pad_below"):
        frame_character(picture, mask, pad_below=-1.0)
    with pytest.raises(ValueError, match="portrait of 5 : 8.* got 80 x 120"):
        fit_portrait(picture)
    with pytest.raises(ValueError, match="wider than high, got 120 x 80"):
        fit_view(picture.transpose(0, 1))


def test_traces_of_soft_mattes_do_not_count():
    picture, mask = scene()
    soft = 0.05 + 0.9 * mask  # 0.05 outside, 0.95 inside
    assert torch.equal(clean_matte(soft), mask)
    assert torch.equal(frame_character(picture, soft).mask, frame_character(picture, mask).mask)
    half = torch.tensor([[0.0999, 0.1, 0.5, 0.9, 0.9001]])
    assert clean_matte(half)[0].tolist() == pytest.approx([0.0, 0.1, 0.5, 0.9, 1.0])


def test_portraits_and_views_have_the_proportions_of_the_published_sizes(caplog):
    portrait = torch.rand(256, 160, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_portrait(portrait, 256), portrait)
    assert fit_portrait(portrait, 512).shape == (512, 320, 3)
    narrow = torch.zeros(128, 40, 3)
    view = fit_view(narrow, 128)
    assert view.shape == (128, 72, 3)
    assert float(view[:, :16].min()) == 1 and float(view[:, 16:56].max()) == 0
    assert not caplog.records
    assert torch.equal(fit_view(portrait, 256), portrait[:, 8:152])
    assert "sides are cut off" in caplog.text
