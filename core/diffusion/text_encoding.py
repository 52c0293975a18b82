"""Contains the text encoders of diffusers models: prompts to `Conditioning`.

Every text is padded to the length of its tokenizer, and padding is not masked: the published models
were trained so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .model import Conditioning
from .placement import Placement

LOGGER = logging.getLogger(__name__)
MAX_TOKENS = 512
"""Length of Flux's long texts; tokenizers that name a shorter one keep theirs."""

LISTED_WORDS = 12


@runtime_checkable
class TextEncoder(Protocol):
    """What turns prompts into the conditioning of one family."""

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The encoders by the names of their folders."""
        ...

    def encode(
        self, prompts: Sequence[str], pooled_prompts: Sequence[str] | None, placement: Placement
    ) -> Conditioning:
        """Embed prompts."""
        ...


@dataclass(frozen=True)
class FluxText:
    """T5 for the tokens and CLIP-L for the pooled vector.

    Without CLIP (the embedded models) the pooled vector is the mean over all tokens of T5, padding
    included.

    Attributes:
        t5: encoder of the tokens.
        t5_tokenizer: its tokenizer.
        clip: encoder of the pooled vector, or None.
        clip_tokenizer: its tokenizer, or None.
    """

    t5: nn.Module
    t5_tokenizer: Any
    clip: nn.Module | None = None
    clip_tokenizer: Any = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """CLIP is ``text_encoder``, T5 is ``text_encoder_2``."""
        clip = {} if self.clip is None else {"text_encoder": self.clip}
        return {**clip, "text_encoder_2": self.t5}

    def encode(
        self, prompts: Sequence[str], pooled_prompts: Sequence[str] | None, placement: Placement
    ) -> Conditioning:
        """T5 gets ``prompts``; CLIP gets ``pooled_prompts``, or ``prompts`` without them."""
        placement.prepare(self.t5)
        ids = tokenize(self.t5_tokenizer, prompts).to(placement.device)
        tokens = self.t5(ids)[0]
        if self.clip is None:
            return Conditioning(tokens, pooled=tokens.mean(dim=1))
        placement.prepare(self.clip)
        texts = prompts if pooled_prompts is None else pooled_prompts
        ids = tokenize(self.clip_tokenizer, texts).to(placement.device)
        return Conditioning(tokens, pooled=self.clip(ids).pooler_output)


@dataclass(frozen=True)
class StableDiffusionText:
    """One CLIP encoder, whose last layer gives the tokens (1.5, 2.1); there is no pooled vector."""

    clip: nn.Module
    tokenizer: Any

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The encoder is ``text_encoder``."""
        return {"text_encoder": self.clip}

    def encode(
        self, prompts: Sequence[str], pooled_prompts: Sequence[str] | None, placement: Placement
    ) -> Conditioning:
        """``pooled_prompts`` are not used."""
        placement.prepare(self.clip)
        ids = tokenize(self.tokenizer, prompts).to(placement.device)
        return Conditioning(self.clip(ids)[0])


@dataclass(frozen=True)
class SdxlText:
    """Two CLIP encoders: the last layers but one give the tokens, the second the pooled vector."""

    clips: tuple[nn.Module, nn.Module]
    tokenizers: tuple[Any, Any]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """CLIP-L is ``text_encoder``, CLIP-G is ``text_encoder_2``."""
        return {"text_encoder": self.clips[0], "text_encoder_2": self.clips[1]}

    def encode(
        self, prompts: Sequence[str], pooled_prompts: Sequence[str] | None, placement: Placement
    ) -> Conditioning:
        """Both encoders get ``prompts``; ``pooled_prompts`` are not used."""
        parts = []
        pooled = None
        for clip, tokenizer in zip(self.clips, self.tokenizers, strict=True):
            placement.prepare(clip)
            ids = tokenize(tokenizer, prompts).to(placement.device)
            output = clip(ids, output_hidden_states=True)
            parts.append(output.hidden_states[-2])
            pooled = output[0]
        return Conditioning(torch.cat(parts, dim=-1), pooled=pooled)


@dataclass(frozen=True)
class NoText:
    """Models without a text encoder: the empty prompt is the only one, and is one zero token.

    Attributes:
        width: of a token.
    """

    width: int

    @property
    def networks(self) -> dict[str, nn.Module]:
        """None."""
        return {}

    def encode(
        self, prompts: Sequence[str], pooled_prompts: Sequence[str] | None, placement: Placement
    ) -> Conditioning:
        """One zero token per empty prompt.

        Raises:
            ValueError: a prompt that is not empty.
        """
        written = [prompt for prompt in prompts if prompt.strip()]
        if written:
            raise ValueError(
                f"This model knows no text, but was given {written[0][:60]!r}; leave the prompt "
                "empty and give it a picture (image prompt) instead."
            )
        return Conditioning(torch.zeros(len(prompts), 1, self.width, device=placement.device))


def tokenize(tokenizer: Any, texts: Sequence[str]) -> Float[Tensor, "text token"] | Tensor:
    """Token numbers of texts, padded to the tokenizer's length; what is lost is logged.

    Words that the tokenizer does not know and words beyond its length are named in a warning.
    """
    length = min(int(tokenizer.model_max_length), MAX_TOKENS)
    encoded = tokenizer(
        list(texts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    _warn_of_lost_words(tokenizer, texts, length)
    return encoded.input_ids


def _warn_of_lost_words(tokenizer: Any, texts: Sequence[str], length: int) -> None:
    if not tokenizer.is_fast:  # slow tokenizers cannot say where a token came from
        return
    for text in texts:
        whole = tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
        unknown = _unknown_words(tokenizer, text, whole)
        if unknown:
            LOGGER.warning("The model does not know these words of the prompt: %s.", unknown)
        if len(whole.input_ids) > length:
            start = whole.offset_mapping[length - 1][0]
            LOGGER.warning(
                "The prompt is longer than the model's %d tokens; it does not see the end: %r.",
                length,
                text[start:][:200],
            )


def _unknown_words(tokenizer: Any, text: str, encoded: Any) -> str:
    # Some tokenizers (CLIP) use one mark for "unknown" and "end"; they know every word anyway.
    special = {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id}
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in special:
        return ""
    found = [
        text[start:end]
        for token, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True)
        if token == unknown
    ]
    words = list(dict.fromkeys(word for word in found if any(map(str.isalnum, word))))
    more = f" and {len(words) - LISTED_WORDS} more" if len(words) > LISTED_WORDS else ""
    return ", ".join(words[:LISTED_WORDS]) + more
