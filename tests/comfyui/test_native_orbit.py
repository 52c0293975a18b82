"""SV3D in ComfyUI by our conditioning, beside our own pipeline: one file of weights, same frames.

Needs COMFYUI_PATH and COMFYUI_PYTHON as the other tests here; the measuring is `drive_orbit.py`'s.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from orbit_scenes import make_tiny_unet, write_tiny_sv3d

pytestmark = pytest.mark.comfyui
SAMPLED = 2e-3


def write_lora(path: Path) -> Path:
    """Every matrix of a LoRA as geometric distillation writes it, with random values."""
    from lift3d.core.training.geometric_distillation import (
        OrbitLoraParams,
        add_orbit_lora,
        orbit_lora_state,
    )
    from safetensors.torch import save_file

    unet, params = make_tiny_unet(1280), OrbitLoraParams(2, 2.0, "float32")
    layers = add_orbit_lora(unet, params)
    generator = torch.Generator().manual_seed(4)
    for name, value in unet.named_parameters():
        if "lora_B" in name:
            value.data.copy_(0.3 * torch.randn(value.shape, generator=generator))
    save_file(orbit_lora_state(unet, layers, params), path)
    return path


@pytest.fixture(scope="session")
def orbit(drive, comfyui_root: Path) -> dict:
    def prepare(folder: Path) -> dict:
        return {
            "comfyui": str(comfyui_root),
            "checkpoint": str(write_tiny_sv3d(folder / "sv3d_p.safetensors")),
            "lora": str(write_lora(folder / "lora.safetensors")),
        }

    return drive("drive_orbit.py", prepare)


def test_both_draw_the_same_frames_with_poses_of_our_node(orbit) -> None:
    assert orbit["sampled"] < SAMPLED and orbit["size"] > 0.1
    assert orbit["levels"] < 1e-4 and orbit["cameras"] == 5


def test_comfyuis_lora_loader_takes_every_layer_and_changes_the_same(orbit) -> None:
    assert orbit["patched"] == orbit["lora_layers"] > 20
    assert orbit["changed"] > 0.01 and orbit["with_lora"] < SAMPLED
