"""A LoRA of our trainer in the real ComfyUI: every key is taken, with the right scale.

Set COMFYUI_PATH and COMFYUI_PYTHON as for test_comfyui.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_native
from lift3d.core.training.bundle_dataset import BundleDatasetParams
from lift3d.core.training.bundle_lora import BundleLoraParams, train_bundle_lora
from lift3d.core.training.dataset import DatasetParams
from lift3d.core.training.loop import LoopParams
from lift3d.core.training.lora_adapter import LoraParams

pytestmark = pytest.mark.comfyui
RANK, ALPHA = 4, 6.0
GROUPS = ("attention", "feed_forward", "modulation", "text")

# Loads base and LoRA as ComfyUI does, and a second model into which the LoRA was merged by hand.
DRIVER = """
import json, sys
sys.argv, arguments = sys.argv[:1], sys.argv[1:]
comfyui, tests, base, merged, lora = arguments
sys.path[:0] = [comfyui, tests]
import comfy.cli_args
comfy.cli_args.args.cpu = True
import torch, tiny_native, comfy.lora, comfy.utils, comfy.sd

def load(folder):
    from pathlib import Path
    state = tiny_native._weights(Path(folder) / "transformer")
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float32})

model, expected = load(base), load(merged)
plain = {key: value.clone() for key, value in model.model.state_dict().items()}
state = comfy.utils.load_torch_file(lora, safe_load=True)
keys = comfy.lora.model_lora_keys_unet(model.model, {})
patches = comfy.lora.load_lora(state, keys)
taken = model.add_patches(patches, 1.0)
model.patch_model(device_to=torch.device("cpu"))
wanted = expected.model.state_dict()
now = model.model.state_dict()
print("RESULT" + json.dumps({
    "pairs": sum(key.endswith("lora_A.weight") for key in state),
    "patches": len(patches),
    "taken": len(taken),
    "changed": max(float((now[k] - plain[k]).abs().max()) for k in plain),
    "error": max(float((now[k] - wanted[k]).abs().max()) for k in plain),
}))
"""


def merge_by_hand(folder: Path, lora: Path, target: Path) -> None:
    """Transformer with W + alpha / rank * B A."""
    from diffusers import FluxTransformer2DModel
    from safetensors.torch import load_file

    network = FluxTransformer2DModel.from_pretrained(folder / "transformer")
    state = load_file(lora)
    for key, down in state.items():
        if key.endswith(".lora_A.weight"):
            layer = key.removesuffix(".lora_A.weight")
            up = state[f"{layer}.lora_B.weight"]
            weight = network.get_submodule(layer.removeprefix("transformer.")).weight
            weight.data += ALPHA / RANK * (up.float() @ down.float())
    network.save_pretrained(target / "transformer")


def test_comfyui_patches_every_layer_as_if_merged_by_hand(tmp_path: Path) -> None:
    root = os.environ.get("COMFYUI_PATH")
    if not root:
        pytest.skip("needs a ComfyUI checkout: set COMFYUI_PATH (and COMFYUI_PYTHON)")
    base = tiny_native.write_flux(tmp_path / "base", Path(root))
    procedural = BundleDatasetParams(1, ("mug",), supersampling=1)
    params = BundleLoraParams(
        str(base),
        DatasetParams(tmp_path / "data", procedural=procedural),
        tmp_path / "run",
        wordings=1,
        dtype="float32",
        device="cpu",
        lora=LoraParams(RANK, ALPHA, GROUPS, (), "float32"),
        loop=LoopParams(steps=3, learning_rate=1e-2, warmup_steps=1),
    )
    train_bundle_lora(params, lambda progress: None)
    lora = tmp_path / "run" / "bundle_lora.safetensors"
    merge_by_hand(base, lora, tmp_path / "merged")
    done = subprocess.run(
        [
            os.environ.get("COMFYUI_PYTHON", sys.executable), "-c", DRIVER, root,
            str(Path(__file__).parent), str(base), str(tmp_path / "merged"), str(lora),
        ],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, done.stderr[-3000:]
    result = json.loads(lines[0].removeprefix("RESULT"))
    assert "lora key not loaded" not in done.stderr
    assert result["pairs"] == result["patches"] == result["taken"] == 23
    assert result["changed"] > 1e-3 and result["error"] < 1e-5
