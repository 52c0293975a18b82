"""Our diffusion networks under ComfyUI's memory management, in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACK = HERE.parents[1]


def main(comfyui: str, folder: str, report: str) -> None:
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path[:0] = [comfyui, str(PACK), str(HERE.parent)]
    os.chdir(comfyui)
    import comfy.options

    comfy.options.enable_args_parsing()
    import run

    run.register_package()
    import comfy.model_management as management
    import tiny_models
    import torch
    from lift3d.core.diffusion.diffusers_model import load_diffusers_model
    from lift3d.core.diffusion.single_file import _tokenizer
    from lift3d.nodes import native_placement
    from safetensors.torch import save_file

    path = tiny_models.make_tiny_flux_folder(Path(folder) / "flux")
    name = "transformer.transformer_blocks.0.attn.to_q"
    lora = {f"{name}.lora_A.weight": torch.ones(2, 32), f"{name}.lora_B.weight": torch.ones(32, 2)}
    save_file(lora, Path(folder) / "lora.safetensors")
    found: dict[str, object] = {}
    with torch.inference_mode():
        model = load_diffusers_model(path, placement=native_placement.ManagedPlacement())
        text = model.encode_text(["a red mug"])
        latents, sigma = torch.randn(1, 16, 8, 8), torch.tensor([0.5])
        first = model.denoise(latents, sigma, text)
        network = model.parts.backbone.network
        patcher = native_placement._make_patcher(network, management.get_torch_device())
        management.load_models_gpu([patcher], force_full_load=True)
        found["loaded"] = len(management.current_loaded_models)
        found["while_loaded"] = torch.equal(model.denoise(latents, sigma, text), first)
        styled = model.with_lora(Path(folder) / "lora.safetensors")
        found["lora_acts"] = not torch.equal(styled.denoise(latents, sigma, text), first)
        management.unload_all_models()
        management.load_models_gpu([patcher], force_full_load=True)
        found["loaded_again"] = torch.equal(model.denoise(latents, sigma, text), first)
        management.unload_all_models()
        found["after_unload"] = torch.equal(model.denoise(latents, sigma, text), first)
    images = torch.rand(1, 32, 32, 3, requires_grad=True)
    model.encode_image(images).sum().backward()
    found["gradient"] = float(images.grad.abs().sum())
    folders = native_placement.tokenizer_folders()
    for kind in ("clip", "t5"):
        tokenizer = _tokenizer(Path(folder) / "none", kind, folders)
        found[kind] = tokenizer("a red mug").input_ids
    Path(report).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:4])
