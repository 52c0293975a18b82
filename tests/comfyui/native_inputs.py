"""Checks of `drive_native`: texts, stock samplers, image prompts and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import tiny_native
import torch
from native_scene import PROMPTS, Scene, check, gap, guided, message_of, native, random


@check
def text_like_the_stock_node(scene: Scene) -> dict[str, Any]:
    from comfy_extras.nodes_cond import T5TokenizerOptions
    from comfy_extras.nodes_flux import CLIPTextEncodeFlux
    from lift3d.core.pipelines.bundle_prompt import BUNDLE_PREFIX
    from lift3d.nodes.native import EncodeBundlePrompt

    clip = scene.flux_parts[1]
    words = "a red mug"
    with torch.inference_mode():
        ours = EncodeBundlePrompt.execute(clip, words, 3.5, BUNDLE_PREFIX).result[0]
        long_clip = T5TokenizerOptions.execute(clip, 0, 512).result[0]
        full = f"{BUNDLE_PREFIX} {words}"
        stock = CLIPTextEncodeFlux.execute(long_clip, BUNDLE_PREFIX, full, 3.5).result[0]
        swapped = CLIPTextEncodeFlux.execute(long_clip, full, full, 3.5).result[0]
        short_clip = T5TokenizerOptions.execute(clip, 0, 300).result[0]
        short = EncodeBundlePrompt.execute(short_clip, words, 3.5, BUNDLE_PREFIX).result[0]
    return {
        "tokens": gap(ours[0][0], stock[0][0]),
        "pooled": gap(ours[0][1]["pooled_output"], stock[0][1]["pooled_output"]),
        "pooled_of_other_text": gap(ours[0][1]["pooled_output"], swapped[0][1]["pooled_output"]),
        "guidance": ours[0][1]["guidance"],
        "length": ours[0][0].shape[1],
        "length_set_by_the_user": short[0][0].shape[1],
    }


@check
def evaluations_of_stock_heun(scene: Scene) -> dict[str, Any]:
    import comfy.sample
    import comfy.samplers
    from lift3d.nodes.native import MakeBundleSigmas

    counts = {}
    conditioning = guided(scene.flux, PROMPTS[:1])
    told = {"pooled_output": conditioning.pooled, "guidance": 3.5}
    for strength in (1.0, 0.95):
        model = scene.flux_parts[0].clone()
        calls: list[int] = []

        def wrapper(apply: Any, arguments: dict[str, Any], calls: list[int] = calls) -> Any:
            calls.append(1)
            return apply(arguments["input"], arguments["timestep"], **arguments["c"])

        model.set_model_unet_function_wrapper(wrapper)
        sigmas = MakeBundleSigmas.execute(20, strength, 3.0).result[0]
        latents = random(1, 16, 2, 4)
        with torch.inference_mode():
            comfy.sample.sample_custom(
                model, latents, 1.0, comfy.samplers.sampler_object("heun"), sigmas,
                [[conditioning.tokens, told]], [[conditioning.tokens, told]], latents,
                disable_pbar=True, seed=0,
            )  # fmt: skip
        counts[str(strength)] = {"evaluations": len(calls), "first": float(sigmas[0])}
    return counts


@check
def redux_tokens(scene: Scene) -> dict[str, Any]:
    from types import SimpleNamespace

    seen = []

    def encode_image(image: torch.Tensor, crop: bool) -> Any:
        seen.append((tuple(image.shape), crop))
        return SimpleNamespace(last_hidden_state=torch.ones(1, 729, 4))

    vision = SimpleNamespace(encode_image=encode_image)
    style = SimpleNamespace(get_cond=lambda output: 3 * torch.ones(1, 729, tiny_native.WIDTH))
    model = native(scene.flux_parts, clip_vision=vision, style_model=style)
    text = guided(model, PROMPTS)
    both = model.with_image_prompt(text, torch.rand(1, 512, 512, 3), 0.5)
    denoised = model.denoise(random(2, 16, 8, 16), torch.tensor([0.5, 0.4]), both)
    return {
        "tokens": both.tokens.shape[1],
        "text_kept": gap(both.tokens[:, :512], text.tokens),
        "picture": float(both.tokens[:, 512:].min()),
        "finite": bool(torch.isfinite(denoised).all()),
        "refused": message_of(
            lambda: scene.flux.with_image_prompt(text, torch.rand(1, 8, 8, 3), 1)
        ),
    }


@check
def long_prompts(scene: Scene) -> dict[str, Any]:
    from lift3d.core.diffusion.model import join_conditionings

    _, model = scene.stable_diffusion("sd15")
    words = " ".join(f"word{index}" for index in range(60))
    long, short = model.encode_text([words]), model.encode_text(["a red mug"])
    both = join_conditionings([long, short])
    latents, one = random(1, 4, 8, 16), torch.tensor([2.0])
    second = model.denoise(latents.expand(2, -1, -1, -1), one.expand(2), both)[1:]
    return {
        "lengths": [part.tokens.shape[1] for part in (long, short, both)],
        "same": gap(second, model.denoise(latents, one, short)),
    }


@check
def previews(scene: Scene) -> dict[str, Any]:
    picture = scene.flux.preview_latents(random(2, 16, 8, 16))
    return {"shape": list(picture.shape), "low": float(picture.min()), "high": float(picture.max())}


@check
def messages(scene: Scene) -> dict[str, str]:
    from lift3d.core.diffusion.model import Control
    from lift3d.nodes.native import EncodeBundlePrompt, SetControlMode
    from lift3d.nodes.native_attachments import NativeControl
    from safetensors.torch import save_file

    model, clip, vae = scene.flux_parts
    folder, stable = scene.stable_diffusion("sd15")
    plain = tiny_native.write_flux_control(scene.folder / "plain", num_modes=None)
    plain_network = scene.flux.load_control(next(plain.glob("*.safetensors")))
    union = scene.flux.load_control(scene.control_file)
    picture = torch.rand(1, 64, 128, 3)
    wide = {
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.rand(4, 999),
        "transformer.transformer_blocks.0.attn.to_q.lora_B.weight": torch.rand(999, 4),
    }
    save_file(wide, scene.folder / "wide.safetensors")
    (scene.folder / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    return {
        "vae": message_of(lambda: native((model, clip, stable.vae))),
        "clip": message_of(lambda: native((model, sdxl_clip(scene), vae)).encode_text(["mug"])),
        "lora for flux on sd": message_of(lambda: stable.with_lora(scene.lora)),
        "lora of another size": message_of(
            lambda: scene.flux.with_lora(scene.folder / "wide.safetensors")
        ),
        "union without mode": message_of(lambda: Control(union, picture)),
        "mode beyond": message_of(lambda: Control(union, picture, mode=9)),
        "mode of a plain network": message_of(lambda: Control(plain_network, picture, mode=1)),
        "handle": message_of(
            lambda: scene.flux.denoise(
                random(1, 16, 8, 16),
                torch.tensor([0.5]),
                dataclasses.replace(
                    guided(scene.flux, ["mug"]), controls=(Control("file", picture),)
                ),
            )
        ),
        "not a controlnet": message_of(lambda: NativeControl(model)),
        "no controlnet file": message_of(lambda: scene.flux.load_control(scene.lora)),
        "set mode of plain": message_of(
            lambda: SetControlMode.execute(plain_network.network, "tile")
        ),
        "set unknown mode": message_of(lambda: SetControlMode.execute(union.network, "segment")),
        "odd size": message_of(lambda: scene.flux.encode_image(torch.rand(1, 60, 64, 3))),
        "empty prompt": message_of(lambda: EncodeBundlePrompt.execute(clip, "  ", 3.5, "x")),
        "empty prompt before running": str(EncodeBundlePrompt.validate_inputs(prompt="")),
        "other kind of model": message_of(lambda: native((edm_model(scene), clip, vae))),
    }


def sdxl_clip(scene: Scene) -> Any:
    """Text encoders with wider tokens."""
    return scene.stable_diffusion("sdxl", sdxl=True)[1].clip


def edm_model(scene: Scene) -> Any:
    """A MODEL whose sampling was patched to something else."""
    import comfy.model_sampling as sampling

    class Other(sampling.ModelSamplingDiscrete, sampling.X0):
        pass

    patched = scene.flux_parts[0].clone()
    patched.add_object_patch("model_sampling", Other())
    return patched
