from __future__ import annotations

import pytest
import torch
from lift3d.core.bundle_image import split_bundle
from lift3d.core.pipelines.bundle_masks import (
    composite_bundle,
    feather_mask,
    fit_bundle_mask,
    join_view_masks,
    latent_mask,
)


def one_pixel(row: int, column: int) -> torch.Tensor:
    mask = torch.zeros(32, 64)
    mask[row, column] = 1.0
    return mask


def test_view_masks_stand_in_both_rows_in_the_order_of_columns():
    masks = torch.arange(4.0)[:, None, None].expand(4, 8, 8) / 4
    joined = join_view_masks(masks)
    assert joined.shape == (16, 32)
    assert joined[0, ::8].tolist() == joined[15, ::8].tolist() == [0.0, 0.25, 0.5, 0.75]
    assert joined[3, 7] == 0.0 and joined[3, 8] == 0.25


def test_all_three_forms_of_a_mask_are_understood():
    whole = torch.zeros(1, 32, 64)
    whole[0, :16, 16:32] = whole[0, 16:, 16:32] = 1.0
    views = torch.zeros(4, 16, 16)
    views[1] = 1.0
    tiles = torch.zeros(8, 16, 16)
    tiles[1] = tiles[5] = 1.0
    fitted = [fit_bundle_mask(mask, 4, 16) for mask in (whole, views, tiles)]
    assert all(torch.equal(mask, whole[0]) for mask in fitted)


def test_a_mask_is_resized_tile_by_tile():
    views = torch.zeros(4, 64, 64)
    views[2] = 1.0
    fitted = fit_bundle_mask(views, 4, 16)
    assert fitted.shape == (32, 64)
    assert set(fitted[:, 32:48].unique().tolist()) == {1.0}
    assert not fitted[:, :32].any() and not fitted[:, 48:].any()


def test_the_feather_falls_to_exactly_zero_within_its_width():
    weights = feather_mask(one_pixel(8, 8), 4, 3)
    assert weights[8, 8:12].tolist() == pytest.approx([1.0, 0.84375, 0.5, 0.15625])
    assert not weights[8, 12:].any() and not weights[12:].any()
    assert torch.equal(feather_mask(one_pixel(8, 8), 4, 0), one_pixel(8, 8))


def test_the_feather_stays_in_its_tile():
    weights = feather_mask(one_pixel(15, 15), 4, 4)
    assert float(weights[15, 14]) > 0 and float(weights[14, 15]) > 0
    assert not weights[16:].any() and not weights[:, 16:].any()


def test_latents_may_change_wherever_one_of_their_pixels_does():
    weights = torch.zeros(16, 32)
    weights[7, 8] = 1e-3
    assert latent_mask(weights, 8)[0, 0].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]


def test_the_composite_is_linear_between_its_exact_ends():
    generator = torch.Generator().manual_seed(0)
    below, above = torch.rand(2, 32, 64, 3, generator=generator).unbind(0)
    weights = torch.linspace(-0.2, 1.2, 64).clamp(0, 1).expand(32, 64)
    mixed = composite_bundle(split_bundle(below), split_bundle(above), weights).image()
    assert torch.equal(mixed[weights == 0], below[weights == 0])
    assert torch.equal(mixed[weights == 1], above[weights == 1])
    expected = torch.lerp(below.double(), above.double(), weights.double()[..., None])
    torch.testing.assert_close(mixed.double(), expected, atol=1e-6, rtol=0)


def test_a_mask_that_selects_nothing_is_refused():
    with pytest.raises(ValueError, match="The mask selects nothing"):
        fit_bundle_mask(torch.full((1, 32, 64), 0.4), 4, 16)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 16, 16), (4, 16, 32)])
def test_masks_of_other_forms_are_refused(shape):
    with pytest.raises(ValueError, match=r"one picture of the whole bundle \(2 : 4\), or 4 or 8"):
        fit_bundle_mask(torch.ones(shape), 4, 16)


def test_a_negative_feather_is_refused():
    with pytest.raises(ValueError, match="feather_px must not be negative"):
        feather_mask(one_pixel(1, 1), 4, -1)
