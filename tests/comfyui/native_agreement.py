"""Checks of `drive_native`: one set of weights in ComfyUI, in diffusers and in our sampler."""

from __future__ import annotations

import dataclasses
from typing import Any

import tiny_native
import torch
from native_scene import PROMPTS, SHAPE, Scene, check, diffusers, gap, guided, native, random


def agreement(first: Any, second: Any, sigmas: list[float]) -> dict[str, float]:
    """How far two models are apart at each step of the protocol, and over a whole run."""
    from lift3d.core.diffusion.model import Conditioning
    from lift3d.core.diffusion.sampling import sample_latents

    channels = first.latent_format.channels
    latents = random(SHAPE[0], channels, *SHAPE[1:])
    pooled = ["A grid of views.", "A grid of views."]
    with torch.no_grad():
        texts = [guided(model, PROMPTS, pooled) for model in (first, second)]
        shared: Conditioning = texts[1]
        one = torch.tensor([sigmas[0], sigmas[-2]])
        predictions = [model.denoise(latents, one, shared) for model in (first, second)]
        picture = torch.rand(1, 64, 128, 3, generator=torch.Generator().manual_seed(1))
        encoded = [model.encode_image(picture) for model in (first, second)]
        decoded = [model.decode_latents(encoded[1]) for model in (first, second)]
        levels = torch.tensor(sigmas)
        finished = [
            sample_latents(model.denoise, latents * levels[0], levels, text)
            for model, text in zip((first, second), texts, strict=True)
        ]
    pooled_gap = 0.0 if shared.pooled is None else gap(texts[0].pooled, texts[1].pooled)
    return {
        "tokens": gap(texts[0].tokens, texts[1].tokens),
        "pooled": pooled_gap,
        "denoised": gap(*predictions),
        "encoded": gap(*encoded),
        "decoded": gap(*decoded),
        "sampled": gap(*finished),
        "size": float(finished[1].abs().max()),
        "scale": abs(first.latent_format.scale - second.latent_format.scale),
        "shift": abs(first.latent_format.shift - second.latent_format.shift),
        "same_family": first.family == second.family,
    }


FLOW = [1.0, 0.8, 0.5, 0.2, 0.0]
# Noise levels of trained timesteps, so that both implementations choose the same ones.
VARIANCE_PRESERVING = (900, 600, 300, 50)


def trained_sigmas() -> list[float]:
    """Noise levels of `VARIANCE_PRESERVING` and 0."""
    from lift3d.core.diffusion.schedules import alphas_to_sigmas, make_alphas_cumprod

    table = alphas_to_sigmas(make_alphas_cumprod())
    return [float(table[step]) for step in VARIANCE_PRESERVING] + [0.0]


@check
def flux_agrees_with_diffusers(scene: Scene) -> dict[str, float]:
    return agreement(scene.flux, diffusers(scene.flux_folder), FLOW)


@check
def follows_the_protocol(scene: Scene) -> dict[str, Any]:
    from lift3d.core.diffusion.model import DiffusionModel

    _, stable = scene.stable_diffusion("sd15")
    return {
        "is_one": isinstance(scene.flux, DiffusionModel),
        "flux": dataclasses.asdict(scene.flux.defaults),
        "stable": dataclasses.asdict(stable.defaults),
        "flux_range": scene.flux.sigma_range,
        "stable_range": stable.sigma_range,
    }


@check
def flux_with_lora_agrees(scene: Scene) -> dict[str, float]:
    with_lora = scene.flux.with_lora(scene.lora, 0.7)
    reference = diffusers(scene.flux_folder).with_lora(scene.lora, 0.7)
    latents, one = random(1, 16, 8, 16), torch.tensor([0.6])
    text = guided(reference, PROMPTS[:1])
    plain = scene.flux.denoise(latents, one, text)
    return {
        "changed": gap(with_lora.denoise(latents, one, text), plain),
        "original_kept": gap(scene.flux.denoise(latents, one, text), plain),
        **agreement(with_lora, reference, FLOW),
    }


@check
def flux_with_controls_agrees(scene: Scene) -> dict[str, float]:
    from lift3d.core.diffusion.model import Control

    reference = diffusers(scene.flux_folder)
    latents, one = random(2, 16, 8, 16), torch.tensor([0.6, 0.3])
    text = guided(reference, PROMPTS)
    picture = torch.rand(1, 64, 128, 3, generator=torch.Generator().manual_seed(2))
    results = []
    for model, path in ((scene.flux, scene.control_file), (reference, scene.control_folder)):
        network = model.load_control(path)
        controls = (
            Control(network, picture, scale=0.6, mode=1),
            Control(network, 1 - picture, scale=0.3, mode=2),
        )
        controlled = dataclasses.replace(text, controls=controls)
        with torch.no_grad():
            results.append(model.denoise(latents, one, controlled))
    plain = scene.flux.denoise(latents, one, text)
    return {"denoised": gap(*results), "changed": gap(results[0], plain)}


@check
def sd15_agrees_with_diffusers(scene: Scene) -> dict[str, float]:
    folder, model = scene.stable_diffusion("sd15")
    return agreement(model, diffusers(folder), trained_sigmas())


@check
def sd21_agrees_with_diffusers(scene: Scene) -> dict[str, float]:
    folder, model = scene.stable_diffusion("sd21", velocity=True)
    return agreement(model, diffusers(folder), trained_sigmas())


@check
def sdxl_agrees_with_diffusers(scene: Scene) -> dict[str, float]:
    folder, model = scene.stable_diffusion("sdxl", sdxl=True)
    return agreement(model, diffusers(folder), trained_sigmas())


@check
def sd3_samples_like_comfyui(scene: Scene) -> dict[str, Any]:
    model = native(tiny_native.make_sd3(scene.flux_parts[2]))
    text = model.encode_text(["a red mug"])
    return {**against_comfyui(model, text, FLOW, "euler"), "family": model.family}


@check
def flux_samples_like_comfyui(scene: Scene) -> dict[str, Any]:
    return against_comfyui(scene.flux, guided(scene.flux, PROMPTS[:1]), FLOW, "heun")


@check
def sdxl_samples_like_comfyui(scene: Scene) -> dict[str, Any]:
    _, model = scene.stable_diffusion("sdxl", sdxl=True)
    return against_comfyui(model, model.encode_text(PROMPTS[:1]), trained_sigmas(), "heun")


def against_comfyui(model: Any, text: Any, sigmas: list[float], method: str) -> dict[str, Any]:
    """A run of our sampler beside ComfyUI's own, on the same noise and conditioning."""
    import comfy.sample
    import comfy.samplers
    from lift3d.core.diffusion.sampling import sample_latents
    from lift3d.core.diffusion.schedules import add_noise

    noise = random(1, model.latent_format.channels, 8, 16)
    levels = torch.tensor(sigmas)
    told = {"pooled_output": text.pooled, "guidance": text.guidance}
    with torch.inference_mode():
        theirs = comfy.sample.sample_custom(
            model.model,
            noise,
            1.0,
            comfy.samplers.sampler_object(method),
            levels,
            [[text.tokens, told]],
            [[text.tokens, told]],
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=0,
        )
    start = add_noise(torch.zeros_like(noise), noise, sigmas[0], model.family)
    ours = sample_latents(model.denoise, start, levels, text, method=method)
    return {"sampled": gap(model.latent_format.from_network(ours), theirs)}
