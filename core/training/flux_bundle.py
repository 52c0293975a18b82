"""Contains the training of the embedded bundle model: a small Flux transformer.

Latents come from the embedded autoencoder: [bundle, 16, 2 tiles / 8, 4 tiles / 8], packed by 2x2 to
tokens as Flux does. Hues are the last thing such a model learns, so errors along the directions of
the latents that hold colour count more. A quadratic loss has the same best prediction in any
metric, so this changes what is learnt first, not what is learnt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from ..diffusion.flux_network import PATCH, image_ids, pack_latents, unpack_latents
from .flow_matching import LevelParams, draw_levels, noised_and_velocity
from .loop import LoopParams, Losses
from .picture_shards import PictureRecord

TEXT_HEAD_WIDTH = 32
TEXT_SEED = 0
NEIGHBOUR_BIAS = 12.0
"""Attention logit of the place that a head looks at; those of all other places are 0."""


@dataclass(frozen=True)
class FluxBundleParams:
    """Size and training of the transformer and its text encoder.

    Attributes:
        heads: attention heads of 32 channels.
        double_blocks: blocks with separate weights for text and picture.
        single_blocks: blocks with shared weights.
        text_width: channels of the text encoder.
        text_tokens: length of every text.
        batch: bundles in a step.
        empty_share: share of texts that are left out, for guidance.
        canonical_share: share of texts in the canonical wording.
        color_weight: of errors along the colour directions.
        levels: noise levels.
        start: folder of a transformer of this size to go on from; fresh weights when None.
        loop: optimisation.
    """

    heads: int = 6
    double_blocks: int = 2
    single_blocks: int = 5
    text_width: int = 192
    text_tokens: int = 16
    batch: int = 16
    empty_share: float = 0.1
    canonical_share: float = 0.5
    color_weight: float = 3.0
    levels: LevelParams = field(default_factory=LevelParams)
    start: Path | None = None
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(
            steps=16_000,
            learning_rate=8e-4,
            warmup_steps=150,
            decay_start=0.4,
            average=0.999,
            bfloat16=True,
        )
    )


def make_transformer(params: FluxBundleParams, channels: int = 16) -> Any:
    """A small diffusers ``FluxTransformer2DModel``."""
    from diffusers import FluxTransformer2DModel

    if params.start is not None:
        transformer = FluxTransformer2DModel.from_pretrained(params.start).float()
        transformer.register_to_config(_name_or_path="")  # diffusers notes where it came from
        return transformer
    return FluxTransformer2DModel(
        in_channels=channels * PATCH**2,
        num_layers=params.double_blocks,
        num_single_layers=params.single_blocks,
        attention_head_dim=32,
        num_attention_heads=params.heads,
        joint_attention_dim=params.text_width,
        pooled_projection_dim=params.text_width,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )


@torch.no_grad()
def make_text_encoder(params: FluxBundleParams, vocabulary: int) -> Any:
    """A small transformers ``T5EncoderModel`` that tells each word its neighbours, and stays so.

    T5 knows the order of words by its relative biases alone. They start near 0, and its unscaled
    attention saturates on contents long before they grow: trained together with the transformer,
    the encoder stayed a bag of words for 8000 steps, in which a green chair with red legs is a red
    chair with green legs. So it is not trained. Words are random directions, nearly orthogonal;
    each head looks at one place (the next word, the one before, two ahead, ...), and what it finds
    is added by a random projection. The transformer learns to read the sum.
    """
    from transformers import T5Config, T5EncoderModel

    heads = params.text_width // TEXT_HEAD_WIDTH
    config = T5Config(
        vocab_size=vocabulary,
        d_model=params.text_width,
        d_kv=TEXT_HEAD_WIDTH,
        d_ff=params.text_width,
        num_layers=1,
        num_heads=heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(TEXT_SEED)  # not saved in checkpoints: made anew, always the same
        encoder = T5EncoderModel(config).eval().requires_grad_(False)
    block = encoder.encoder.block[0]
    attention = block.layer[0].SelfAttention
    attention.q.weight.zero_()
    block.layer[1].DenseReluDense.wo.weight.zero_()
    table = attention.relative_attention_bias
    half = table.num_embeddings // 2  # buckets of words behind come first, then those ahead
    table.weight.zero_()
    for head in range(heads):
        distance = head // 2 + 1
        table.weight[distance + (half if head % 2 == 0 else 0), head] = NEIGHBOUR_BIAS
    return encoder


class FluxBundleTraining(nn.Module):
    """Transformer and text encoder, trained together.

    Args:
        latents: of all bundles, whitened; may be half precision.
        records: their captions.
        tokenizer: see `words.make_word_tokenizer`.
        color_directions: latents to colours, see `fit_color_directions`.
        params: settings.
    """

    def __init__(
        self,
        latents: Float[Tensor, "bundle channel height width"],
        records: list[PictureRecord],
        tokenizer: Any,
        color_directions: Float[Tensor, "3 channel"],
        params: FluxBundleParams,
    ) -> None:
        super().__init__()
        self.params = params
        self.latents = latents
        self.records: list[PictureRecord] = records
        self.transformer = make_transformer(params, int(latents.shape[1]))
        self.text_encoder = make_text_encoder(params, len(tokenizer))
        self.color_directions = color_directions
        self.captions = [
            tokenize(tokenizer, record.captions) for record in records
        ]  # [caption, token] each
        self.empty = tokenize(tokenizer, [""])[0]
        self.ids = image_ids(*latents.shape[2:])

    def velocity(
        self,
        latents: Float[Tensor, "batch channel height width"],
        levels: Float[Tensor, " batch"],
        tokens: Int64[Tensor, "batch token"],
    ) -> Float[Tensor, "batch channel height width"]:
        """Predicted noise minus clean latents."""
        text = self.text_encoder(input_ids=tokens).last_hidden_state
        said = self.transformer(
            hidden_states=pack_latents(latents),
            encoder_hidden_states=text,
            pooled_projections=text.mean(dim=1),
            timestep=levels,
            img_ids=self.ids,
            txt_ids=torch.zeros(tokens.shape[1], 3),
            return_dict=False,
        )[0]
        return unpack_latents(said, *latents.shape[2:])

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """Flow-matching loss of one batch."""
        params = self.params
        chosen = torch.randint(len(self.latents), (params.batch,), generator=generator)
        latents = self.latents[chosen].float()
        tokens = torch.stack([self._caption(int(index), generator) for index in chosen])
        levels = draw_levels(params.batch, generator, params.levels)
        noise = torch.randn(latents.shape, generator=generator)
        noised, target = noised_and_velocity(latents, noise, levels)
        error = self.velocity(noised, levels, tokens).float() - target
        plain = error.square().mean()
        color = torch.einsum("kc,bchw->bkhw", self.color_directions, error).square().mean()
        return {"total": plain + params.color_weight * color, "plain": plain, "color": color}

    def _caption(self, index: int, generator: torch.Generator) -> Tensor:
        draw = float(torch.rand((), generator=generator))
        if draw < self.params.empty_share:
            return self.empty
        wordings = self.captions[index]
        if torch.rand((), generator=generator) < self.params.canonical_share:
            return wordings[0]
        return wordings[int(torch.randint(len(wordings), (), generator=generator))]


def tokenize(tokenizer: Any, texts: list[str] | tuple[str, ...]) -> Int64[Tensor, "text token"]:
    """Token numbers of texts, all padded to the tokenizer's length."""
    length = tokenizer.model_max_length
    return tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


