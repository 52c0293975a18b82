"""Contains the Gaussians that a distillation starts from: a ball, a sphere, points, a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..gaussian_cloud import GaussianCloud, color_to_harmonic
from ..mesh import Mesh
from .mesh_to_splat import neighbour_distances, splats_on_surface

StartShape = Literal["ball", "sphere", "hemisphere"]
MIN_SPACING = 3.2e-4  # square root of the published floor 1e-7


@dataclass(frozen=True)
class InitialSplatParams:
    """What the first Gaussians are like.

    Attributes:
        num_gaussians: in all.
        shape: a filled ball, a sphere, or its upper half; used without points or a mesh.
        radius: of the shape, in world units.
        opacity: of every Gaussian.
        grey: their colour.
        color_noise: standard deviation of random changes of it.
        sh_degree: of the colours.
        seed: of positions and colours.

    Reference: GE3D's released code: mid-grey, opacity 0.1, round, the size of the mean distance to
    three neighbours.
    """

    num_gaussians: int = 20_000
    shape: StartShape = "ball"
    radius: float = 0.7
    opacity: float = 0.1
    grey: float = 0.5
    color_noise: float = 0.02
    sh_degree: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_gaussians < 1 or not self.radius > 0:
            raise ValueError(
                "num_gaussians must be at least 1 and radius positive, got "
                f"{self.num_gaussians} and {self.radius}."
            )
        if self.shape not in ("ball", "sphere", "hemisphere"):
            raise ValueError(f"shape must be ball, sphere or hemisphere, got '{self.shape}'.")
        if not 0 < self.opacity < 1 or not 0 <= self.grey <= 1:
            raise ValueError(
                f"opacity must lie between 0 and 1 and grey within 0..1, got {self.opacity} and "
                f"{self.grey}."
            )
        if not 0 <= self.sh_degree <= 3:
            raise ValueError(f"sh_degree must be 0..3, got {self.sh_degree}.")


def splats_in_shape(params: InitialSplatParams) -> GaussianCloud:
    """Gaussians spread evenly over a simple shape round the origin."""
    generator = torch.Generator().manual_seed(params.seed)
    directions = torch.randn(params.num_gaussians, 3, generator=generator)
    directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-9)
    if params.shape == "hemisphere":
        directions[:, 1] = directions[:, 1].abs()
    points = params.radius * directions
    if params.shape == "ball":
        points = points * torch.rand(params.num_gaussians, 1, generator=generator) ** (1 / 3)
    return splats_at_points(points, None, params)


def splats_at_points(
    points: Float[Tensor, "point 3"],
    colors: Float[Tensor, "point 3"] | None,
    params: InitialSplatParams,
) -> GaussianCloud:
    """One round Gaussian at each point.

    Args:
        points: in the world frame; their number is kept.
        colors: sRGB 0..1; None takes the grey.
        params: opacity, colours and degree.

    Raises:
        ValueError: no points, or NaN among them.
    """
    require_shape("points", points, None, 3)
    require_finite("points", points)
    if not len(points):
        raise ValueError("There are no points to put Gaussians at.")
    generator = torch.Generator().manual_seed(params.seed + 1)
    base = torch.full_like(points, params.grey) if colors is None else colors.to(points)
    noise = torch.randn(points.shape, generator=generator).to(points)
    base = (base + params.color_noise * noise).clamp(0, 1)
    size = neighbour_distances(points).clamp(min=MIN_SPACING)
    rest = points.new_zeros(len(points), (params.sh_degree + 1) ** 2 - 1, 3)
    return GaussianCloud(
        means=points.detach().clone(),
        scales=size[:, None].expand(-1, 3).clone(),
        quats=points.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(points), 1),
        opacities=points.new_full((len(points),), params.opacity),
        harmonics=torch.cat([color_to_harmonic(base), rest], dim=1),
    )


def scattered_points(
    points: Float[Tensor, "point 3"], count: int, spread: float, seed: int = 0
) -> Float[Tensor, "scattered 3"]:
    """About ``count`` points: each given one several times, within a small ball round it.

    Reference: GE3D repeats each of 4096 Point-E points 20 times within a radius of 0.05.
    """
    times = max(round(count / max(len(points), 1)), 1)
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randn(len(points) * times, 3, generator=generator)
    lengths = torch.rand(len(offsets), 1, generator=generator) ** (1 / 3)
    offsets = spread * lengths * offsets / offsets.norm(dim=1, keepdim=True).clamp(min=1e-9)
    return points.repeat_interleave(times, dim=0) + offsets.to(points)


def splats_on_mesh(mesh: Mesh, params: InitialSplatParams, *, keep_colors: bool) -> GaussianCloud:
    """Gaussians on the surface of a mesh, opaque enough to see it and free to change.

    Args:
        mesh: in the world frame.
        params: number, opacity and grey.
        keep_colors: with the mesh's colours instead of the grey.
    """
    surface = splats_on_surface(
        mesh, params.num_gaussians, sh_degree=params.sh_degree, seed=params.seed
    )
    colors = surface.base_colors.clamp(0, 1) if keep_colors else None
    return splats_at_points(surface.means, colors, params)
