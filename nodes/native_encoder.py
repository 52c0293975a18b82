"""Contains the image encoder of a ComfyUI VAE as gradients and ControlNets need it."""

from __future__ import annotations

import copy
import weakref
from typing import Any

from torch import Tensor

GRADIENT_MEMORY = 4.0
"""Share by which an encoding that keeps its activations needs more memory than one that does not
(an estimate; ComfyUI uses it to make room)."""


class GradientEncoder:
    """A copy of the VAE through which gradients flow.

    ComfyUI loads weights in inference mode; such tensors can take no part in gradients. The copy is
    made outside it, on first use, and ComfyUI manages its memory like any other model's.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.patcher: Any = None

    def encode(self, images: Tensor) -> Tensor:
        """Encoder latents of images that need a gradient."""
        import comfy.model_management

        vae = self.vae
        self._prepare()
        pixels = vae.process_input(images.movedim(-1, 1))
        memory = GRADIENT_MEMORY * vae.memory_used_encode(pixels.shape, vae.vae_dtype)
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory)
        return self.patcher.model.encode(pixels.to(vae.device, vae.vae_dtype))

    def _prepare(self) -> None:
        import comfy.model_patcher

        if self.patcher is not None:
            if not any(value.is_inference() for value in self.patcher.model.parameters()):
                return
            module = copy.deepcopy(self.patcher.model)  # another node's run moved it meanwhile
        elif self.vae.patcher.is_dynamic():
            module = self._loaded_again()
        else:
            module = copy.deepcopy(self.vae.first_stage_model)
        module.requires_grad_(False)
        self.patcher = comfy.model_patcher.ModelPatcher(
            module, self.vae.patcher.load_device, self.vae.patcher.offload_device
        )

    def _loaded_again(self) -> Any:
        """The network read anew: weights in dynamic video memory are not ordinary tensors."""
        patcher = self.vae.patcher
        if getattr(patcher, "cached_patcher_init", None) is None:
            raise ValueError(
                "The VAE lies in ComfyUI's dynamic video memory, and its loader cannot make a copy "
                "that gradients pass through. Load it with 'Load VAE' or 'Load Checkpoint', or "
                "start ComfyUI with --disable-dynamic-vram."
            )
        return patcher.clone(disable_dynamic=True).model


class RememberedHints:
    """Encodes the pictures of ControlNets that work on latents, each picture once.

    ComfyUI forgets an encoded picture at the end of a run, and here every evaluation is a run.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.known: dict[int, dict[tuple[int, ...], Tensor]] = {}

    def encoder_of(self, picture: Tensor) -> Any:
        """A VAE, as far as ControlNets use one, for this picture."""
        key = id(picture)
        if key not in self.known:
            self.known[key] = {}
            weakref.finalize(picture, self.known.pop, key, None)
        return _HintEncoder(self.vae, self.known[key])


class _HintEncoder:
    def __init__(self, vae: Any, known: dict[tuple[int, ...], Tensor]) -> None:
        self.vae = vae
        self.known = known
        self.spacial_compression_encode = vae.spacial_compression_encode  # ComfyUI's spelling

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of the picture at the size of ``pixels``."""
        size = tuple(pixels.shape)
        if size not in self.known:
            self.known[size] = self.vae.encode(pixels)
        return self.known[size]
