"""Contains the prompt of a bundle image: a fixed prefix, the user's words and perhaps a picture."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..diffusion.model import Conditioning, DiffusionModel

BUNDLE_PREFIX = "A grid of 2x4 multi-view image, elevation 5. White background."


@dataclass(frozen=True)
class ImagePrompt:
    """A picture that guides like words do (Redux).

    Attributes:
        image: the picture, 0..1.
        strength: factor on its tokens; the words' tokens keep theirs. 0 hides it, 1 is full.
    """

    image: Float[Tensor, "1 height width 3"]
    strength: float = 1.0

    def __post_init__(self) -> None:
        require_shape("image of the image prompt", self.image, 1, None, None, 3)
        require_finite("image of the image prompt", self.image)
        if not 0.0 <= self.strength <= 10.0:
            raise ValueError(
                f"strength of the image prompt must lie within 0..10, got {self.strength}."
            )


@dataclass(frozen=True)
class BundlePrompt:
    """What a bundle should show.

    Attributes:
        text: the user's words about the object.
        prefix: fixed words that ask for the layout of the bundle image.
        image: picture that guides beside the words.

    Reference: Kiss3DGen's released code: the pooled text encoder (CLIP-L) gets the prefix alone,
    the token encoder (T5) the prefix, a space and the user's words.
    """

    text: str
    prefix: str = BUNDLE_PREFIX
    image: ImagePrompt | None = None

    def __post_init__(self) -> None:
        problem = prompt_problem(self.text)
        if problem:
            raise ValueError(problem)

    @property
    def full_text(self) -> str:
        """Words for the token encoder."""
        return f"{self.prefix} {self.text}" if self.prefix else self.text

    @property
    def pooled_text(self) -> str:
        """Words for the pooled encoder."""
        return self.prefix or self.text


def prompt_problem(text: str) -> str:
    """What is wrong with the user's words, or nothing."""
    if text.strip():
        return ""
    return "The prompt is empty: say in words what the object is, for example 'a red mug'."


def encode_prompt(model: DiffusionModel, prompt: BundlePrompt) -> Conditioning:
    """Embedding of a prompt, with the tokens of its picture behind those of the words."""
    words = model.encode_text([prompt.full_text], pooled_prompts=[prompt.pooled_text])
    if prompt.image is None:
        return words
    return model.with_image_prompt(words, prompt.image.image, prompt.image.strength)


def encode_empty_prompt(model: DiffusionModel, prompt: BundlePrompt) -> Conditioning:
    """Embedding of the empty text, as long as that of ``prompt``: a picture's tokens are 0."""
    empty = model.encode_text([""], pooled_prompts=[""])
    if prompt.image is None:
        return empty
    return model.with_image_prompt(empty, prompt.image.image, 0.0)
