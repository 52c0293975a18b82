"""Contains volume rendering: colour, alpha and depth of any field of density and colour.

A field maps points [point, 3] in the world to densities [point] (per world unit, >= 0) and colours
[point, 3]. Only what lies inside the cube [-bound, bound]^3 is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import Camera, ViewRig
from ..geometry.transforms import pixel_rays

DensityField = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class VolumeParams:
    """How rays are sampled.

    Attributes:
        num_samples: points per ray, in bins of equal length inside the cube.
        stratified: a random point of each bin (for training); else its middle.
        seed: of the random points.
        bound: half the side of the cube.
        background: colour behind the volume.
        max_points: points per call of the field; bounds the memory of one chunk of rays.
    """

    num_samples: int = 128
    stratified: bool = False
    seed: int = 0
    bound: float = 1.0
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    max_points: int = 1 << 19

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.max_points < 1 or not self.bound > 0:
            raise ValueError(
                "num_samples and max_points must be at least 1 and bound positive, got "
                f"{self.num_samples}, {self.max_points} and {self.bound}."
            )


@dataclass(frozen=True)
class VolumeRender:
    """Pictures of a field.

    Attributes:
        rgb: over the background.
        alpha: 0..1.
        depth: expected camera z of what is seen; 0 where nothing is.
    """

    rgb: Float[Tensor, "view height width 3"]
    alpha: Float[Tensor, "view height width"]
    depth: Float[Tensor, "view height width"]


def render_density(
    field: DensityField,
    rig: ViewRig,
    *,
    width: int,
    height: int,
    params: VolumeParams | None = None,
) -> VolumeRender:
    """Draw a field by absorption and emission; differentiable in field and camera poses.

    Reference: Mildenhall et al. 2020, "NeRF", Eq. 2-3 (stratified samples, alpha compositing).
    """
    params = params or VolumeParams()
    generator = torch.Generator().manual_seed(params.seed)
    views = [_render_view(field, camera, width, height, params, generator) for camera in rig]
    rgb, alpha, depth = (torch.stack(images) for images in zip(*views, strict=True))
    return VolumeRender(rgb, alpha, depth)


def _render_view(
    field: DensityField,
    camera: Camera,
    width: int,
    height: int,
    params: VolumeParams,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    rays = chunked_rays(camera, width, height, params)
    chunks = [
        _render_rays(field, origins, directions, camera, params, generator)
        for origins, directions in rays
    ]
    directions = torch.cat([ways for _, ways in rays])
    forward = -camera.camera_to_world[:3, 2]
    color_sum, alpha, distance_sum = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    rgb = color_sum + (1 - alpha)[:, None] * color_sum.new_tensor(params.background)
    seen = alpha > 1e-6
    distance = torch.where(seen, distance_sum / torch.where(seen, alpha, 1.0), 0.0)
    depth = distance * (directions @ forward)  # distance along the ray to camera z
    return rgb.reshape(height, width, 3), alpha.reshape(height, width), depth.reshape(height, width)


def chunked_rays(
    camera: Camera, width: int, height: int, params: VolumeParams
) -> list[tuple[Float[Tensor, "ray 3"], Float[Tensor, "ray 3"]]]:
    """Origins and directions of all pixels, row by row, in chunks of at most ``max_points``."""
    if width < 1 or height < 1:
        raise ValueError(f"Images need at least one pixel, got width={width}, height={height}.")
    origins, directions = (
        rays.reshape(-1, 3) for rays in pixel_rays(camera, width=width, height=height)
    )
    size = max(params.max_points // params.num_samples, 1)
    return list(zip(origins.split(size), directions.split(size), strict=True))


@dataclass(frozen=True)
class RaySamples:
    """Points along rays, in bins of equal length inside the cube.

    Attributes:
        points: in the world.
        distances: along the ray.
        bin_length: of each ray; 0 where the cube is missed.
    """

    points: Float[Tensor, "ray sample 3"]
    distances: Float[Tensor, "ray sample"]
    bin_length: Float[Tensor, " ray"]


def sample_rays(
    origins: Float[Tensor, "ray 3"],
    directions: Float[Tensor, "ray 3"],
    camera: Camera,
    params: VolumeParams,
    generator: torch.Generator,
) -> RaySamples:
    """Points at which a field is asked along rays of a camera."""
    near, far = _cube_crossings(origins, directions, params.bound, camera)
    bin_length = (far - near) / params.num_samples
    shape = (len(origins), params.num_samples)
    if params.stratified:
        inside = torch.rand(shape, generator=generator).to(origins)
    else:
        inside = origins.new_full(shape, 0.5)
    steps = torch.arange(params.num_samples, device=origins.device) + inside
    distances = near[:, None] + steps * bin_length[:, None]  # [R, S]
    points = origins[:, None] + distances[..., None] * directions[:, None]
    return RaySamples(points, distances, bin_length)


def _render_rays(
    field: DensityField,
    origins: Tensor,
    directions: Tensor,
    camera: Camera,
    params: VolumeParams,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of colour [R, 3] and of distance [R] weighted by visibility, and alpha [R]."""
    samples = sample_rays(origins, directions, camera, params, generator)
    shape = samples.distances.shape
    density, colors = field(samples.points.reshape(-1, 3))
    _check_field(density, colors, samples.distances.numel())
    optical = density.reshape(shape) * samples.bin_length[:, None]
    before = torch.cumsum(optical, dim=1) - optical
    weights = torch.exp(-before) * -torch.expm1(-optical)  # T_i (1 - exp(-density delta))
    color_sum = (weights[..., None] * colors.reshape(*shape, 3)).sum(dim=1)
    return color_sum, weights.sum(dim=1), (weights * samples.distances).sum(dim=1)


def _cube_crossings(
    origins: Tensor, directions: Tensor, bound: float, camera: Camera
) -> tuple[Tensor, Tensor]:
    """Distances at which rays enter and leave the cube, at least ``near``; equal if they miss."""
    tiny = torch.full_like(directions, 1e-12)
    safe = torch.where(directions.abs() < 1e-12, tiny, directions)
    low, high = (-bound - origins) / safe, (bound - origins) / safe
    enter = torch.minimum(low, high).amax(dim=1).clamp(min=camera.near)
    leave = torch.maximum(low, high).amin(dim=1).clamp(max=camera.far)
    missed = leave <= enter
    return enter, torch.where(missed, enter, leave)


def _check_field(density: Tensor, colors: Tensor, count: int) -> None:
    if density.shape != (count,) or colors.shape != (count, 3):
        raise ValueError(
            f"The field must return densities [{count}] and colours [{count}, 3] for {count} "
            f"points, got {list(density.shape)} and {list(colors.shape)}."
        )
