"""Contains Pluecker coordinates of pixel rays: what tells a network where each pixel looks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from .transforms import pixel_rays


def pluecker_coordinates(
    origins: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 6"]:
    """(o x d, d) of rays: the same for every point of a ray taken as its origin.

    Args:
        origins: any point of each ray.
        directions: of unit length.
    """
    return torch.cat([torch.linalg.cross(origins, directions), directions], dim=-1)


def rig_rays(
    rig: ViewRig, *, width: int, height: int
) -> tuple[Float[Tensor, "view height width 3"], Float[Tensor, "view height width 3"]]:
    """Origins and unit directions of the rays through all pixel centres of all views."""
    rays = [pixel_rays(camera, width=width, height=height) for camera in rig]
    return torch.stack([origin for origin, _ in rays]), torch.stack([way for _, way in rays])


def rig_pluecker(rig: ViewRig, *, width: int, height: int) -> Float[Tensor, "view 6 height width"]:
    """Pluecker coordinates of all pixels of all views, channels first."""
    return pluecker_coordinates(*rig_rays(rig, width=width, height=height)).permute(0, 3, 1, 2)
