"""Cutting from white: coverage and colours of blurred discs against the discs that were blurred."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.pipelines.white_cut import cut_from_white

SIZE = 48
COLOR = torch.tensor([0.9, 0.3, 0.1])


def disc() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return ((rows - 23.5) ** 2 + (columns - 23.5) ** 2 < 14**2).float()


def on_white(mask: torch.Tensor, color: torch.Tensor = COLOR) -> torch.Tensor:
    return 1 - mask[..., None] * (1 - color)


def blurred(pictures: torch.Tensor) -> torch.Tensor:
    maps = pictures.permute(0, 3, 1, 2)
    maps = torch.nn.functional.pad(maps, (2, 2, 2, 2), value=1.0)
    return torch.nn.functional.avg_pool2d(maps, 5, 1).permute(0, 2, 3, 1)


def test_blurred_outlines_become_steep_where_they_were() -> None:
    truth = disc()
    soft = blurred(on_white(truth)[None])
    cut = cut_from_white(soft)
    before = ((1 - soft).amax(dim=-1)[0] / 0.9 - truth).abs().sum()
    assert float((cut.masks[0] - truth).abs().sum()) < 0.55 * float(before)
    assert float(cut.masks[0].sum()) == pytest.approx(float(truth.sum()), rel=0.02)


def test_colors_are_freed_of_the_white_that_was_mixed_into_them() -> None:
    cut = cut_from_white(blurred(on_white(disc())[None]))
    solid = cut.masks[0] > 0.99
    assert float(solid.sum()) > 500
    torch.testing.assert_close(cut.rgb[0][solid], COLOR.expand(int(solid.sum()), 3))


def test_sharp_pictures_and_plain_white_stay_as_they_are() -> None:
    sharp = on_white(disc())[None]
    cut = cut_from_white(sharp)
    torch.testing.assert_close(cut.masks[0], disc())
    torch.testing.assert_close(cut.rgb, sharp)
    nothing = cut_from_white(torch.ones(2, 8, 8, 3))
    assert float(nothing.masks.max()) == 0.0 and float(nothing.rgb.min()) == 1.0


def test_faint_haze_is_background_also_far_from_the_object() -> None:
    haze = on_white(disc())[None] * 0.97
    assert float(cut_from_white(haze).masks[0][disc() == 0].max()) == 0.0


def test_the_input_is_not_changed_and_odd_settings_are_refused() -> None:
    views = blurred(on_white(disc())[None])
    copy = views.clone()
    cut_from_white(views)
    assert torch.equal(views, copy)
    with pytest.raises(ValueError, match="reach_px"):
        cut_from_white(views, reach_px=-1)
    with pytest.raises(ValueError, match="steepness"):
        cut_from_white(views, steepness=0.0)
