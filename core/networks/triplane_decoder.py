"""Contains the heads that read features of a triplane: distance, colour, class, deformation.

Published checkpoints come in two stages: "mesh" with one network per quantity, and "nerf" with one
network for density and colour.

Reference: Xu et al. 2024, "InstantMesh", Sec. 3.3; He et al. 2025, "StdGEN", Sec. 3.3 (semantics).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Stage = Literal["mesh", "nerf"]

NUM_WEIGHT_LOGITS = 21
NUM_CORNERS = 8
WEIGHT_SCALE = 0.1
"""The published networks multiply what their weight head says by this."""
RGB_MARGIN = 0.001
"""Colours may reach a little beyond 0..1, so that the sigmoid need not saturate (Mip-NeRF)."""
MIN_ROUGHNESS = 0.0016


@dataclass(frozen=True)
class TriplaneDecoderParams:
    """Which heads there are, and their size.

    Attributes:
        stage: "mesh" or "nerf".
        plane_channels: features per plane; a head reads three times as many.
        hidden_dim: width of the hidden layers.
        num_layers: linear layers of each head.
        has_material: with a head for metallic and roughness (PRM).
        num_labels: semantic classes; 0 for no semantic head.
    """

    stage: Stage = "mesh"
    plane_channels: int = 80
    hidden_dim: int = 64
    num_layers: int = 4
    has_material: bool = False
    num_labels: int = 0

    def __post_init__(self) -> None:
        if self.stage not in ("mesh", "nerf"):
            raise ValueError(f"stage must be 'mesh' or 'nerf', got {self.stage!r}.")
        if self.num_layers < 2 or self.num_labels < 0:
            raise ValueError(
                "A head needs at least 2 layers and num_labels must not be negative, got "
                f"{self.num_layers} and {self.num_labels}."
            )


def _make_head(params: TriplaneDecoderParams, num_inputs: int, num_outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(num_inputs, params.hidden_dim), nn.ReLU()]
    for _ in range(params.num_layers - 2):
        layers += [nn.Linear(params.hidden_dim, params.hidden_dim), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(params.hidden_dim, num_outputs))


def _activate_rgb(raw: Tensor) -> Tensor:
    return torch.sigmoid(raw) * (1 + 2 * RGB_MARGIN) - RGB_MARGIN


class TriplaneDecoder(nn.Module):
    """Features of points to what is there; a head that the stage lacks raises ValueError."""

    def __init__(self, params: TriplaneDecoderParams):
        super().__init__()
        self.params = params
        num_features = 3 * params.plane_channels
        if params.stage == "nerf":
            self.net = _make_head(params, num_features, 4)
        else:
            self.net_sdf = _make_head(params, num_features, 1)
            self.net_rgb = _make_head(params, num_features, 3)
            if params.has_material:
                self.net_material = _make_head(params, num_features, 2)
            self.net_deformation = _make_head(params, num_features, 3)
            self.net_weight = _make_head(params, NUM_CORNERS * num_features, NUM_WEIGHT_LOGITS)
        if params.num_labels:
            self.semantic_net = _make_head(params, num_features, params.num_labels)

    def _head(self, name: str) -> nn.Module:
        if not hasattr(self, name):
            raise ValueError(
                f"This model (stage '{self.params.stage}', material={self.params.has_material}, "
                f"{self.params.num_labels} labels) has no head '{name}'; load one that has."
            )
        return getattr(self, name)

    def sdf(self, features: Float[Tensor, "*point feature"]) -> Float[Tensor, "*point"]:
        """Signed distance, negative inside; the unit is the network's own."""
        return self._head("net_sdf")(features).squeeze(-1)

    def deformation(self, features: Float[Tensor, "*point feature"]) -> Float[Tensor, "*point 3"]:
        """Displacement of a grid point before the tanh (`LrmGridParams.displacement`)."""
        return self._head("net_deformation")(features)

    def weight_logits(
        self, corner_features: Float[Tensor, "*cell corner=8 feature"]
    ) -> Float[Tensor, "*cell 21"]:
        """FlexiCubes logits of cells from the features of their corners."""
        return self._head("net_weight")(corner_features.flatten(-2)) * WEIGHT_SCALE

    def rgb(self, features: Float[Tensor, "*point feature"]) -> Float[Tensor, "*point 3"]:
        """Colour, sRGB; may reach 0.001 beyond 0..1."""
        return _activate_rgb(self._head("net_rgb")(features))

    def material(self, features: Float[Tensor, "*point feature"]) -> Float[Tensor, "*point 2"]:
        """Metallic 0..1 and roughness 0.0016..1."""
        metallic, roughness = torch.sigmoid(self._head("net_material")(features)).unbind(-1)
        return torch.stack([metallic, MIN_ROUGHNESS + (1 - MIN_ROUGHNESS) * roughness], dim=-1)

    def semantic_logits(
        self, features: Float[Tensor, "*point feature"]
    ) -> Float[Tensor, "*point label"]:
        """Class scores before the softmax."""
        return self._head("semantic_net")(features)

    def density_rgb(
        self, features: Float[Tensor, "*point feature"]
    ) -> tuple[Float[Tensor, "*point"], Float[Tensor, "*point 3"]]:
        """Density per unit, softplus(raw - 1), and colour of the "nerf" stage."""
        raw = self._head("net")(features)
        return nn.functional.softplus(raw[..., 0] - 1), _activate_rgb(raw[..., 1:])
