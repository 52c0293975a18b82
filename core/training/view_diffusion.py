"""Contains the training of the embedded view model: a small Stable Diffusion of single views.

It is what text to Gaussians asks: `UNet2DConditionModel` over the latents of the embedded
autoencoder, the noise schedule of Stable Diffusion, and a small CLIP text encoder trained with it.
Captions name the view: ``a red mug, side view``. As in the bundle model, errors along the
directions of the latents that hold colour count more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..datasets.procedural_objects import VOCABULARY
from ..diffusion.schedules import NUM_TRAIN_STEPS, make_alphas_cumprod
from ..diffusion.view_prompts import VIEWS, write_view_prompt
from .loop import LoopParams, Losses
from .picture_shards import PictureRecord
from .words import make_word_tokenizer

HEAD_WIDTH = 32


@dataclass(frozen=True)
class ViewDiffusionParams:
    """Size and training of the UNet and its text encoder.

    Attributes:
        widths: channels of the two levels (8x8 and 4x4 latents for pictures of 64 px).
        layers: residual blocks per level.
        text_width: channels of the text encoder.
        text_layers: its layers.
        text_tokens: length of every text.
        prediction: what the network says.
        batch: views in a step.
        empty_share: share of texts that are left out, for guidance.
        plain_share: share of texts that do not name the view.
        canonical_share: share of texts in the canonical wording.
        color_weight: of errors along the colour directions.
        near_share: share of timesteps drawn below ``near_limit``, where text to Gaussians asks
            the model; the rest comes from all of them.
        near_limit: timestep 0..1000.
        loop: optimisation.
    """

    widths: tuple[int, int] = (96, 160)
    layers: int = 1
    text_width: int = 128
    text_layers: int = 2
    text_tokens: int = 20
    prediction: Literal["v_prediction", "epsilon"] = "v_prediction"
    batch: int = 32
    empty_share: float = 0.1
    plain_share: float = 0.1
    canonical_share: float = 0.5
    color_weight: float = 3.0
    near_share: float = 0.5
    near_limit: int = 600
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(
            steps=8_000,
            learning_rate=1e-3,
            warmup_steps=150,
            decay_start=0.4,
            average=0.999,
        )
    )


def make_view_tokenizer(params: ViewDiffusionParams) -> Any:
    """Tokenizer that knows the words of procedural captions and of views."""
    return make_word_tokenizer([*VOCABULARY, *VIEWS, "view"], max_length=params.text_tokens)


def make_unet(params: ViewDiffusionParams, channels: int = 16, size: int = 8) -> Any:
    """A small diffusers ``UNet2DConditionModel``, fresh, with attention at the lower level.

    The text also reaches every block, pooled and added to the embedding of the time: attention at
    4x4 alone left the text nearly without effect for 2000 steps.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=params.widths,
        layers_per_block=params.layers,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=params.text_width,
        # diffusers' name for the number of heads of this architecture
        attention_head_dim=max(params.widths[1] // HEAD_WIDTH, 1),
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=max(params.text_width // HEAD_WIDTH, 1),
    )


def make_text_encoder(params: ViewDiffusionParams, tokenizer: Any) -> Any:
    """A small transformers ``CLIPTextModel`` with fresh weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=params.text_width,
        intermediate_size=4 * params.text_width,
        num_hidden_layers=params.text_layers,
        num_attention_heads=max(params.text_width // HEAD_WIDTH, 1),
        max_position_embeddings=params.text_tokens,
        projection_dim=params.text_width,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


class ViewDiffusionTraining(nn.Module):
    """UNet and text encoder, trained together.

    Args:
        latents: of all views, whitened; may be half precision.
        records: their captions, and the tag ``view``.
        tokenizer: see `make_view_tokenizer`.
        color_directions: latents to colours, see `flux_bundle.fit_color_directions`.
        params: settings.
        more: other latents and records, such as `bundle_tiles.read_tiles`.
        more_share: probability that a view of a step is one of those.
    """

    def __init__(
        self,
        latents: Float[Tensor, "picture channel height width"],
        records: list[PictureRecord],
        tokenizer: Any,
        color_directions: Float[Tensor, "3 channel"],
        params: ViewDiffusionParams,
        *,
        more: tuple[Float[Tensor, "other channel height width"], list[PictureRecord]] | None = None,
        more_share: float = 0.0,
    ) -> None:
        super().__init__()
        if len(latents) != len(records):
            raise ValueError(f"Got {len(latents)} latents for {len(records)} records.")
        self.params = params
        self.first_more, self.more_share = len(latents), 0.0
        if more is not None:
            if more[0].shape[1:] != latents.shape[1:] or len(more[0]) != len(more[1]):
                raise ValueError(
                    f"The other latents are {tuple(more[0].shape)} with {len(more[1])} records, "
                    f"expected one record each and the shape {tuple(latents.shape[1:])}."
                )
            latents, records = torch.cat([latents, more[0]]), [*records, *more[1]]
            self.more_share = more_share
        self.latents = latents
        self.unet = make_unet(params, int(latents.shape[1]), int(latents.shape[2]))
        self.text_encoder = make_text_encoder(params, tokenizer)
        self.color_directions = color_directions
        self.alphas = make_alphas_cumprod().float()
        # [caption, {without, with view}, token] of each picture
        self.captions = _tokens_of_records(tokenizer, records)
        self.empty = tokenize(tokenizer, [""])[0]

    def predict(
        self,
        latents: Float[Tensor, "batch channel height width"],
        timesteps: Int64[Tensor, " batch"],
        tokens: Int64[Tensor, "batch token"],
    ) -> Float[Tensor, "batch channel height width"]:
        """What the network says of noisy latents: velocity or noise."""
        text = self.text_encoder(input_ids=tokens).last_hidden_state
        return self.unet(latents, timesteps, text, return_dict=False)[0]

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """Denoising loss of one batch."""
        params = self.params
        chosen = self._choose(generator)
        latents = self.latents[chosen].float()
        tokens = torch.stack([self._caption(int(index), generator) for index in chosen])
        timesteps = draw_timesteps(params, generator)
        noise = torch.randn(latents.shape, generator=generator)
        alpha = self.alphas[timesteps].reshape(-1, 1, 1, 1)
        noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        target = velocity if params.prediction == "v_prediction" else noise
        error = self.predict(noised, timesteps, tokens).float() - target
        plain = error.square().mean()
        color = torch.einsum("kc,bchw->bkhw", self.color_directions, error).square().mean()
        return {"total": plain + params.color_weight * color, "plain": plain, "color": color}

    def _choose(self, generator: torch.Generator) -> Int64[Tensor, " batch"]:
        """Numbers of the views of a step."""
        own, count = self.first_more, self.params.batch
        chosen = torch.randint(own, (count,), generator=generator)
        if not self.more_share:
            return chosen
        other = torch.randint(own, len(self.latents), (count,), generator=generator)
        return torch.where(torch.rand(count, generator=generator) < self.more_share, other, chosen)

    def _caption(self, index: int, generator: torch.Generator) -> Tensor:
        draws = torch.rand(4, generator=generator).tolist()
        if draws[0] < self.params.empty_share:
            return self.empty
        captions = self.captions[index]
        canonical = draws[1] < self.params.canonical_share
        wording = 0 if canonical else int(draws[2] * len(captions))
        return captions[wording, int(draws[3] >= self.params.plain_share)]


def draw_timesteps(
    params: ViewDiffusionParams, generator: torch.Generator
) -> Int64[Tensor, " batch"]:
    """Timesteps of one batch, more of them below ``near_limit``."""
    share = torch.rand(params.batch, generator=generator)
    near = torch.rand(params.batch, generator=generator) < params.near_share
    limit = torch.where(near, params.near_limit, NUM_TRAIN_STEPS)
    return (share * limit).long().clamp(max=NUM_TRAIN_STEPS - 1)


def tokenize(tokenizer: Any, texts: list[str]) -> Int64[Tensor, "text token"]:
    """Token numbers of texts, all padded to the tokenizer's length."""
    length = tokenizer.model_max_length
    return tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


def _tokens_of_records(
    tokenizer: Any, records: list[PictureRecord]
) -> list[Int64[Tensor, "text 2 token"]]:
    """Tokens of every record's captions, without and with the view; one call for all of them."""
    texts = [
        said
        for record in records
        for text in record.captions
        for said in (text, write_view_prompt(text, record.tags["view"]))
    ]
    tokens = tokenize(tokenizer, texts).reshape(-1, 2, tokenizer.model_max_length)
    return list(tokens.split([len(record.captions) for record in records]))


def save_view_model(
    training: ViewDiffusionTraining, tokenizer: Any, folder: Path, vae: Any | None = None
) -> None:
    """Write the model in the layout of ``StableDiffusionPipeline``, in half precision.

    Args:
        training: becomes half precision too.
        tokenizer: of the texts.
        folder: made when missing.
        vae: autoencoder to write beside it; None leaves its place empty.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(
        num_train_timesteps=NUM_TRAIN_STEPS, beta_start=0.00085, beta_end=0.012,
        beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=training.params.prediction,
    )  # fmt: skip
    pipeline: Any = StableDiffusionPipeline(
        vae=None if vae is None else vae.half(),
        text_encoder=training.text_encoder.half(),
        tokenizer=tokenizer,
        unet=training.unet.half(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
