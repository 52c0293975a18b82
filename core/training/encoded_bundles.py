"""Contains a dataset of bundles as a diffusion model sees it: latents and embedded captions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion import text_encoding
from ..diffusion.diffusers_loading import find_model
from ..diffusion.model import Conditioning, DiffusionModel
from ..pipelines.bundle_prompt import BundlePrompt
from ..progress import ProgressCallback, ignore_progress
from .picture_shards import PictureShards
from .row_cache import cached_rows

LOGGER = logging.getLogger(__name__)

PICTURE_PARTS = ("vae",)
TEXT_PARTS = ("text_encoder", "tokenizer")
HASHED_PICTURES = 16
# Encoders keep hundreds of channels at full size: one published bundle at a time, eight small ones.
BATCH_PIXELS = 2**18

ChangePicture = Callable[[Float[Tensor, "height width 3"], int], Float[Tensor, "height width 3"]]
"""(picture 0..1, number of the row) -> picture of the same size."""


def keep_picture(
    picture: Float[Tensor, "height width 3"], row: int
) -> Float[Tensor, "height width 3"]:
    """The picture as it is."""
    return picture


@dataclass(frozen=True)
class EncodedBundles:
    """Latents and embedded captions, mapped from disk in half precision.

    Attributes:
        latents: network latents [bundle, channel, height, width].
        tokens: embedded texts [text, token, width]; text 0 is the empty one.
        pooled: their pooled vectors [text, width].
        wordings: texts of each bundle.
    """

    latents: np.ndarray
    tokens: np.ndarray
    pooled: np.ndarray
    wordings: tuple[tuple[int, ...], ...]

    def draw(
        self,
        count: int,
        generator: torch.Generator,
        device: torch.device,
        *,
        empty_share: float = 0.0,
    ) -> tuple[list[int], Float[Tensor, "bundle channel height width"], Conditioning]:
        """Random bundles, each with one of its wordings or, seldom, without words.

        Returns:
            Numbers of the bundles, their latents and their conditioning, in single precision.
        """
        bundles = torch.randint(len(self.latents), (count,), generator=generator).tolist()
        texts = [self._wording(bundle, generator, empty_share) for bundle in bundles]
        return bundles, self.take(bundles, device), self.conditioning(texts, device)

    def take(
        self, bundles: Sequence[int], device: torch.device
    ) -> Float[Tensor, "bundle channel height width"]:
        """Latents of some bundles."""
        return _rows(self.latents, bundles, device)

    def conditioning(self, texts: Sequence[int], device: torch.device) -> Conditioning:
        """Embedding of some texts."""
        return Conditioning(
            _rows(self.tokens, texts, device), pooled=_rows(self.pooled, texts, device)
        )

    def _wording(self, bundle: int, generator: torch.Generator, empty_share: float) -> int:
        draw, choice = torch.rand(2, generator=generator).tolist()
        if draw < empty_share:
            return 0
        wordings = self.wordings[bundle]
        return wordings[min(int(choice * len(wordings)), len(wordings) - 1)]


def _rows(array: np.ndarray, indices: Sequence[int], device: torch.device) -> Tensor:
    return torch.from_numpy(array[list(indices)]).float().to(device)


def encode_bundles(
    model: DiffusionModel,
    source: Path | str,
    pictures: PictureShards,
    folder: Path,
    *,
    prefix: str,
    max_wordings: int,
    on_progress: ProgressCallback = ignore_progress,
) -> EncodedBundles:
    """Encode a dataset once; what is in the folder already is used again.

    Args:
        model: encoder of pictures and texts.
        source: file, folder or name that it was loaded from.
        pictures: the dataset.
        folder: where the arrays are kept.
        prefix: fixed words before every caption; see `BundlePrompt`.
        max_wordings: wordings of a bundle that are used, from the first.
        on_progress: called after each batch.
    """
    captions = [record.captions[:max_wordings] for record in pictures.records]
    texts = list(dict.fromkeys(["", *(text for wordings in captions for text in wordings)]))
    numbers = {text: number for number, text in enumerate(texts)}
    latents = encode_pictures(model, source, pictures, folder, "bundles", on_progress=on_progress)

    @torch.no_grad()
    def embed(rows: range) -> dict[str, Tensor]:
        prompts = [BundlePrompt(texts[i], prefix) if texts[i] else None for i in rows]
        words = model.encode_text(
            [prompt.full_text if prompt else "" for prompt in prompts],
            pooled_prompts=[prompt.pooled_text if prompt else "" for prompt in prompts],
        )
        if words.pooled is None:
            raise ValueError("Only Flux models can be trained here: this one pools no text.")
        return {"tokens": words.tokens, "pooled": words.pooled}

    state = _fingerprint(parts_state(source, TEXT_PARTS), prefix, texts)
    with _summed_warnings(logging.getLogger(text_encoding.__name__)):
        rows = cached_rows(folder, "texts", state, len(texts), embed, on_progress=on_progress)
    wordings = tuple(tuple(numbers[text] for text in found) for found in captions)
    return EncodedBundles(latents, rows["tokens"], rows["pooled"], wordings)


@contextlib.contextmanager
def _summed_warnings(logger: logging.Logger) -> Iterator[None]:
    """Block in which warnings about single captions are held back; in the end they are counted."""
    held: list[str] = []

    def hold(record: logging.LogRecord) -> bool:
        held.append(record.getMessage())
        return False

    logger.addFilter(hold)
    try:
        yield
    finally:
        logger.removeFilter(hold)
        if held:
            LOGGER.warning(
                "%d warnings about captions, of %d kinds; the first: %s",
                len(held),
                len(set(held)),
                held[0],
            )


def encode_pictures(
    model: DiffusionModel,
    source: Path | str,
    pictures: PictureShards,
    folder: Path,
    name: str,
    *,
    change: ChangePicture = keep_picture,
    variants: int = 1,
    change_name: str = "",
    on_progress: ProgressCallback = ignore_progress,
) -> np.ndarray:
    """Network latents of all pictures of a dataset, or of changed versions of them.

    Args:
        model: encoder of pictures.
        source: file, folder or name that it was loaded from.
        pictures: the dataset.
        folder: where the array is kept.
        name: of the array.
        change: makes row number ``variants * picture + variant`` from the picture.
        variants: versions of each picture.
        change_name: stands for ``change`` and all that it depends on; another one begins anew.
        on_progress: called after each batch.

    Returns:
        [picture * variant, channel, height, width] in half precision.
    """

    @torch.no_grad()
    def encode(rows: range) -> dict[str, Tensor]:
        images = [change(_as_image(pictures[row // variants]), row) for row in rows]
        return {"latents": model.encode_image(torch.stack(images))}

    chosen = range(0, len(pictures), max(len(pictures) // HASHED_PICTURES, 1))
    content = hashlib.sha256(b"".join(pictures[index].tobytes() for index in chosen)).hexdigest()
    names = [record.name for record in pictures.records]
    state = _fingerprint(parts_state(source, PICTURE_PARTS), names, content, variants, change_name)
    pixels = pictures[0].shape[0] * pictures[0].shape[1]
    rows = cached_rows(
        folder,
        name,
        state,
        variants * len(pictures),
        encode,
        batch=max(1, BATCH_PIXELS // pixels),
        on_progress=on_progress,
    )
    return rows["latents"]


def _as_image(picture: np.ndarray) -> Float[Tensor, "height width 3"]:
    return torch.from_numpy(picture).float() / 255


def parts_state(source: Path | str, parts: Sequence[str]) -> list[tuple[str, int, int]]:
    """Name, size and time of the files of some parts of a model (all files of a single file)."""
    path = find_model(source)
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files if file.is_file()]
    return [
        (name, stat.st_size, stat.st_mtime_ns)
        for name, stat in stats
        if name == "." or name.startswith(tuple(parts))
    ]


def _fingerprint(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
