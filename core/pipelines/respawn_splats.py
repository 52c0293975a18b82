"""Contains the moving of Gaussians that have faded to places where they are needed.

A fit that keeps its number of Gaussians loses those that became transparent: a thin object made
from a ball ends with a tenth of them. Here they reappear beside opaque large ones, which shrink, so
that the whole covers what it covered with finer parts.

Reference: Kheradmand et al. 2024, "3D Gaussian Splatting as Markov Chain Monte Carlo", relocation;
the sizes follow from the area instead of the exact integral.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..gaussian_cloud import GaussianCloud
from ..geometry.transforms import quat_to_matrix


def respawn_faint(
    cloud: GaussianCloud, *, min_opacity: float = 0.05, seed: int = 0
) -> GaussianCloud:
    """Move faint Gaussians to opaque ones, by chance in proportion to opacity times area.

    A Gaussian that n others join becomes n + 1 of 1 / (n + 1) of the area, spread over its place;
    together they cover somewhat more than it did.

    Args:
        cloud: as a fit left it; unchanged.
        min_opacity: fainter ones move.
        seed: of the choice and the places.

    Returns:
        As many Gaussians, in the same order; the same cloud if none or all are faint.
    """
    faint = (cloud.opacities < min_opacity).nonzero()[:, 0]
    alive = (cloud.opacities >= min_opacity).nonzero()[:, 0]
    if not len(faint) or not len(alive):
        return cloud
    generator = torch.Generator().manual_seed(seed)
    largest = cloud.scales[alive].sort(dim=1).values[:, 1:]
    weight = (cloud.opacities[alive] * largest.prod(dim=1)).cpu().double()
    picks = torch.multinomial(weight, len(faint), replacement=True, generator=generator)
    parents = alive[picks.to(alive.device)]
    index = torch.arange(cloud.num_gaussians, device=faint.device)
    index[faint] = parents
    family = torch.bincount(index, minlength=cloud.num_gaussians)[index]
    moved = cloud.select(index)
    noise = torch.randn(cloud.num_gaussians, 3, generator=generator).to(cloud.means)
    noise = torch.where(family[:, None] > 1, noise, torch.zeros_like(noise))
    return GaussianCloud(
        means=moved.means + _in_world(noise * moved.scales, moved.quats),
        scales=moved.scales / family[:, None].to(moved.scales).sqrt(),
        quats=moved.quats,
        opacities=moved.opacities,
        harmonics=moved.harmonics,
    )


def _in_world(
    offsets: Float[Tensor, "gaussian 3"], quats: Float[Tensor, "gaussian 4"]
) -> Float[Tensor, "gaussian 3"]:
    return (quat_to_matrix(quats) @ offsets[..., None])[..., 0]
