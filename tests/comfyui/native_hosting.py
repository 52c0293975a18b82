"""Checks of `drive_native`: gradients, patches, memory and modes inside ComfyUI."""

from __future__ import annotations

import dataclasses
from typing import Any

import tiny_native
import torch
from native_scene import PROMPTS, Scene, check, diffusers, gap, guided, native, random


@check
def gradients_reach_the_picture(scene: Scene) -> dict[str, Any]:
    reference = diffusers(scene.flux_folder)
    picture = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    gradients = []
    for model in (scene.flux, reference):
        leaf = picture.clone().requires_grad_()
        (model.encode_image(leaf) ** 2).sum().backward()
        gradients.append(leaf.grad)
    weights = scene.flux._encoder.patcher.model
    with torch.inference_mode():  # as when another node's run unloads the copy
        for value in weights.parameters():
            value.data = value.data.clone()
    leaf = picture.clone().requires_grad_()
    (scene.flux.encode_image(leaf) ** 2).sum().backward()
    return {
        "gradient": gap(*gradients),
        "again": gap(leaf.grad, gradients[1]),
        "loaded_in_inference_mode": next(
            scene.flux_parts[2].first_stage_model.parameters()
        ).is_inference(),
    }


@check
def gradients_with_dynamic_video_memory(scene: Scene) -> dict[str, Any]:
    """ComfyUI keeps such weights in memory of its own; here a stand-in says that it does."""
    import copy
    from types import SimpleNamespace

    model, clip, vae = scene.flux_parts
    cpu = torch.device("cpu")
    with torch.inference_mode(False):
        again = SimpleNamespace(model=copy.deepcopy(vae.first_stage_model))
    patcher = SimpleNamespace(
        is_dynamic=lambda: True, load_device=cpu, offload_device=cpu, cached_patcher_init=None,
        clone=lambda disable_dynamic: again,
    )  # fmt: skip
    dynamic = copy.copy(vae)
    dynamic.patcher = patcher
    picture = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    wrapped = native((model, clip, dynamic))
    try:
        wrapped.encode_image(picture.clone().requires_grad_())
        refused = ""
    except ValueError as error:
        refused = str(error)
    patcher.cached_patcher_init = (None, ())
    gradients = []
    for each in (wrapped, scene.flux):
        leaf = picture.clone().requires_grad_()
        (each.encode_image(leaf) ** 2).sum().backward()
        gradients.append(leaf.grad)
    return {"refused": refused, "gradient": gap(*gradients)}


@check
def lora_dialects_agree(scene: Scene) -> dict[str, Any]:
    """The same changes in the keys of other trainers, beside diffusers reading the same files."""
    from safetensors.torch import save_file

    hidden = tiny_native.FLUX_HIDDEN
    down, up = random(4, hidden, seed=7), random(3 * hidden, 4, seed=8)
    files = {
        "xlabs": {
            "double_blocks.0.processor.qkv_lora1.down.weight": down,
            "double_blocks.0.processor.qkv_lora1.up.weight": up,
        },
        "kohya": {
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": down,
            "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": up,
            "lora_unet_double_blocks_0_img_attn_qkv.alpha": torch.tensor(2.0),
        },
    }
    reference = diffusers(scene.flux_folder)
    latents, one = random(1, 16, 8, 16), torch.tensor([0.6])
    text = guided(reference, PROMPTS[:1])
    plain = scene.flux.denoise(latents, one, text)
    found = {}
    for name, state in files.items():
        path = scene.folder / f"{name}.safetensors"
        save_file(state, path)
        ours = scene.flux.with_lora(path).denoise(latents, one, text)
        theirs = reference.with_lora(path).denoise(latents, one, text)
        found[name] = {"gap": gap(ours, theirs), "changed": gap(ours, plain)}
    return found


@check
def predictions_can_be_used_with_gradients(scene: Scene) -> dict[str, Any]:
    text = guided(scene.flux, PROMPTS[:1])
    with torch.inference_mode(False), torch.enable_grad():
        latents = random(1, 16, 8, 16).requires_grad_()
        denoised = scene.flux.denoise(latents, torch.tensor([0.5]), text)
        ((latents - denoised) ** 2).sum().backward()
    return {"is_inference": denoised.is_inference(), "gradient": float(latents.grad.abs().max())}


