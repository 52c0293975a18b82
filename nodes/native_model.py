"""Contains ComfyUI's own MODEL, CLIP, VAE and CONTROL_NET seen as a `DiffusionModel`.

Every evaluation runs through ComfyUI's guider. So quantised weights, LoRA stacks and patches that
other nodes made act as they do in its samplers, and its memory management decides what lies where.
ComfyUI is imported inside the functions: without it this module loads, but makes no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core.diffusion.model import (
    Conditioning,
    Control,
    LatentFormat,
    ModelDefaults,
    join_conditionings,
)
from ..core.diffusion.schedules import Family
from .native_attachments import NativeControl, patched_with_lora
from .native_encoder import GradientEncoder, RememberedHints

FLUX_TEXT_TOKENS = 512
"""Length to which T5's texts are padded for Flux, as its authors do; ComfyUI pads to 256."""


class NativeModel:
    """A model that ComfyUI loaded, with its text encoder and its image encoder.

    Predictions carry no gradient; `encode_image` does.

    Attributes:
        model: MODEL; patches and LoRAs on it stay in force.
        clip: CLIP.
        vae: VAE.
        clip_vision: CLIP_VISION for image prompts, or None.
        style_model: STYLE_MODEL (Redux) for image prompts, or None.

    Raises:
        ValueError: parts that do not belong together, or a kind of model that is not known here.
    """

    def __init__(
        self,
        model: Any,
        clip: Any,
        vae: Any,
        *,
        clip_vision: Any = None,
        style_model: Any = None,
    ) -> None:
        self.model = model
        self.clip = clip
        self.vae = vae
        self.clip_vision = clip_vision
        self.style_model = style_model
        self.latent_format = _latent_format(model)
        self.family = _family(model)
        self._encoder = GradientEncoder(vae)
        self._hints = RememberedHints(vae)
        if vae.latent_channels != self.latent_format.channels:
            raise ValueError(
                f"The VAE makes latents of {vae.latent_channels} channels, but the model "
                f"({self.name}) needs {self.latent_format.channels}; load the one made for it."
            )

    @property
    def name(self) -> str:
        """ComfyUI's name of the architecture, such as Flux."""
        return type(self.model.model).__name__

    @property
    def is_flux(self) -> bool:
        """Whether the model is a Flux transformer."""
        return "guidance_embed" in _network_config(self.model)

    @property
    def is_unet(self) -> bool:
        """Whether the text acts by cross-attention alone (Stable Diffusion before 3)."""
        return "num_res_blocks" in _network_config(self.model)

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Of the model's training, or of the sampling patch that is on it."""
        sampling = self.model.get_model_object("model_sampling")
        return float(sampling.sigma_min), float(sampling.sigma_max)

    @property
    def device(self) -> torch.device:
        """Where ComfyUI runs the model."""
        return torch.device(self.model.load_device)

    @property
    def defaults(self) -> ModelDefaults:
        """Kiss3DGen's settings for Flux, the customary ones for other models."""
        if self.is_flux:
            return ModelDefaults(guidance=3.5, guidance_kind="distilled")
        return ModelDefaults(guidance=7.5, guidance_kind="classifier_free")

    # -- text --------------------------------------------------------------------------------

    def encode_text(
        self, prompts: Sequence[str], *, pooled_prompts: Sequence[str] | None = None
    ) -> Conditioning:
        """Embed prompts with ComfyUI's syntax, weights like ``(word:1.2)`` included.

        Where there is a T5, ``pooled_prompts`` go to all CLIPs beside it.

        Raises:
            ValueError: the CLIP does not belong to the model, or varies over the run (hooks).
        """
        pooled = list(prompts) if pooled_prompts is None else list(pooled_prompts)
        with torch.inference_mode():
            parts = [self._encode(*texts) for texts in zip(prompts, pooled, strict=True)]
            joined = join_conditionings(parts)
        wanted = _text_width(self.model)
        if wanted and joined.tokens.shape[-1] != wanted:
            raise ValueError(
                f"The CLIP gives tokens of {joined.tokens.shape[-1]} numbers, but the model "
                f"({self.name}) takes {wanted}; load the text encoders that belong to it."
            )
        return joined

    def _encode(self, prompt: str, pooled_prompt: str) -> Conditioning:
        tokens = tokenize(self.clip, prompt, pooled_prompt, long_text=self.is_flux)
        entries = self.clip.encode_from_tokens_scheduled(tokens)
        if len(entries) != 1:
            raise ValueError(
                "The CLIP changes during the run (hooks with a schedule); only a constant one can "
                "be used here. Take the scheduled hook off, or use ComfyUI's own samplers."
            )
        embedded, rest = entries[0]
        pooled = rest.pop("pooled_output", None)
        return Conditioning(
            embedded.to(self.device, torch.float32),
            pooled=None if pooled is None else pooled.to(self.device, torch.float32),
            extras=rest,
            repeatable_tokens=self.is_unet,
        )

    def with_image_prompt(
        self, conditioning: Conditioning, image: Tensor, strength: float
    ) -> Conditioning:
        """Append the tokens of a picture (Redux), multiplied by ``strength``.

        Raises:
            ValueError: no CLIP_VISION or STYLE_MODEL was given.
        """
        if self.clip_vision is None or self.style_model is None:
            raise ValueError(
                "An image prompt needs Redux: connect CLIP_VISION (sigclip_vision_patch14_384) and "
                "STYLE_MODEL (flux1-redux-dev) to the node 'Wrap Native Model'."
            )
        with torch.inference_mode():
            seen = self.clip_vision.encode_image(image.cpu(), crop=False)
            tokens = self.style_model.get_cond(seen).flatten(0, 1)[None]
        tokens = strength * tokens.to(conditioning.tokens)
        behind = tokens.expand(conditioning.batch, -1, -1)
        return replace(conditioning, tokens=torch.cat([conditioning.tokens, behind], dim=1))

    # -- images ------------------------------------------------------------------------------

    def encode_image(self, images: Tensor) -> Tensor:
        """Images 0..1 to network latents; differentiable when the images need a gradient."""
        step = self.latent_format.downscale
        height, width = images.shape[1:3]
        if height % step or width % step:
            raise ValueError(
                f"Images of {width} x {height} pixels cannot be encoded; both sides must be "
                f"multiples of {step}."
            )
        if images.requires_grad and torch.is_grad_enabled():
            encoded = self._encoder.encode(images)
        else:
            with torch.inference_mode():
                encoded = self.vae.encode(images)
        return self.latent_format.to_network(encoded.to(self.device, torch.float32, copy=True))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Network latents to images 0..1."""
        with torch.inference_mode():
            images = self.vae.decode(self.latent_format.from_network(latents.float()))
        return images.to(self.device, torch.float32, copy=True)

    def preview_latents(self, latents: Tensor) -> Tensor:
        """Rough picture of the first entry by ComfyUI's table of latent colours."""
        known = self.model.get_model_object("latent_format")
        first = latents[0].detach().float().cpu()
        if known.latent_rgb_factors is None:
            colors = first.mean(dim=0, keepdim=True).expand(3, -1, -1)
        else:
            offset = torch.tensor(known.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
            factors = torch.tensor(known.latent_rgb_factors)
            colors = torch.einsum("chw,cr->rhw", first, factors) + offset[:, None, None]
        large = functional.interpolate(
            (colors / 2 + 0.5).clamp(0, 1)[None],
            scale_factor=self.latent_format.downscale,
            mode="bilinear",
        )
        return large[0].movedim(0, -1)

    # -- prediction --------------------------------------------------------------------------

    def denoise(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict clean latents, with one noise level and one conditioning per entry."""
        import comfy.samplers

        with torch.inference_mode():
            guider = comfy.samplers.CFGGuider(self.model)
            guider.inner_set_conds({"positive": self._native_conditioning(conditioning)})
            guider.set_cfg(1.0)
            evaluation = _OneEvaluation(latents.float(), sigma.float())
            ends = torch.stack([evaluation.sigma.max(), torch.zeros_like(evaluation.sigma[0])])
            empty = torch.zeros_like(evaluation.latents)
            guider.sample(evaluation.latents, empty, evaluation, ends, disable_pbar=True)
        return evaluation.denoised.to(latents.device, latents.dtype, copy=True)

    def _native_conditioning(self, conditioning: Conditioning) -> list[list[Any]]:
        """ComfyUI's CONDITIONING: one entry that holds the whole batch."""
        told = dict(conditioning.extras)
        if conditioning.pooled is not None:
            told["pooled_output"] = conditioning.pooled
        if conditioning.guidance is not None:
            told["guidance"] = conditioning.guidance
        chain = None
        for control in conditioning.controls:
            chain = self._native_control(control).set_previous_controlnet(chain)
        if chain is not None:
            told |= {"control": chain, "control_apply_to_uncond": False}
        return [[conditioning.tokens, told]]

    def _native_control(self, control: Control) -> Any:
        """Copy of the CONTROL_NET with its picture, strength and mode set."""
        if not isinstance(control.network, NativeControl):
            raise ValueError(
                f"A control holds a {type(control.network).__name__}; native models need a "
                "CONTROL_NET, connected to the node 'Bundle Control'."
            )
        control.network.require_mode(control.mode)
        network = control.network.network.copy()
        if control.mode is not None:
            network.set_extra_arg("control_type", [control.mode])
        picture = control.image.movedim(-1, 1)
        return network.set_cond_hint(
            picture, control.scale, (0.0, 1.0), vae=self._hints.encoder_of(control.image)
        )

    # -- attachments -------------------------------------------------------------------------

    def with_lora(self, path: Path, strength: float = 1.0) -> NativeModel:
        """Model with a LoRA on top of those that it has; patches CLIP too if the file says so.

        Raises:
            ValueError: the file cannot be read, or nothing in it fits the model.
        """
        model, clip = patched_with_lora(self.model, self.clip, Path(path), strength)
        return NativeModel(
            model, clip, self.vae, clip_vision=self.clip_vision, style_model=self.style_model
        )

    def load_control(self, path: Path) -> NativeControl:
        """Load a CONTROL_NET from a file; the result is `Control.network`.

        Raises:
            ValueError: the file holds none.
        """
        import comfy.controlnet

        network = comfy.controlnet.load_controlnet(str(path))
        if network is None:
            raise ValueError(f"'{Path(path).name}' holds no ControlNet that ComfyUI knows.")
        return NativeControl(network, Path(path).name)


class _OneEvaluation:
    """A sampler, as ComfyUI's guider calls it, that asks the model once."""

    def __init__(self, latents: Tensor, sigma: Tensor) -> None:
        self.latents = latents
        self.sigma = sigma
        self.denoised = latents

    def sample(
        self,
        model: Callable[..., Tensor],
        sigmas: Tensor,
        extra_args: Mapping[str, Any],
        *_: Any,
    ) -> Tensor:
        """Keep the predicted clean latents."""
        place = sigmas.device
        self.denoised = model(self.latents.to(place), self.sigma.to(place), **extra_args)
        return self.denoised


def tokenize(clip: Any, prompt: str, pooled_prompt: str, *, long_text: bool) -> dict[str, Any]:
    """ComfyUI's tokens of a prompt; with a T5, the CLIPs beside it get ``pooled_prompt``.

    Args:
        clip: CLIP.
        prompt: for T5, or for all encoders without one.
        pooled_prompt: for the CLIPs beside a T5.
        long_text: pad T5's text to `FLUX_TEXT_TOKENS`, unless a node set a length on the CLIP.
    """
    chosen = {"t5xxl_min_length": FLUX_TEXT_TOKENS} if long_text else {}
    options = {**chosen, **getattr(clip, "tokenizer_options", {})}
    tokens = clip.tokenize(prompt, tokenizer_options=options)
    if "t5xxl" in tokens and pooled_prompt != prompt:
        short = clip.tokenize(pooled_prompt, tokenizer_options=options)
        return {**short, "t5xxl": tokens["t5xxl"]}
    return tokens


def _network_config(model: Any) -> Mapping[str, Any]:
    return getattr(model.model.model_config, "unet_config", {})


def _text_width(model: Any) -> int | None:
    """Width of the tokens that the network takes, where its configuration tells."""
    config = _network_config(model)
    width = config.get("context_in_dim", config.get("context_dim"))
    return width if isinstance(width, int) else None


def _family(model: Any) -> Family:
    """Family of the MODEL, or of the sampling patch that is on it."""
    import comfy.model_sampling as sampling

    current = model.get_model_object("model_sampling")
    images = (sampling.X0, sampling.IMG_TO_IMG)
    if isinstance(current, sampling.CONST) and not isinstance(
        current, getattr(sampling, "IMG_TO_IMG_FLOW", ())
    ):
        return "rectified_flow"
    if isinstance(current, sampling.EPS) and not isinstance(current, images):
        return "variance_preserving"
    known = [kind for kind in type(current).__mro__[1:] if kind.__module__ == sampling.__name__]
    kinds = ", ".join(kind.__name__ for kind in known) or type(current).__name__
    raise ValueError(
        f"{type(model.model).__name__} is a model of another kind ({kinds}); known are Stable "
        "Diffusion 1.5 and 2.1, SDXL, Stable Diffusion 3 and Flux."
    )


def _latent_format(model: Any) -> LatentFormat:
    """Normalisation of the MODEL's latents, found by asking it."""
    known = model.get_model_object("latent_format")
    probe = torch.ones(2, known.latent_channels, 2, 2, dtype=torch.float64)
    probe[0] = 0
    at_zero, at_one = known.process_in(probe)
    scales = at_one - at_zero
    plain = known.latent_dimensions == 2 and scales.shape == probe[0].shape
    if not plain or not torch.allclose(scales, scales.mean()):
        raise ValueError(
            f"The latents of {type(model.model).__name__} are not those of an image model with one "
            "scale for all channels; use Stable Diffusion, SDXL, Stable Diffusion 3 or Flux."
        )
    scale = float(scales.mean())
    return LatentFormat(
        channels=known.latent_channels,
        downscale=int(getattr(known, "spacial_downscale_ratio", 8)),
        scale=scale,
        shift=0.0 - float(at_zero.mean()) / scale,
    )
