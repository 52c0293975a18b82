from __future__ import annotations

import pytest
import torch
from lift3d.core.evaluation.contact_sheet import make_contact_sheet

RED, BLUE = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])


def plain(color: torch.Tensor, height: int = 8, width: int = 8) -> torch.Tensor:
    return color.expand(height, width, 3)


def test_pictures_stand_in_their_rows_and_columns():
    sheet = make_contact_sheet([[plain(RED), plain(BLUE)], [plain(BLUE)]], gap_px=2)
    assert sheet.shape == (2 + 8 + 2 + 8 + 2, 2 + 8 + 2 + 8 + 2, 3)
    torch.testing.assert_close(sheet[2:10, 2:10], plain(RED))
    torch.testing.assert_close(sheet[2:10, 12:20], plain(BLUE))
    torch.testing.assert_close(sheet[12:20, 2:10], plain(BLUE))
    assert bool((sheet[12:20, 12:20] == 1).all())


def test_smaller_pictures_are_centred_in_their_cell():
    sheet = make_contact_sheet([[plain(RED, 8, 8)], [plain(BLUE, 4, 4)]], gap_px=0)
    torch.testing.assert_close(sheet[8:12, 2:6], plain(BLUE, 4, 4))


def test_labels_make_room_and_leave_the_pictures_alone():
    rows = [[plain(RED, 20, 60), plain(BLUE, 20, 60)]]
    bare = make_contact_sheet(rows)
    sheet = make_contact_sheet(
        rows,
        row_labels=["a red mug"],
        column_labels=["front", "left"],
        tile_labels=[["one", "two"]],
        title="Two pictures",
    )
    assert sheet.shape[0] > bare.shape[0] + 40
    assert sheet.shape[1] > bare.shape[1] + 30
    assert int((sheet == RED).all(dim=-1).sum()) == 20 * 60
    assert float(sheet.min(dim=-1).values[:16].min()) < 0.5  # the title's ink


def test_long_labels_are_cut_to_their_column():
    sheet = make_contact_sheet([[plain(RED, 8, 30)]], column_labels=["a very long label" * 5])
    assert sheet.shape[1] == make_contact_sheet([[plain(RED, 8, 30)]]).shape[1]


def test_masks_and_alpha_become_colours():
    ghost = torch.cat([plain(RED), torch.zeros(8, 8, 1)], dim=-1)
    sheet = make_contact_sheet([[torch.ones(8, 8), ghost]], gap_px=0, background=0.25)
    assert bool((sheet[:, :8] == 1).all())
    assert bool((sheet[:, 8:] == 0.25).all())


def test_the_inputs_are_not_changed():
    tile = torch.rand(8, 8, 3)
    before = tile.clone()
    make_contact_sheet([[tile]], tile_labels=[["x"]])
    assert torch.equal(tile, before)


def test_bad_sheets_say_what_is_wrong():
    with pytest.raises(ValueError, match="at least one picture"):
        make_contact_sheet([[]])
    with pytest.raises(ValueError, match="one by one"):
        make_contact_sheet([[torch.rand(2, 8, 8, 3)]])
    with pytest.raises(ValueError, match="2 row labels for 1 rows"):
        make_contact_sheet([[plain(RED)]], row_labels=["a", "b"])
    with pytest.raises(ValueError, match="column labels"):
        make_contact_sheet([[plain(RED)]], column_labels=[])
    with pytest.raises(ValueError, match="one text for each picture"):
        make_contact_sheet([[plain(RED)]], tile_labels=[[]])
