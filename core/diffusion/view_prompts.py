"""Contains view-dependent prompts: one text said for the front, the side, the back and from above.

The embeddings of the views are mixed by the camera's azimuth; Perp-Neg keeps the front away from
where it must not be seen.

Reference: GE3D's released code, the same as LucidDreamer (Liang et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .guidance import GuidedPrompt, PerpNegLaw, view_negative_weights, view_prompt_mix
from .model import Conditioning, GuidanceKind, mix_conditionings

VIEWS = ("front", "side", "back", "overhead")
VIEW_TEMPLATE = "{text}, {view} view"
OVERHEAD_FROM_DEG = 60.0
OVERHEAD_FULL_DEG = 75.0
UNDISTILLED = 1.0

ViewName = Literal["front", "side", "back"]


def name_view(azimuth_deg: float) -> ViewName:
    """The view whose share is largest at an azimuth; 0 sees the front."""
    away = abs((azimuth_deg + 180) % 360 - 180)
    if away <= 45:
        return "front"
    return "side" if away <= 135 else "back"


def write_view_prompt(text: str, view: str, template: str = VIEW_TEMPLATE) -> str:
    """The text as it is said for one view.

    Args:
        text: what is to be seen.
        view: one of `VIEWS`.
        template: holds ``{text}`` and usually ``{view}``.

    Raises:
        ValueError: an empty text, or a template that leaves the text out.
    """
    if not text.strip():
        raise ValueError("The prompt is empty: describe the object that you want.")
    if "{text}" not in template:
        raise ValueError(f"The view template must contain {{text}}, got '{template}'.")
    return template.replace("{text}", text.strip()).replace("{view}", view)


def view_shares(
    azimuths_deg: Float[Tensor, " view"], elevations_deg: Float[Tensor, " view"]
) -> Float[Tensor, "view prompt=4"]:
    """Shares of `VIEWS` in the positive embedding; the overhead one fades in from 60 to 75 deg."""
    span = OVERHEAD_FULL_DEG - OVERHEAD_FROM_DEG
    above = ((elevations_deg - OVERHEAD_FROM_DEG) / span).clamp(0, 1)[:, None]
    return torch.cat([(1 - above) * view_prompt_mix(azimuths_deg), above], dim=1)


@dataclass(frozen=True)
class ViewPrompts:
    """Embedded texts of one object.

    Attributes:
        views: of `VIEWS`, in their order, one entry each.
        unconditional: what guidance contrasts them to; None where the model has its guidance built
            in.
        inversion: text of the way up.
        scale: guidance scale.
        law: of the Perp-Neg weights; None switches Perp-Neg off.
    """

    views: tuple[Conditioning, ...]
    unconditional: Conditioning | None
    inversion: Conditioning
    scale: float
    law: PerpNegLaw | None = None

    def guided(
        self, azimuths_deg: Float[Tensor, " view"], elevations_deg: Float[Tensor, " view"]
    ) -> GuidedPrompt:
        """Prompt for a batch of cameras."""
        shares = view_shares(azimuths_deg, elevations_deg)
        positive = mix_conditionings(self.views, shares)
        if self.law is None or self.unconditional is None:
            return GuidedPrompt(positive, self.unconditional, self.scale)
        weights = view_negative_weights(azimuths_deg, self.law)
        weights = weights * (shares[:, 3:] < 1)  # from straight above there is no wrong side
        used = [i for i in range(weights.shape[1]) if bool(weights[:, i].any())]
        if not used:
            return GuidedPrompt(positive, self.unconditional, self.scale)
        negatives = tuple(self.views[i] for i in used)
        return GuidedPrompt(positive, self.unconditional, self.scale, negatives, weights[:, used])


def embed_view_prompts(
    encode_text: Callable[[Sequence[str]], Conditioning],
    text: str,
    *,
    unconditional_text: str = "",
    inversion_text: str = "",
    template: str = VIEW_TEMPLATE,
    scale: float = 7.5,
    law: PerpNegLaw | None = None,
    guidance_kind: GuidanceKind = "classifier_free",
) -> ViewPrompts:
    """Embed everything that a distillation asks for.

    Args:
        encode_text: of the model.
        text: what is to be seen.
        unconditional_text: what guidance contrasts the text to: empty, or a negative prompt.
        inversion_text: text of the way up.
        template: see `write_view_prompt`.
        scale: guidance scale, positive.
        law: of Perp-Neg; needs a classifier-free model.
        guidance_kind: of the model. A distilled one takes the scale as an input on the way down
            and 1 on the way up, and is asked once.

    Raises:
        ValueError: an empty text or a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(
            f"The guidance scale must be positive, got {scale}: at 0 the prompt has no effect."
        )
    texts = [write_view_prompt(text, view, template) for view in VIEWS]
    views = tuple(encode_text([said]) for said in texts)
    inversion = encode_text([inversion_text])
    if guidance_kind == "distilled":
        views = tuple(replace(view, guidance=scale) for view in views)
        return ViewPrompts(views, None, replace(inversion, guidance=UNDISTILLED), scale)
    return ViewPrompts(views, encode_text([unconditional_text]), inversion, scale, law)