@torch.no_grad()
def encode_pictures(
    vae: Any, pictures: Sequence[np.ndarray], *, batch: int = 16, bfloat16: bool = False
) -> Float[Tensor, "picture channel height width"]:
    """Latent means of all pictures, half precision.

    Args:
        vae: a diffusers ``AutoencoderKL``.
        pictures: bytes [height, width, 3] of one size.
        batch: pictures at a time.
        bfloat16: compute in mixed precision, about twice as fast where the CPU knows it.
    """
    encoded = []
    for first in range(0, len(pictures), batch):
        chosen = [pictures[i] for i in range(first, min(first + batch, len(pictures)))]
        values = torch.stack([torch.from_numpy(picture) for picture in chosen])
        values = values.permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16, bfloat16):
            encoded.append(vae.encode(values).latent_dist.mean.half())
    return torch.cat(encoded)


def fit_color_directions(
    latents: Float[Tensor, "picture channel height width"],
    pictures: Sequence[np.ndarray],
    *,
    samples: int = 300,
) -> tuple[Float[Tensor, "3 channel"], float]:
    """Linear read-out of 8x8 mean colours (-1..1) from latents, and its share of variance (R^2).

    A share below 0.99 says that the autoencoder has not learnt hues; train it longer.
    """
    step = max(len(pictures) // samples, 1)
    rows = torch.arange(0, len(pictures), step)
    values = torch.stack([torch.from_numpy(pictures[int(i)]) for i in rows])
    colors = functional.avg_pool2d(values.permute(0, 3, 1, 2).float() / 127.5 - 1, 8)
    inputs = latents[rows].float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    targets = colors.permute(0, 2, 3, 1).reshape(-1, 3)
    solution = torch.linalg.lstsq(inputs, targets).solution
    left = (targets - inputs @ solution).square().sum(dim=0)
    whole = (targets - targets.mean(dim=0)).square().sum(dim=0)
    return solution[:-1].T.contiguous(), float((1 - left / whole).min())


def save_model(training: FluxBundleTraining, tokenizer: Any, folder: Path) -> None:
    """Write transformer, text encoder and tokenizer as a diffusers pipeline has them, in half."""
    parts = {"transformer": training.transformer, "text_encoder_2": training.text_encoder}
    for name, module in parts.items():
        copied = copy.deepcopy(module)  # the run goes on in single precision
        copied.half().save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / "tokenizer_2")
