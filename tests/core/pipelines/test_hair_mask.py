"""Hair masks: what changed between levels, segments, and levels without a difference."""

from __future__ import annotations

import logging

import pytest
import torch
from lift3d.core.pipelines.hair_mask import HairMaskParams, make_hair_mask

SIZE = 64


def pictures(top: int = 10, bottom: int = 20, left: int = 16, right: int = 40):
    without = torch.full((SIZE, SIZE, 3), 0.8)
    whole = without.clone()
    whole[top:bottom, left:right] = torch.tensor([0.5, 0.2, 0.3])
    hair = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    hair[top:bottom, left:right] = True
    return whole, without, hair


def test_the_mask_is_what_changed():
    whole, without, hair = pictures()
    assert torch.equal(make_hair_mask(whole, without), hair)


def test_specks_and_whole_pictures_are_not_hair():
    whole, without, _ = pictures(10, 11, 16, 18)
    assert not bool(make_hair_mask(whole, without).any())
    assert not bool(make_hair_mask(torch.zeros_like(without), without).any())


def test_gaps_of_a_few_pixels_are_closed():
    whole, without, hair = pictures()
    whole[14, 16:40] = without[14, 16:40]
    assert torch.equal(make_hair_mask(whole, without), hair)


def test_segments_that_mostly_changed_are_joined():
    whole, without, hair = pictures()
    strand, face = torch.zeros(2, SIZE, SIZE)
    strand[10:20, 15:41] = 1  # one pixel more on two sides
    face[15:45, 16:40] = 1  # mostly unchanged
    found = make_hair_mask(whole, without, segments=torch.stack([strand, face]))
    assert torch.equal(found, strand > 0.5)
    assert torch.equal(make_hair_mask(whole, without, segments=face[None]), hair)
    strict = HairMaskParams(outside_ratio=0.01)
    assert torch.equal(make_hair_mask(whole, without, segments=strand[None], params=strict), hair)


def test_equal_levels_give_an_empty_mask_and_a_warning(caplog):
    _, without, _ = pictures()
    with caplog.at_level(logging.WARNING):
        assert not bool(make_hair_mask(without, without).any())
    assert "do not differ" in caplog.text


def test_pictures_of_different_sizes_are_refused(unchecked_shapes):
    whole, without, _ = pictures()
    with pytest.raises(ValueError, match="without_hair must have shape"):
        make_hair_mask(whole, without[:10])
    with pytest.raises(ValueError, match="min_area must lie below"):
        HairMaskParams(min_area=0.5, max_area=0.1)
