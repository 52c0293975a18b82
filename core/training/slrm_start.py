"""Contains the start of S-LRM's training from the weights of an earlier model or stage.

Adapters and the semantic head are new to a plain reconstruction model; a "mesh" stage takes its
distance and colour heads from the density network of a "nerf" stage.

Reference: Xu et al. 2024, "InstantMesh", Sec. 3.3: the distance begins as 10 minus the raw density.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..networks.lrm import KEY_PREFIX, LargeReconstructionModel
from ..networks.weights import read_weights

DECODER = "synthesizer.decoder."
SDF_OFFSET = 10.0
NEW_KEYS = re.compile(r"_lora_[AB]$|\.semantic_net\.|\.net_deformation\.|\.net_weight\.")
TRAINED_WITH_LORA = re.compile(r"_lora_[AB]$|^synthesizer\.|pos_embed$|\.deconv\.")
"""What is trained beside adapters: all heads, the planes' positions and their upsampling."""


def start_from(model: LargeReconstructionModel, path: Path | str) -> list[str]:
    """Copy the weights of a checkpoint into a model; the keys that it did not have.

    Raises:
        ValueError: something is missing that is not new in S-LRM, or has another shape.
    """
    path = Path(path)
    state = read_weights(path, prefix=KEY_PREFIX)
    if model.params.decoder.stage == "mesh":
        state = with_surface_heads(state)
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    lost = [key for key in missing if not NEW_KEYS.search(key)]
    misshaped = [key for key in own if key in state and state[key].shape != own[key].shape]
    if lost or misshaped:
        raise ValueError(
            f"{path.name} cannot start this model: it lacks {lost[:3] or 'nothing'} and has other "
            f"shapes for {misshaped[:3] or 'nothing'}. Check 'model' and 'initial'."
        )
    model.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
    return missing


def with_surface_heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State with heads of distance and colour made from a density network, if it has one."""
    made = dict(state)
    density = {
        key.removeprefix(f"{DECODER}net."): value
        for key, value in state.items()
        if key.startswith(f"{DECODER}net.")
    }
    if not density:
        return made
    last = max(int(key.split(".")[0]) for key in density)
    for key, value in density.items():
        del made[f"{DECODER}net.{key}"]
        is_last, is_bias = key.startswith(f"{last}."), key.endswith("bias")
        sdf = -value[:1] + (SDF_OFFSET if is_bias else 0.0) if is_last else value
        made[f"{DECODER}net_sdf.{key}"] = sdf.clone()
        made[f"{DECODER}net_rgb.{key}"] = (value[1:4] if is_last else value).clone()
    return made


def freeze_for_lora(model: LargeReconstructionModel) -> None:
    """Leave only adapters, heads, positions and upsampling to be trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(TRAINED_WITH_LORA.search(name)))


@torch.no_grad()
def count_trained(model: LargeReconstructionModel) -> int:
    """Numbers that training changes."""
    return sum(value.numel() for value in model.parameters() if value.requires_grad)
