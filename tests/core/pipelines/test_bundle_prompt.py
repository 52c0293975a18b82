from __future__ import annotations

import pytest
import torch
from bundle_toy import ToyModel
from lift3d.core.pipelines.bundle_prompt import (
    BUNDLE_PREFIX,
    BundlePrompt,
    ImagePrompt,
    encode_empty_prompt,
    encode_prompt,
)


def test_the_pooled_encoder_gets_the_prefix_and_the_other_the_prefix_and_the_prompt():
    model = ToyModel()
    encode_prompt(model, BundlePrompt("a red mug"))
    assert model.texts == [
        (
            "A grid of 2x4 multi-view image, elevation 5. White background. a red mug",
            "A grid of 2x4 multi-view image, elevation 5. White background.",
        )
    ]


def test_without_a_prefix_both_encoders_get_the_words():
    prompt = BundlePrompt("a red mug", prefix="")
    assert (prompt.full_text, prompt.pooled_text) == ("a red mug", "a red mug")
    assert BundlePrompt("x").prefix == BUNDLE_PREFIX


def test_a_picture_stands_behind_the_words_and_only_its_tokens_are_scaled():
    model, picture = ToyModel(), torch.full((1, 4, 4, 3), 0.8)
    words = encode_prompt(model, BundlePrompt("a red mug"))
    both = encode_prompt(model, BundlePrompt("a red mug", image=ImagePrompt(picture, 0.5)))
    torch.testing.assert_close(both.tokens[:, :4], words.tokens)
    torch.testing.assert_close(both.tokens[:, 4:], torch.full((1, 9, 1), 0.4))


def test_the_empty_prompt_is_as_long_as_the_prompt_with_its_picture():
    model = ToyModel()
    prompt = BundlePrompt("a red mug", image=ImagePrompt(torch.ones(1, 4, 4, 3)))
    empty = encode_empty_prompt(model, prompt)
    assert empty.tokens.shape == encode_prompt(model, prompt).tokens.shape
    assert not empty.tokens.any()
    assert model.texts[0] == ("", "")


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_prompt_is_refused(text):
    with pytest.raises(ValueError, match="The prompt is empty: say in words"):
        BundlePrompt(text)


def test_bad_pictures_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match=r"shape \[1, any, any, 3\]"):
        ImagePrompt(torch.ones(2, 4, 4, 3))
    with pytest.raises(ValueError, match="within 0..10"):
        ImagePrompt(torch.ones(1, 4, 4, 3), -1.0)
