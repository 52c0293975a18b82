"""Contains what is attached to ComfyUI's models: LoRA files and the modes of ControlNets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.diffusion.controls import UNION_MODES
from ..core.diffusion.lora_files import read_lora

SDXL_UNION_MODES: dict[str, int] = {
    "pose": 0, "depth": 1, "soft edge": 2, "canny": 3, "normal": 4, "segment": 5, "tile": 6,
    "repaint": 7,
}  # fmt: skip
"""Modes of the published union network for SDXL."""


@dataclass(frozen=True)
class NativeControl:
    """A CONTROL_NET of ComfyUI as `Control.network`.

    Attributes:
        network: the CONTROL_NET.
        name: for messages.
    """

    network: Any
    name: str = "CONTROL_NET"

    def __post_init__(self) -> None:
        if not hasattr(self.network, "set_cond_hint"):
            raise ValueError(
                f"Expected a CONTROL_NET of ComfyUI, got a {type(self.network).__name__}; connect "
                "the node 'Load ControlNet Model'."
            )

    @property
    def num_modes(self) -> int | None:
        """Modes of a union network, None for one of a single purpose."""
        inner = getattr(self.network, "control_model", None)
        added = getattr(inner, "control_add_embedding", None)  # the union network of SDXL
        modes = getattr(inner, "num_union_modes", 0) or getattr(added, "num_control_type", 0)
        return int(modes) or None

    @property
    def modes(self) -> Mapping[str, int]:
        """Names of the modes: the union networks of Flux and of SDXL count differently."""
        is_flux = bool(getattr(self.network.control_model, "num_union_modes", 0))
        return UNION_MODES if is_flux else SDXL_UNION_MODES

    def require_mode(self, mode: int | None) -> None:
        """Check that the network has the mode.

        Raises:
            ValueError: it has not, or a union network is asked without one.
        """
        modes = self.num_modes
        if modes is None:
            if mode is not None:
                raise ValueError(
                    f"'{self.name}' has no modes, but mode {mode} was asked for; connect the union "
                    "ControlNet, or choose no mode."
                )
            return
        if mode is None or not 0 <= mode < modes:
            known = ", ".join(f"{n} {i}" for n, i in self.modes.items() if i < modes)
            raise ValueError(
                f"'{self.name}' is a union ControlNet with modes 0..{modes - 1} ({known}), but "
                f"mode {mode} was asked for; choose one of them."
            )


def control_from_link(value: Any) -> Any:
    """`Control.network` of a link: ComfyUI's CONTROL_NET wrapped, our own handles as they are."""
    return NativeControl(value) if hasattr(value, "set_cond_hint") else value


def set_control_mode(network: Any, kind: str) -> Any:
    """Copy of a CONTROL_NET that is asked in the mode for pictures of this kind.

    ComfyUI's own node counts as SDXL's union network does, whatever the network: for Flux its
    "tile" selects "low quality".

    Raises:
        ValueError: the network is no union of modes, or lacks this one.
    """
    control = NativeControl(network)
    if control.num_modes is None:
        raise ValueError(
            "This ControlNet has no modes; it is no union network. Connect it directly instead."
        )
    mode = control.modes.get(kind)
    if mode is None:
        raise ValueError(
            f"This union ControlNet has no mode '{kind}'; it knows {', '.join(control.modes)}."
        )
    control.require_mode(mode)
    changed = network.copy()
    changed.set_extra_arg("control_type", [mode])
    return changed


def patched_with_lora(model: Any, clip: Any, path: Path, strength: float) -> tuple[Any, Any]:
    """Clones of MODEL and CLIP with the patches of a LoRA file.

    ComfyUI's own reader comes first, which knows more kinds (LoHa, LoKr, DoRA) than `read_lora`;
    the latter adds dialects whose keys ComfyUI does not map (XLabs).
    """
    import comfy.lora
    import comfy.lora_convert
    import comfy.utils

    names = comfy.lora.model_lora_keys_unet(model.model, {})
    names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
    state = comfy.lora_convert.convert_lora(comfy.utils.load_torch_file(str(path), safe_load=True))
    patches = comfy.lora.load_lora(state, names, log_missing=False)
    if not patches:
        layers = read_lora(path).layers
        state = {
            f"diffusion_model.{name}.lora_{half}.weight": getattr(layer, half)
            for name, layer in layers.items()
            for half in ("down", "up")
        }
        patches = comfy.lora.load_lora(state, names, log_missing=False)
    _require_fitting(patches, model, clip, path)
    patched, patched_clip = model.clone(), clip.clone()
    patched.add_patches(patches, strength)
    patched_clip.add_patches(patches, strength)
    return patched, patched_clip


def _require_fitting(patches: Mapping[Any, Any], model: Any, clip: Any, path: Path) -> None:
    """Check that LoRA patches meet layers of their size.

    Raises:
        ValueError: there are none, or one does not.
    """
    kind = type(model.model).__name__
    if not patches:
        raise ValueError(
            f"No layer of '{path.name}' belongs to this model ({kind}): it is a LoRA for another "
            "architecture, or in a form that is not known."
        )
    weights = {**model.model.state_dict(), **clip.cond_stage_model.state_dict()}
    for target, patch in patches.items():
        key, offset = (target, None) if isinstance(target, str) else target[:2]
        parts = getattr(patch, "weights", None)
        is_lora = getattr(patch, "name", "") == "lora" and parts[3] is None and parts[5] is None
        weight = weights.get(key)
        if not is_lora or weight is None or not weight.is_floating_point():
            continue  # packed weights do not show their size
        wanted = [weight.shape[0] if offset is None else offset[2], weight[0].numel()]
        found = [parts[0].shape[0], parts[1][0].numel()]
        if found != wanted:
            raise ValueError(
                f"'{path.name}' does not fit this model ({kind}): its change of '{key}' is of size "
                f"{found}, the layer of {wanted}. It is a LoRA for another architecture or size."
            )
