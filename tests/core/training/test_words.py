"""The word tokenizer knows its words, ignores the prefix, and says what it does not know."""

from __future__ import annotations

import pytest
from lift3d.core.pipelines.bundle_prompt import BUNDLE_PREFIX
from lift3d.core.training.words import UNKNOWN, make_word_tokenizer

WORDS = ["red", "mug", "a", "with", "handle"]


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, padding="max_length", max_length=8, truncation=True).input_ids


def test_case_digits_and_punctuation_do_not_matter() -> None:
    tokenizer = make_word_tokenizer(WORDS, max_length=8)
    assert ids(tokenizer, "A red, MUG 2!") == ids(tokenizer, "a red mug")


def test_the_prefix_of_bundles_says_nothing() -> None:
    tokenizer = make_word_tokenizer(WORDS, max_length=8, ignored=[BUNDLE_PREFIX])
    assert ids(tokenizer, f"{BUNDLE_PREFIX} a red mug") == ids(tokenizer, "a red mug")


def test_unknown_words_become_one_token() -> None:
    tokenizer = make_word_tokenizer(WORDS, max_length=8)
    found = tokenizer.convert_ids_to_tokens(tokenizer("a green mug").input_ids)
    assert found == ["a", UNKNOWN, "mug"]


def test_it_survives_saving(tmp_path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = make_word_tokenizer(WORDS, max_length=8, ignored=[BUNDLE_PREFIX])
    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = f"{BUNDLE_PREFIX} a red mug with handle"
    assert ids(again, text) == ids(tokenizer, text) and again.model_max_length == 8


def test_words_that_could_never_be_found_are_refused() -> None:
    with pytest.raises(ValueError, match="lower-case letters"):
        make_word_tokenizer(["Red"], max_length=8)
