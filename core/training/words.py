"""Contains the word tokenizer of the embedded models: a closed vocabulary, one token per word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PAD, UNKNOWN = "<pad>", "<unk>"
WORD_PATTERN = "[^a-z]+"


def make_word_tokenizer(
    words: Sequence[str], *, max_length: int, ignored: Sequence[str] = ()
) -> Any:
    """A transformers tokenizer that knows ``words`` and nothing else.

    Capitals, digits and punctuation do not matter. Unknown words become one token that says
    nothing; callers can find them by its id.

    Args:
        words: the vocabulary, lower case.
        max_length: tokens of every text; shorter ones are padded.
        ignored: phrases without meaning for the model, such as the prefix of bundle prompts.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bad = [word for word in words if not word.isalpha() or word != word.lower()]
    if bad:
        raise ValueError(f"Words must be lower-case letters only, got {bad[:5]}.")
    table = {word: index for index, word in enumerate([PAD, UNKNOWN, *sorted(set(words))])}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token=UNKNOWN))
    steps: list[Any] = [normalizers.Lowercase()]
    steps += [normalizers.Replace(phrase.lower(), " ") for phrase in ignored]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=max_length,
        padding_side="right",
    )
