"""Contains captions by an image-to-text model of transformers, from a folder on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .asset_captions import Captioner

CHAT_PROMPT = "Describe the object in one sentence: its shape, parts, colours and materials."


@dataclass(frozen=True)
class CaptionerParams:
    """Which model describes pictures, and how it is asked.

    Attributes:
        folder: of the model, as transformers saves it (BLIP, GIT, Florence-2, LLaVA, Qwen-VL ...).
            Models that bring their own code are not run.
        prompt: what it is asked; ``<MORE_DETAILED_CAPTION>`` for Florence-2, a sentence for chat
            models, empty for BLIP and GIT.
        max_tokens: longest answer.
        beams: beams of the search.
        device: where it runs, such as "cpu" or "cuda"; empty for a graphics card if there is one.
    """

    folder: Path
    prompt: str = ""
    max_tokens: int = 120
    beams: int = 3
    device: str = ""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.beams < 1:
            raise ValueError(
                f"max_tokens and beams must be positive, got {self.max_tokens}, {self.beams}."
            )


def load_captioner(params: CaptionerParams) -> Captioner:
    """Load an image-to-text model; it describes one picture per call, always the same way.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder holds no image-to-text model that transformers knows.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if not params.folder.is_dir():
        raise FileNotFoundError(
            f"{params.folder} is no folder; download an image-to-text model such as BLIP there."
        )
    try:
        processor = AutoProcessor.from_pretrained(params.folder, local_files_only=True)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            params.folder, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{params.folder} holds no image-to-text model with a processor that transformers can "
            f"load ({' '.join(str(error).split())[:300]})."
        ) from error
    device = params.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return _Captioner(model.to(device).eval(), processor, params)


class _Captioner:
    """A loaded model with its processor."""

    def __init__(self, model: Any, processor: Any, params: CaptionerParams) -> None:
        self.model = model
        self.processor = processor
        self.params = params

    @torch.no_grad()
    def __call__(self, picture: Float[Tensor, "height width 3"]) -> str:
        inputs = self._inputs(picture).to(self.model.device)
        answer = self.model.generate(
            **inputs,
            max_new_tokens=self.params.max_tokens,
            num_beams=self.params.beams,
            do_sample=False,
        )
        if not self.model.config.is_encoder_decoder:  # others repeat the question first
            asked = inputs["input_ids"] if "input_ids" in inputs else answer[:, :0]
            if torch.equal(answer[:, : asked.shape[1]], asked):
                answer = answer[:, asked.shape[1] :]
        text: str = self.processor.batch_decode(answer, skip_special_tokens=True)[0]
        return " ".join(text.split())

    def _inputs(self, picture: Float[Tensor, "height width 3"]) -> Any:
        from PIL import Image

        pixels = picture.clamp(0, 1).mul(255).round().byte().cpu().numpy()
        image = Image.fromarray(pixels)
        prompt = self.params.prompt
        if getattr(self.processor, "chat_template", None):
            content = [
                {"type": "image"},
                {"type": "text", "text": prompt or "Describe the object."},
            ]
            prompt = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
        if prompt:
            return self.processor(images=image, text=prompt, return_tensors="pt")
        return self.processor(images=image, return_tensors="pt")
