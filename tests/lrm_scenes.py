"""A tiny large reconstruction model, and the numbers a reference implementation gave for it."""

from pathlib import Path

import numpy as np
import torch
from lift3d.core.networks.attention import merge_lora
from lift3d.core.networks.lrm import (
    LargeReconstructionModel,
    LrmGridParams,
    LrmParams,
    make_lrm,
)
from lift3d.core.networks.triplane_decoder import TriplaneDecoderParams
from lift3d.core.networks.triplane_transformer import TriplaneTransformerParams
from lift3d.core.networks.vision_encoder import VisionEncoderParams
from lift3d.core.networks.weights import load_weights
from lift3d.core.triplane import Triplane

LABELS = ("hair", "skin_1", "skin_2", "clothes")
TINY = LrmParams(
    frame="stdgen",
    image_px=80,
    encoder=VisionEncoderParams(
        dim=32, num_layers=2, num_heads=4, mlp_dim=128, patch_px=16, position_grid=3
    ),
    transformer=TriplaneTransformerParams(
        dim=64,
        condition_dim=32,
        num_layers=2,
        num_heads=4,
        low_res=4,
        num_channels=8,
        lora_rank=4,
    ),
    decoder=TriplaneDecoderParams(plane_channels=8, num_labels=4),
    grid=LrmGridParams(cells=(8, 8, 12), scale=(1.4, 1.4, 2.1)),
    label_names=LABELS,
)


def load_golden(shared_dir: Path, name: str) -> dict[str, torch.Tensor]:
    """Arrays of ``slrm_tiny_{name}.npz``."""
    with np.load(shared_dir / "goldens" / f"slrm_tiny_{name}.npz") as arrays:
        return {key: torch.tensor(arrays[key]) for key in arrays}


def golden_model(shared_dir: Path) -> LargeReconstructionModel:
    """The tiny model with the reference's weights, adapters merged."""
    model = make_lrm(TINY.without_lora())
    load_weights(model, merge_lora(load_golden(shared_dir, "weights")))
    return model.eval().requires_grad_(False)


def make_views(count: int = 3, side: int = 80, seed: int = 0) -> torch.Tensor:
    """Random pictures in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, side, side, 3, generator=generator)


def make_sphere_model(
    params: LrmParams, radius: float, plane_res: int = 64
) -> tuple[LargeReconstructionModel, Triplane]:
    """A model and planes whose SDF is x^2 + y^2 + z^2 - radius^2; its other heads are untrained.

    Channel 0 of each plane holds 1 - half the squared distance from its centre, so that the zeros
    beyond the planes lie outside.
    """
    model = make_lrm(params).eval().requires_grad_(False)
    centres = (torch.arange(plane_res) + 0.5) * 2 / plane_res - 1
    planes = torch.zeros(1, 3, params.decoder.plane_channels, plane_res, plane_res)
    planes[:, :, 0] = 1 - (centres[:, None] ** 2 + centres**2) / 2
    linears = [layer for layer in model.decoder.net_sdf if isinstance(layer, torch.nn.Linear)]
    for index, linear in enumerate(linears):
        linear.weight.zero_()
        linear.bias.zero_()
        step = params.decoder.plane_channels if index == 0 else linear.in_features
        linear.weight[0, ::step] = 1.0
    linears[-1].weight.neg_()
    linears[-1].bias.fill_(3 - radius**2)
    return model, Triplane(planes)


def make_lively_model(seed: int = 0) -> LargeReconstructionModel:
    """An untrained tiny model whose heads vary over the grid, so that there is a surface."""
    model = make_lrm(TINY.without_lora(), seed=seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.decoder.parameters():
        if parameter.ndim == 2:  # fresh heads are nearly constant
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model


TINY_PRM_CONFIG = """
frame: kiss3dgen
image_px: 32
encoder: {dim: 16, num_layers: 1, num_heads: 2, mlp_dim: 32, patch_px: 16, position_grid: 2}
transformer:
  {dim: 16, condition_dim: 16, num_layers: 2, num_heads: 2, low_res: 4, num_channels: 4}
decoder: {plane_channels: 4, has_material: true}
grid: {cells: [12, 12, 12], scale: [2.1, 2.1, 2.1]}
"""
"""Sizes of a tiny model with all parts of PRM, as a YAML file describes them."""


TINY_SLRM_CONFIG = """
frame: stdgen
image_px: 32
encoder: {dim: 16, num_layers: 1, num_heads: 2, mlp_dim: 32, patch_px: 16, position_grid: 2}
transformer:
  {dim: 16, condition_dim: 16, num_layers: 1, num_heads: 2, low_res: 4, num_channels: 4}
decoder: {plane_channels: 4, num_labels: 4}
grid: {cells: [20, 20, 30], scale: [1.4, 1.4, 2.1]}
label_names: [hair, skin_1, skin_2, clothes]
"""
"""Sizes of a tiny model with all parts of S-LRM."""


def write_tiny_slrm(path: Path, seed: int = 8) -> Path:
    """A random checkpoint of S-LRM, and the YAML file that describes it beside it.

    With the default seed body, clothes and hair have surfaces.
    """
    from lift3d.core.networks.lrm import read_lrm_params

    config = path.with_suffix(".yaml")
    config.write_text(TINY_SLRM_CONFIG, encoding="utf-8")
    model = make_lrm(read_lrm_params(config), seed=seed)
    torch.save(_with_lively_heads(model, seed).state_dict(), path)
    return path


def _with_lively_heads(model: LargeReconstructionModel, seed: int) -> LargeReconstructionModel:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            if parameter.ndim == 2:  # fresh heads are nearly constant
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        # A surface round the centre: outside far from the planes' random features.
        model.transformer.deconv.bias.normal_(generator=generator)
    return model


def write_tiny_prm(path: Path, *, lightning: bool = True, seed: int = 0) -> Path:
    """A random checkpoint with surfaces, and the YAML file that describes it beside it."""
    from lift3d.core.networks.lrm import read_lrm_params

    config = path.with_suffix(".yaml")
    config.write_text(TINY_PRM_CONFIG, encoding="utf-8")
    model = _with_lively_heads(make_lrm(read_lrm_params(config), seed=seed), seed)
    state = dict(model.state_dict())
    if lightning:
        wrapped = {f"lrm_generator.{key}": value for key, value in state.items()}
        torch.save({"state_dict": {**wrapped, "lpips.lin0.w": torch.zeros(1)}, "epoch": 3}, path)
    else:
        torch.save(state, path)
    return path
