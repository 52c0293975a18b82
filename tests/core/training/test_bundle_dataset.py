"""Training bundles follow from their index and never show what is held out."""

from __future__ import annotations

import numpy as np
from lift3d.core.training.bundle_dataset import (
    BundleDatasetParams,
    draw_bundle_dataset,
    draw_training_bundle,
    draw_training_object,
    held_out_pairs,
)
from lift3d.core.training.picture_shards import PictureShards

CATEGORIES = ("mug", "sword", "car")


def test_two_hues_of_every_category_are_held_out() -> None:
    pairs = held_out_pairs(CATEGORIES)
    assert len(set(pairs)) == 2 * len(CATEGORIES)
    assert {category for category, _ in pairs} == set(CATEGORIES)


def test_held_out_pairs_are_never_drawn_unless_asked_for() -> None:
    banned = set(held_out_pairs(CATEGORIES))
    strict = BundleDatasetParams(1, CATEGORIES)
    free = BundleDatasetParams(1, CATEGORIES, hold_out=False)
    made = [draw_training_object(i, strict) for i in range(150)]
    assert not {(item.category, item.hue) for item in made} & banned
    others = [draw_training_object(i, free) for i in range(150)]
    assert {(item.category, item.hue) for item in others} & banned


def test_a_second_hue_is_named_as_often_as_asked_and_differs_from_the_first() -> None:
    params = BundleDatasetParams(1, CATEGORIES, second_hue_share=0.5)
    made = [draw_training_object(i, params) for i in range(200)]
    named = [item for item in made if item.second_hue]
    assert 70 < len(named) < 130
    assert all(item.second_hue != item.hue for item in named)


def test_a_bundle_follows_from_its_index_and_says_what_it_is() -> None:
    params = BundleDatasetParams(2, CATEGORIES)
    first, record = draw_training_bundle(1, params)
    again, _ = draw_training_bundle(1, params)
    assert first.shape == (128, 256, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    made = draw_training_object(1, params)
    assert record.captions == made.captions and record.tags["category"] == made.category
    assert (first[0] == 255).all()  # white above the object


def test_free_views_see_the_object_from_elsewhere() -> None:
    published = BundleDatasetParams(1, ("car",))
    free = BundleDatasetParams(1, ("car",), free_views=True)
    assert (draw_training_bundle(0, published)[0] != draw_training_bundle(0, free)[0]).any()


def test_a_dataset_lands_in_its_folder(tmp_path) -> None:
    draw_bundle_dataset(tmp_path, BundleDatasetParams(3, CATEGORIES))
    shards = PictureShards(tmp_path)
    assert len(shards) == 3 and shards[2].shape == (128, 256, 3)
