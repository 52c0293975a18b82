"""Contains the protocol that every diffusion model follows, and the conditioning it is given.

Latents are in sigma form (see `schedules`) and normalised for the network (`LatentFormat`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .schedules import Family


@dataclass(frozen=True)
class LatentFormat:
    """How the network's latents relate to those of the image encoder.

    Attributes:
        channels: of one latent pixel.
        downscale: image pixels per latent pixel along each side.
        scale: network latents = (encoder latents - shift) * scale.
        shift: see ``scale``.
    """

    channels: int
    downscale: int = 8
    scale: float = 1.0
    shift: float = 0.0

    def to_network(self, encoded: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Encoder latents to network latents."""
        return (encoded - self.shift) * self.scale

    def from_network(self, latents: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Network latents to encoder latents."""
        return latents / self.scale + self.shift


STABLE_DIFFUSION_LATENTS = LatentFormat(channels=4, scale=0.18215)
SDXL_LATENTS = LatentFormat(channels=4, scale=0.13025)
SD3_LATENTS = LatentFormat(channels=16, scale=1.5305, shift=0.0609)
FLUX_LATENTS = LatentFormat(channels=16, scale=0.3611, shift=0.1159)


GuidanceKind = Literal["distilled", "classifier_free"]


@dataclass(frozen=True)
class ModelDefaults:
    """What a model was made for; nodes use it where the user leaves a setting at 0.

    Attributes:
        tile_px: side of a tile of the bundle image it was trained on.
        guidance: guidance scale.
        guidance_kind: "distilled" models take the scale as an input (`Conditioning.guidance`) and
            are asked once; "classifier_free" ones are asked for the prompt and for the empty text.
        steps: sampling steps.
    """

    tile_px: int = 512
    guidance: float = 3.5
    guidance_kind: GuidanceKind = "classifier_free"
    steps: int = 20


@dataclass(frozen=True)
class Control:
    """A ControlNet and its picture, active during a part of the run.

    Attributes:
        network: handle that the model understands (made by its own loader). If it has a method
            ``require_mode(mode)``, that is asked at once whether the network has the mode.
        image: condition picture, 0..1.
        scale: strength of the control.
        start: share of the run before which it is off, 0..1.
        end: share of the run after which it is off, 0..1.
        mode: index of a union network's mode (tile is 1), None for single-purpose networks.
    """

    network: Any
    image: Float[Tensor, "batch height width 3"]
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ValueError(
                f"Control needs 0 <= start <= end <= 1, got start={self.start}, end={self.end}."
            )
        require_mode = getattr(self.network, "require_mode", None)
        if require_mode is not None:
            require_mode(self.mode)

    def is_active(self, evaluation: int, total: int) -> bool:
        """Whether the control acts at this evaluation (from 0) of ``total``.

        Active when i / T >= start and (i + 1) / T <= end, as Kiss3DGen's pipeline gates.
        """
        return evaluation / total >= self.start and (evaluation + 1) / total <= self.end


@dataclass(frozen=True)
class Conditioning:
    """What a model is told besides the noisy latents; entries along the batch go with them.

    Attributes:
        tokens: text (and image) embedding.
        pooled: one vector per entry, None where the model has none.
        guidance: distilled guidance scale given to the network as an input, or None.
        controls: ControlNets.
        extras: whatever one implementation needs; equal keys must agree when joined. Tensors
            are joined along the batch.
        repeatable_tokens: whether repeating all tokens changes nothing, as in pure
            cross-attention; texts of different length can then share a batch.
    """

    tokens: Float[Tensor, "batch token channel"]
    pooled: Float[Tensor, "batch pooled"] | None = None
    guidance: float | None = None
    controls: tuple[Control, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    repeatable_tokens: bool = False

    @property
    def batch(self) -> int:
        """Number of entries."""
        return int(self.tokens.shape[0])

    def active_at(self, evaluation: int, total: int) -> Conditioning:
        """Copy with those controls only that act at this evaluation."""
        if not self.controls:
            return self
        active = tuple(c for c in self.controls if c.is_active(evaluation, total))
        return replace(self, controls=active)

    def select(self, rows: Int64[Tensor, " row"]) -> Conditioning:
        """Copy with the entries at ``rows``, in that order."""
        extras = {
            key: value[rows] if _is_batched(value, self.batch) else value
            for key, value in self.extras.items()
        }
        pooled = None if self.pooled is None else self.pooled[rows]
        return replace(self, tokens=self.tokens[rows], pooled=pooled, extras=extras)

    def expanded(self, batch: int) -> Conditioning:
        """Copy for ``batch`` entries: one entry is repeated.

        Raises:
            ValueError: neither one entry nor ``batch`` of them.
        """
        if self.batch == batch:
            return self
        if self.batch != 1:
            raise ValueError(f"Cannot use {self.batch} conditionings for a batch of {batch}.")
        repeated = {
            key: value.expand(batch, *value.shape[1:]) if _is_batched(value, 1) else value
            for key, value in self.extras.items()
        }
        return replace(
            self,
            tokens=self.tokens.expand(batch, -1, -1),
            pooled=None if self.pooled is None else self.pooled.expand(batch, -1),
            extras=repeated,
        )


def _is_batched(value: Any, batch: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == batch


def join_conditionings(parts: Sequence[Conditioning]) -> Conditioning:
    """One conditioning for a batch that holds the batches of all parts, in order.

    Tokens of different number are repeated to a common one where that changes nothing.

    Raises:
        ValueError: nothing to join, or parts that differ in tokens, pooling or guidance.
    """
    if not parts:
        raise ValueError("join_conditionings needs at least one part, got none.")
    first = parts[0]
    lengths = {part.tokens.shape[1] for part in parts}
    if len(lengths) > 1 and not all(part.repeatable_tokens for part in parts):
        raise ValueError(
            f"Conditionings have {sorted(lengths)} tokens; encode all texts with one length, or "
            "shorten the longest."
        )
    length = math.lcm(*lengths)
    tokens = [part.tokens.repeat(1, length // part.tokens.shape[1], 1) for part in parts]
    pooled: Tensor | None = None
    vectors = [part.pooled for part in parts if part.pooled is not None]
    if vectors:
        if len(vectors) != len(parts):
            raise ValueError("Only some of the conditionings have a pooled vector.")
        pooled = torch.cat(vectors)
    if len({part.guidance for part in parts}) > 1:
        raise ValueError("Conditionings with different guidance scales cannot share a batch.")
    extras = {
        key: torch.cat([part.extras[key] for part in parts])
        if _is_batched(value, first.batch)
        else value
        for key, value in first.extras.items()
    }
    return replace(first, tokens=torch.cat(tokens), pooled=pooled, extras=extras)


def mix_conditionings(
    parts: Sequence[Conditioning], weights: Float[Tensor, "batch part"]
) -> Conditioning:
    """Weighted sums of single conditionings, one sum per row of ``weights``.

    Reference: GE3D mixes the embeddings of the front, side and back prompts by azimuth.
    """
    if len(parts) != weights.shape[1] or any(part.batch != 1 for part in parts):
        raise ValueError(
            f"Need one single conditioning per column of weights {list(weights.shape)}, got "
            f"{len(parts)} with batches {[part.batch for part in parts]}."
        )
    joined = join_conditionings(parts)
    shares = weights.to(joined.tokens)
    pooled = joined.pooled
    return replace(
        parts[0].expanded(len(shares)),
        tokens=torch.einsum("bp,ptc->btc", shares, joined.tokens),
        pooled=None if pooled is None else shares.to(pooled) @ pooled,
    )


Denoiser = Callable[[Tensor, Tensor, Any], Tensor]
"""(latents, sigma, conditioning) -> predicted clean latents x0, shaped like the latents.

Latents [batch, ...] are in sigma form, sigma [batch] is positive; the result has their type.
"""


@runtime_checkable
class DiffusionModel(Protocol):
    """A pretrained text-to-image model of either family, seen the same way by everything above."""

    @property
    def family(self) -> Family:
        """Which sigma form its latents have."""
        ...

    @property
    def latent_format(self) -> LatentFormat:
        """Size and normalisation of the latents."""
        ...

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest noise level it was trained for; the smallest is positive."""
        ...

    @property
    def device(self) -> torch.device:
        """Where latents and conditionings are expected."""
        ...

    @property
    def defaults(self) -> ModelDefaults:
        """Settings that it was made for."""
        ...

    def encode_text(
        self, prompts: Sequence[str], *, pooled_prompts: Sequence[str] | None = None
    ) -> Conditioning:
        """Embed prompts; ``pooled_prompts`` go to the pooled encoder (CLIP-L) instead.

        A model whose only text encoder gives both takes the pooled vector from ``prompts``.
        """
        ...

    def with_image_prompt(
        self,
        conditioning: Conditioning,
        image: Float[Tensor, "1 height width 3"],
        strength: float,
    ) -> Conditioning:
        """Conditioning with the tokens of a picture behind those of the text (Redux).

        Only the picture's tokens are multiplied by ``strength``.

        Raises:
            ValueError: the model has no encoder for image prompts.
        """
        ...

    def encode_image(
        self, images: Float[Tensor, "batch height width 3"]
    ) -> Float[Tensor, "batch channel latent_height latent_width"]:
        """Images 0..1 to network latents; differentiable with respect to the images."""
        ...

    def decode_latents(
        self, latents: Float[Tensor, "batch channel latent_height latent_width"]
    ) -> Float[Tensor, "batch height width 3"]:
        """Network latents to images 0..1."""
        ...

    def preview_latents(
        self, latents: Float[Tensor, "batch channel latent_height latent_width"]
    ) -> Float[Tensor, "height width 3"]:
        """Quick, rough picture of the first entry, for progress reports."""
        ...

    def denoise(
        self,
        latents: Float[Tensor, "batch channel latent_height latent_width"],
        sigma: Float[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel latent_height latent_width"]:
        """Predict clean latents; see `Denoiser`. Acts on the controls of the conditioning."""
        ...

    def with_lora(self, path: Path, strength: float = 1.0) -> DiffusionModel:
        """Model with a LoRA file attached; the original is unchanged."""
        ...

    def load_control(self, path: Path) -> Any:
        """Load a ControlNet; the result is `Control.network`."""
        ...