@check
def patches_of_other_nodes_act(scene: Scene) -> dict[str, Any]:
    model, clip, vae = scene.flux_parts
    patched = model.clone()
    calls = []

    def wrapper(apply: Any, arguments: dict[str, Any]) -> torch.Tensor:
        calls.append(arguments["cond_or_uncond"])
        return 2 * apply(arguments["input"], arguments["timestep"], **arguments["c"])

    patched.set_model_unet_function_wrapper(wrapper)
    latents, one = random(1, 16, 8, 16), torch.tensor([0.5])
    text = guided(scene.flux, PROMPTS[:1])
    doubled = native((patched, clip, vae)).denoise(latents, one, text)
    return {
        "gap": gap(doubled, 2 * scene.flux.denoise(latents, one, text)),
        "calls": len(calls),
    }


@check
def comfyui_loads_the_models(scene: Scene) -> dict[str, Any]:
    """Which models ComfyUI was asked to make room for, and how often a hint was encoded."""
    import comfy.model_management as management
    from lift3d.core.diffusion.model import Control

    model, clip, vae = scene.flux_parts
    network = scene.flux.load_control(scene.control_file)
    loaded: set[int] = set()
    encoded: list[int] = []
    load, encode = management.load_models_gpu, vae.encode

    def spy_load(models: Any, *args: Any, **kwargs: Any) -> Any:
        loaded.update(id(patcher.model) for patcher in models)
        return load(models, *args, **kwargs)

    def spy_encode(pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(pixels.shape[0])
        return encode(pixels)

    management.load_models_gpu, vae.encode = spy_load, spy_encode
    try:
        text = guided(scene.flux, PROMPTS[:1])
        picture = torch.rand(1, 64, 128, 3, generator=torch.Generator().manual_seed(2))
        controls = (Control(network, picture, mode=1),)
        for _ in range(3):
            told = dataclasses.replace(text, controls=controls)
            scene.flux.denoise(random(1, 16, 8, 16), torch.tensor([0.5]), told)
        other = dataclasses.replace(controls[0], image=1 - picture)
        told = dataclasses.replace(text, controls=(other,))
        scene.flux.denoise(random(1, 16, 8, 16), torch.tensor([0.5]), told)
        scene.flux.encode_image(picture.clone().requires_grad_())
    finally:
        management.load_models_gpu = load
        del vae.encode
    wanted = {
        "model": model.model,
        "clip": clip.cond_stage_model,
        "control": network.network.control_model,
        "vae": vae.first_stage_model,
        "gradient copy": scene.flux._encoder.patcher.model,
    }
    return {
        "loaded": [name for name, module in wanted.items() if id(module) in loaded],
        "hints_encoded": len(encoded),
    }


@check
def union_modes(scene: Scene) -> dict[str, Any]:
    from comfy_extras.nodes_controlnet import SetUnionControlNetType
    from lift3d.nodes.native import SetControlMode

    network = scene.flux.load_control(scene.control_file).network
    ours = SetControlMode.execute(network, "tile").result[0]
    stock = SetUnionControlNetType.execute(network, "tile").result[0]
    seen = []
    forward = network.control_model.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs.get("control_type"))
        return forward(*args, **kwargs)

    network.control_model.forward = spy
    from lift3d.core.diffusion.model import Control

    picture = torch.rand(1, 64, 128, 3, generator=torch.Generator().manual_seed(2))
    control = Control(scene.flux.load_control(scene.control_file), picture, mode=1)
    control = dataclasses.replace(control, network=type(control.network)(network))
    text = dataclasses.replace(guided(scene.flux, PROMPTS[:1]), controls=(control,))
    scene.flux.denoise(random(1, 16, 8, 16), torch.tensor([0.5]), text)
    return {
        "ours": ours.extra_args["control_type"],
        "stock": stock.extra_args["control_type"],
        "original": network.extra_args.get("control_type"),
        "sent": seen[0],
    }
