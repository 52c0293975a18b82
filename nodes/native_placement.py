"""Contains the placement of our own diffusion networks by ComfyUI's memory management."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

from ..core.diffusion.placement import plain_tensors

LARGE_NETWORK_BYTES = 2**30
ACTIVATION_SHARE = 0.15
"""Memory kept free for the activations of a large network, as a share of its weights."""


class ManagedPlacement:
    """ComfyUI decides which networks lie on the card and moves them away when others need room.

    Each network is loaded as a whole; ComfyUI's partial loading needs layers of its own.
    """

    def __init__(self) -> None:
        import comfy.model_management

        self.device: torch.device = comfy.model_management.get_torch_device()
        self._patchers: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()

    def prepare(self, network: nn.Module) -> None:
        """Ask ComfyUI to load the network unless it is there."""
        import comfy.model_management

        if next(network.parameters()).device == self.device:
            return
        patcher = self._patchers.get(network)
        if patcher is None:
            patcher = self._patchers[network] = _make_patcher(network, self.device)
        with plain_tensors():
            comfy.model_management.load_models_gpu(
                [patcher], memory_required=_activation_bytes(network), force_full_load=True
            )

    def changed(self, network: nn.Module) -> None:
        """Nothing to do: new layers are made where the old ones lie, and move with them."""


class _Held(nn.Module):
    """ComfyUI sets attributes such as ``device`` that networks of diffusers define otherwise."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def _make_patcher(network: nn.Module, device: torch.device) -> Any:
    import comfy.model_management
    import comfy.model_patcher

    return comfy.model_patcher.ModelPatcher(
        _Held(network), device, comfy.model_management.unet_offload_device()
    )


def _activation_bytes(network: nn.Module) -> int:
    size = sum(value.numel() * value.element_size() for value in network.parameters())
    return int(ACTIVATION_SHARE * size) if size > LARGE_NETWORK_BYTES else 0


def tokenizer_folders() -> dict[str, Any]:
    """Folders of the tokenizers that come with ComfyUI, for checkpoints in a single file."""
    from pathlib import Path

    import comfy.sd1_clip

    root = Path(comfy.sd1_clip.__file__).parent
    folders = {"clip": root / "sd1_tokenizer", "t5": root / "text_encoders" / "t5_tokenizer"}
    return {name: folder for name, folder in folders.items() if folder.is_dir()}
