"""The models that `drive_native` measures, and small helpers of its checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_native
import torch

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


def message_of(action: Callable[[], Any]) -> str:
    """Text of the ValueError that an action raises, or empty."""
    try:
        with torch.inference_mode():
            action()
    except ValueError as error:
        return str(error)
    return ""
