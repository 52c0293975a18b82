"""Contains the reading of a triplane at points in space."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..triplane import Triplane

PLANE_AXES = ((0, 1), (0, 2), (2, 1))
"""Axes of a point along the width and the height of each plane: (x, y), (x, z), (z, y)."""


def query_triplane(
    triplane: Triplane, points: Float[Tensor, "batch point 3"]
) -> Float[Tensor, "batch point feature"]:
    """Features of points, those of plane 0 first; differentiable in planes and points.

    Bilinear; sample centres lie half a sample inside the border (``align_corners`` False), and
    beyond the planes features fade to zero within half a sample.

    Args:
        triplane: planes over [-bound, bound]^3.
        points: in the frame of the planes.

    Reference: Chan et al. 2022, "EG3D", Sec. 4.1 (features are joined here instead of summed).
    """
    if points.shape[0] != triplane.planes.shape[0]:
        raise ValueError(
            f"The triplane holds {triplane.planes.shape[0]} samples, but points are given for "
            f"{points.shape[0]}."
        )
    scaled = points / triplane.bound
    features = []
    for plane, axes in enumerate(PLANE_AXES):
        sampled = torch.nn.functional.grid_sample(
            triplane.planes[:, plane],
            scaled[:, None, :, list(axes)],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # [batch, channel, 1, point]
        features.append(sampled[:, :, 0])
    return torch.cat(features, dim=1).transpose(1, 2)
