"""Builders of tiny random diffusion models in diffusers layout: a few hundred kilobytes each.

Real classes of diffusers and transformers with small sizes, so that a test can compare our
arithmetic with that of their pipelines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

WORDS = (
    "a an and the of with red green blue yellow white black brown purple tall wide small mug chair "
    "table lamp tree house car rocket handle legs shade roof image grid view background elevation"
).split()
TEXT_WIDTH = 32
TEXT_LENGTH = 16
PUBLISHED_TEXT_LENGTH = 512


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Block with its own global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def make_word_tokenizer(
    *, max_length: int = TEXT_LENGTH, start: bool = False, words: tuple[str, ...] = tuple(WORDS)
) -> Any:
    """Word-level tokenizer: unknown words become [UNK]; always padded to ``max_length``.

    With ``start`` a text begins and ends with a mark, as for CLIP.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = ["[PAD]", "[EOS]", "[UNK]", *(["[BOS]"] if start else [])]
    vocabulary = {word: index for index, word in enumerate([*marks, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "[BOS] $A [EOS]" if start else "$A [EOS]"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(mark, vocabulary[mark]) for mark in marks]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        eos_token="[EOS]",
        unk_token="[UNK]",
        **({"bos_token": "[BOS]"} if start else {}),
    )


def make_tiny_flux_transformer(*, guidance: bool = False, width: int = TEXT_WIDTH) -> Any:
    """2 heads x 16, one double and one single block, 16 latent channels packed 2x2."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=width,
        pooled_projection_dim=width,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def make_tiny_vae(*, channels: int, scale: float, shift: float | None) -> Any:
    """Autoencoder with 8 image pixels per latent pixel."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        scaling_factor=scale,
        shift_factor=shift,
        mid_block_add_attention=False,
        force_upcast=False,
    ).eval()


def make_tiny_t5(vocabulary: int, *, width: int = TEXT_WIDTH) -> Any:
    """One layer of T5's encoder."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocabulary, d_model=width, d_kv=8, d_ff=64, num_layers=1, num_heads=4,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def make_tiny_clip(tokenizer: Any, *, projection: bool = False) -> Any:
    """One or two layers of CLIP's text encoder, with a projection for SDXL's second one."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, projection_dim=TEXT_WIDTH,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return kind(config).eval()


def _save_pipeline(pipeline: Any, path: Path, dtype: torch.dtype) -> Path:
    path = Path(path)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(dtype=dtype)
    pipeline.save_pretrained(path)
    # transformers 5 renamed the class of plain fast tokenizers; older ones know this name only.
    index = path / "model_index.json"
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace("TokenizersBackend", "PreTrainedTokenizerFast"), encoding="utf-8")
    return path


