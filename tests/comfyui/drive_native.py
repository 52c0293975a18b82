"""Measures `NativeModel` inside a ComfyUI process and writes the numbers into a report.

Runs in a process of its own: python drive_native.py JOB.json REPORT.json, like `drive_comfyui`. Each
check is a function that returns what it measured; the tests beside this file judge it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import tiny_native  # noqa: E402
import torch  # noqa: E402
from drive_comfyui import start_comfyui  # noqa: E402

PROMPTS = ["A grid of 2x4 views. a red mug with a handle", "a tall blue chair"]
SHAPE = (2, 8, 16)  # entries, latent rows and columns
CHECKS: list[Callable[[Scene], Any]] = []


def check(function: Callable[[Scene], Any]) -> Callable[[Scene], Any]:
    """Register a check."""
    CHECKS.append(function)
    return function


@dataclasses.dataclass
class Scene:
    """The models of one run, loaded in inference mode as ComfyUI's executor does."""

    folder: Path
    comfyui: Path

    def __post_init__(self) -> None:
        self.flux_folder = tiny_native.write_flux(self.folder / "flux", self.comfyui)
        self.lora = tiny_native.write_peft_lora(self.folder / "lora.safetensors", self.flux_folder)
        self.control_folder = tiny_native.write_flux_control(self.folder / "control")
        with torch.inference_mode():
            self.flux_parts = tiny_native.load_flux(self.flux_folder)
        self.flux = native(self.flux_parts)

    def stable_diffusion(self, name: str, **kind: bool) -> tuple[Path, Any]:
        """Folder and native model of a Stable Diffusion of a kind."""
        folder = self.folder / name
        if not folder.exists():
            tiny_native.write_sd(folder, self.comfyui, **kind)
        with torch.inference_mode():
            return folder, native(tiny_native.load_sd(folder, **kind))

    @property
    def control_file(self) -> Path:
        """The ControlNet's weights."""
        return next(self.control_folder.glob("*.safetensors"))


def native(parts: tuple[Any, Any, Any], **more: Any) -> Any:
    """NativeModel of MODEL, CLIP and VAE."""
    from lift3d.nodes.native_model import NativeModel

    return NativeModel(*parts, **more)


def diffusers(folder: Path) -> Any:
    """The same weights through diffusers."""
    from lift3d.core.diffusion.diffusers_model import load_diffusers_model

    return load_diffusers_model(folder, dtype=torch.float32, device="cpu")


def gap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    scale = float(second.abs().max())
    return float((first - second).abs().max()) / max(scale, 1e-12)


def random(*shape: int, seed: int = 5) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def guided(model: Any, prompts: list[str], pooled: list[str] | None = None) -> Any:
    """Conditioning with a guidance scale."""
    conditioning = model.encode_text(prompts, pooled_prompts=pooled)
    return dataclasses.replace(conditioning, guidance=3.5)


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


def message_of(action: Callable[[], Any]) -> str:
    """Text of the ValueError that an action raises, or empty."""
    try:
        with torch.inference_mode():
            action()
    except ValueError as error:
        return str(error)
    return ""


def drive(job: dict[str, Any]) -> dict[str, Any]:
    """Run all checks."""
    torch.set_num_threads(1)
    start_comfyui(Path(job["comfyui"]), Path(job["folder"]))
    import run

    run.register_package()
    scene = Scene(Path(job["folder"]) / "tiny", Path(job["comfyui"]))
    report: dict[str, Any] = {}
    for function in CHECKS:
        try:
            report[function.__name__] = function(scene)
        except Exception:  # noqa: BLE001  (one failed check must not hide the others)
            report[function.__name__] = {"error": traceback.format_exc()}
    return report


if __name__ == "__main__":
    job_file, report_file = map(Path, sys.argv[1:3])
    done = drive(json.loads(job_file.read_text(encoding="utf-8")))
    report_file.write_text(json.dumps(done, indent=1, default=str), encoding="utf-8")
