from __future__ import annotations

import pytest
from lift3d.core.datasets.captions import canonical_caption, caption_words, write_captions
from lift3d.core.datasets.procedural_objects import (
    ACCENT_PARTS,
    CATEGORIES,
    HUES,
    VOCABULARY,
    make_random_object,
)


def test_canonical_captions_read_like_english():
    assert canonical_caption("mug", "red") == "a red mug"
    assert canonical_caption("airplane", "orange", shape="tall") == "a tall orange airplane"
    assert canonical_caption("mug", "orange") == "an orange mug"
    assert (
        canonical_caption("mug", "red", "handle", "blue", "tall")
        == "a tall red mug with blue handle"
    )


def test_wordings_are_distinct_and_all_name_what_matters():
    captions = write_captions("mug", "red", "handle", "blue", "wide")
    assert len(set(captions)) == len(captions) >= 5
    for caption in captions:
        assert {"mug", "red", "handle", "blue", "wide"} <= set(caption_words(caption))


def test_every_caption_uses_the_closed_vocabulary():
    for seed in range(60):
        made = make_random_object(seed)
        for caption in made.captions:
            words = caption_words(caption)
            assert set(words) <= set(VOCABULARY), caption
            assert made.hue in words
            assert made.category in words
            assert (made.second_hue is None) or {made.second_hue, made.accent_part} <= set(words)


def test_vocabulary_lists_categories_hues_and_parts_once():
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert {*CATEGORIES, *HUES, *ACCENT_PARTS.values()} <= set(VOCABULARY)
    assert not set(CATEGORIES) & set(HUES)


def test_a_second_hue_needs_a_part():
    with pytest.raises(ValueError, match="part and its hue together"):
        write_captions("mug", "red", None, "blue")