def make_tiny_flux_folder(
    path: Path, seed: int = 0, *, published: bool = False, dtype: torch.dtype = torch.float32
) -> Path:
    """A Flux model in a folder, as `FluxPipeline.save_pretrained` writes it.

    Args:
        path: folder to write.
        seed: of the random weights.
        published: with CLIP, a guidance embedding, a T5 length of 512 and the published latent
            scale; else the layout of the embedded models: no CLIP, no guidance embedding, word
            tokenizer of 16 tokens, latent scale 1.
        dtype: of the weights on disk.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    with seeded(seed):
        length = PUBLISHED_TEXT_LENGTH if published else TEXT_LENGTH
        tokenizer_2 = make_word_tokenizer(max_length=length)
        tokenizer = make_word_tokenizer(max_length=77, start=True) if published else None
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=make_tiny_vae(channels=16, scale=0.3611, shift=0.1159)
            if published
            else make_tiny_vae(channels=16, scale=1.0, shift=0.0),
            text_encoder=make_tiny_clip(tokenizer) if published else None,
            tokenizer=tokenizer,
            text_encoder_2=make_tiny_t5(len(tokenizer_2)),
            tokenizer_2=tokenizer_2,
            transformer=make_tiny_flux_transformer(guidance=published),
        )
    return _save_pipeline(pipeline, path, dtype)


Prediction = Literal["epsilon", "v_prediction"]


def make_tiny_unet(*, sdxl: bool = False) -> Any:
    """UNet of two levels over 4 latent channels."""
    from diffusers import UNet2DConditionModel

    extra: dict[str, Any] = {}
    if sdxl:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + TEXT_WIDTH,
            "use_linear_projection": True,
        }
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(2 if sdxl else 1) * TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
        **extra,
    ).eval()


def make_tiny_sd_folder(
    path: Path,
    seed: int = 0,
    *,
    prediction: Prediction = "epsilon",
    sdxl: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A Stable Diffusion 1.5-like (or 2.1-like with "v_prediction", or SDXL) model in a folder."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type=prediction,
    )  # fmt: skip
    with seeded(seed):
        tokenizer = make_word_tokenizer(max_length=77, start=True)
        parts = {
            "vae": make_tiny_vae(channels=4, scale=0.13025 if sdxl else 0.18215, shift=None),
            "unet": make_tiny_unet(sdxl=sdxl),
            "text_encoder": make_tiny_clip(tokenizer),
            "tokenizer": tokenizer,
            "scheduler": scheduler,
        }
        if sdxl:
            pipeline = StableDiffusionXLPipeline(
                **parts,
                text_encoder_2=make_tiny_clip(tokenizer, projection=True),
                tokenizer_2=tokenizer,
            )
        else:
            pipeline = StableDiffusionPipeline(
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
    return _save_pipeline(pipeline, path, dtype)


def make_tiny_svd_folder(path: Path, seed: int = 0, *, frames: int = 3) -> Path:
    """A Stable Video Diffusion model in a folder; its vision encoder sees 32 pixels."""
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=TEXT_WIDTH,
    )  # fmt: skip
    with seeded(seed):
        unet = UNetSpatioTemporalConditionModel(
            sample_size=4, block_out_channels=(32, 64), layers_per_block=1,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            num_attention_heads=(2, 4), cross_attention_dim=TEXT_WIDTH, num_frames=frames,
            addition_time_embed_dim=8, projection_class_embeddings_input_dim=24,
        )  # fmt: skip
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=(32,) * 4, layers_per_block=1, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
        )  # fmt: skip
        pipeline = StableVideoDiffusionPipeline(
            vae=vae, image_encoder=CLIPVisionModelWithProjection(vision), unet=unet,
            scheduler=EulerDiscreteScheduler(
                prediction_type="v_prediction", timestep_type="continuous", sigma_min=0.002,
                sigma_max=700.0, use_karras_sigmas=True, timestep_spacing="leading",
                beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                steps_offset=1,
            ),
            feature_extractor=CLIPImageProcessor(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
            ),
        )  # fmt: skip
    return _save_pipeline(pipeline, path, torch.float32)


def make_tiny_flux_control(
    path: Path, seed: int = 0, *, num_modes: int | None = None, width: int = TEXT_WIDTH
) -> Path:
    """A Flux ControlNet in a folder; its zero-initialised layers get random values.

    Args:
        path: folder to write.
        seed: of the random weights.
        num_modes: of a union network; None for a network of one purpose.
        width: of the text tokens.
    """
    from diffusers import FluxControlNetModel

    with seeded(seed):
        network = FluxControlNetModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=width,
            pooled_projection_dim=width,
            axes_dims_rope=[4, 6, 6],
            num_mode=num_modes,
        )
        fill_zero_layers(network)
    network.save_pretrained(path)
    return Path(path)


def make_tiny_sd_control(path: Path, seed: int = 0) -> Path:
    """A ControlNet for the tiny Stable Diffusion model, with random values in its zero layers."""
    from diffusers import ControlNetModel

    with seeded(seed):
        network = ControlNetModel.from_unet(
            make_tiny_unet(), conditioning_embedding_out_channels=(4, 8, 8, 8)
        )
        fill_zero_layers(network)
    network.save_pretrained(path)
    return Path(path)


def fill_zero_layers(network: torch.nn.Module) -> None:
    """Random values for weights that are all zero, so that tests see the layers behind them."""
    with torch.no_grad():
        for value in network.parameters():
            if value.ndim > 1 and not value.any():
                value.normal_(std=0.1)


def make_tiny_redux_folder(
    path: Path, seed: int = 0, *, width: int = TEXT_WIDTH, side_tokens: int = 27
) -> Path:
    """An image prompt encoder in a folder: SigLIP with ``side_tokens``^2 tokens, Redux embedder."""
    import json

    from diffusers import ReduxImageEncoder
    from transformers import SiglipVisionConfig, SiglipVisionModel

    path = Path(path)
    side = 2 * side_tokens
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=side, patch_size=2,
    )  # fmt: skip
    with seeded(seed):
        SiglipVisionModel(config).save_pretrained(path / "image_encoder")
        ReduxImageEncoder(16, width).save_pretrained(path / "image_embedder")
    index = {
        "_class_name": "FluxPriorReduxPipeline",
        "feature_extractor": ["transformers", "SiglipImageProcessor"],
        "image_embedder": ["diffusers", "ReduxImageEncoder"],
        "image_encoder": ["transformers", "SiglipVisionModel"],
    }
    preprocessing = {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3, "resample": 3, "size": {"height": side, "width": side},
    }  # fmt: skip
    (path / "feature_extractor").mkdir()
    (path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    processor = path / "feature_extractor" / "preprocessor_config.json"
    processor.write_text(json.dumps(preprocessing), encoding="utf-8")
    return path
