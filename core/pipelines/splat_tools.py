"""Contains the edits of finished Gaussians: crop, prune, move, merge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..gaussian_cloud import GaussianCloud
from ..geometry.splat_frames import transform_gaussians
from ..geometry.transforms import quat_to_matrix

CropShape = Literal["box", "sphere"]


@dataclass(frozen=True)
class PruneParams:
    """Which Gaussians are removed.

    Attributes:
        min_opacity: fainter ones go.
        max_scale: larger ones go, in world units; infinity keeps all.
        min_scale: ones whose largest axis is smaller go.
        max_stretch: ones whose largest axis exceeds the middle one so many times go (needles).
        neighbour_distance: floaters: ones whose mean distance to their neighbours exceeds the
            average by so many standard deviations go; infinity keeps all.
        neighbours: number of neighbours looked at.
        max_gaussians: of what is left, the ones that show most are kept; 0 keeps all.
    """

    min_opacity: float = 0.02
    max_scale: float = math.inf
    min_scale: float = 0.0
    max_stretch: float = math.inf
    neighbour_distance: float = math.inf
    neighbours: int = 16
    max_gaussians: int = 0

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.max_gaussians < 0:
            raise ValueError(
                "neighbours must be at least 1 and max_gaussians not negative, got "
                f"{self.neighbours} and {self.max_gaussians}."
            )


def crop_splats(
    cloud: GaussianCloud,
    center: Sequence[float],
    size: Sequence[float],
    *,
    shape: CropShape = "box",
    keep: Literal["inside", "outside"] = "inside",
) -> GaussianCloud:
    """Gaussians whose centres lie inside (or outside) a box or an ellipsoid.

    Args:
        cloud: in the world frame.
        center: of the region.
        size: its full extent along each axis, positive.
        shape: an axis-aligned box, or the ellipsoid that fits into it.
        keep: which ones stay.

    Raises:
        ValueError: a size that is not positive, or nothing would be left.
    """
    if min(size) <= 0:
        raise ValueError(f"The size of the crop must be positive along each axis, got {size}.")
    if shape not in ("box", "sphere"):
        raise ValueError(f"shape must be box or sphere, got '{shape}'.")
    middle, half = cloud.means.new_tensor(list(center)), cloud.means.new_tensor(list(size)) / 2
    place = (cloud.means - middle) / half
    inside = place.abs().amax(dim=1) <= 1 if shape == "box" else place.norm(dim=1) <= 1
    return _kept(cloud, inside if keep == "inside" else ~inside, "The crop")


def prune_splats(cloud: GaussianCloud, params: PruneParams) -> GaussianCloud:
    """Gaussians without the faint, the huge, the tiny, the needles and the floaters.

    Raises:
        ValueError: nothing would be left.
    """
    scales = cloud.scales.sort(dim=1, descending=True).values
    good = cloud.opacities >= params.min_opacity
    good &= (scales[:, 0] <= params.max_scale) & (scales[:, 0] >= params.min_scale)
    good &= scales[:, 0] <= params.max_stretch * scales[:, 1].clamp(min=1e-12)
    left = _kept(cloud, good, "Pruning")
    if math.isfinite(params.neighbour_distance) and left.num_gaussians > params.neighbours:
        left = _kept(left, ~_stray(left.means, params), "Pruning")
    if params.max_gaussians and left.num_gaussians > params.max_gaussians:
        shown = left.opacities * left.scales.sort(dim=1).values[:, 1:].prod(dim=1)
        strongest = shown.argsort(descending=True, stable=True)[: params.max_gaussians]
        left = left.select(strongest.sort().values)
    return left


def _stray(means: Tensor, params: PruneParams) -> Bool[Tensor, " gaussian"]:
    from scipy.spatial import cKDTree

    points = means.detach().cpu().double().numpy()
    distances, _ = cKDTree(points).query(points, k=params.neighbours + 1, workers=-1)
    mean = torch.from_numpy(distances[:, 1:].mean(axis=1)).to(means)
    return mean > mean.mean() + params.neighbour_distance * mean.std()


def _kept(cloud: GaussianCloud, keep: Tensor, what: str) -> GaussianCloud:
    if not bool(keep.any()):
        raise ValueError(
            f"{what} would remove all {cloud.num_gaussians} Gaussians; loosen its limits."
        )
    return cloud.select(keep)


def placement_matrix(
    *,
    translation: Sequence[float] = (0.0, 0.0, 0.0),
    rotation_deg: Sequence[float] = (0.0, 0.0, 0.0),
    scale: float = 1.0,
) -> Float[Tensor, "4 4"]:
    """Matrix that scales, then turns about X, then Y, then Z, then moves.

    Raises:
        ValueError: a scale that is not positive.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be positive, got {scale}: Gaussians cannot be mirrored.")
    turn = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(rotation_deg):
        half = math.radians(angle) / 2
        quat = torch.zeros(4, dtype=torch.float64)
        quat[0], quat[1 + axis] = math.cos(half), math.sin(half)
        turn = quat_to_matrix(quat) @ turn
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * turn
    matrix[:3, 3] = torch.tensor(list(translation), dtype=torch.float64)
    return matrix


def move_splats(
    cloud: GaussianCloud, matrix: Float[Tensor, "4 4"], *, about_center: bool = False
) -> GaussianCloud:
    """Gaussians moved by a matrix; centres, rotations, scales and harmonics all follow.

    Args:
        cloud: in the world frame.
        matrix: rotation, uniform scale and translation.
        about_center: turn and scale about the middle of the cloud instead of the origin.
    """
    if about_center and cloud.num_gaussians:
        middle = (cloud.means.amin(dim=0) + cloud.means.amax(dim=0)).double().cpu() / 2
        back, forth = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
        back[:3, 3], forth[:3, 3] = -middle, middle
        matrix = forth @ matrix.double() @ back
    return transform_gaussians(cloud, matrix)


def center_splats(cloud: GaussianCloud, longest_side: float = 1.8) -> GaussianCloud:
    """Gaussians centred on the box of their centres, whose longest side becomes the given one.

    Raises:
        ValueError: all centres lie on one point.
    """
    low, high = cloud.means.amin(dim=0).double(), cloud.means.amax(dim=0).double()
    extent = float((high - low).max())
    if extent <= 0:
        raise ValueError("All Gaussians lie on one point; they cannot be scaled to a size.")
    scale = longest_side / extent
    shift = (-(low + high) / 2 * scale).tolist()
    return transform_gaussians(cloud, placement_matrix(translation=shift, scale=scale))


def merge_splats(clouds: Sequence[GaussianCloud]) -> GaussianCloud:
    """One cloud from several; colours of a lower degree get zeros for the missing coefficients.

    Raises:
        ValueError: there are none.
    """
    if not clouds:
        raise ValueError("merge_splats needs at least one cloud, got none.")
    widest = max(cloud.harmonics.shape[1] for cloud in clouds)
    device = clouds[0].means.device
    parts = [cloud.to(device) for cloud in clouds]
    return GaussianCloud(
        means=torch.cat([cloud.means for cloud in parts]),
        scales=torch.cat([cloud.scales for cloud in parts]),
        quats=torch.cat([cloud.quats for cloud in parts]),
        opacities=torch.cat([cloud.opacities for cloud in parts]),
        harmonics=torch.cat([_widened(cloud.harmonics, widest) for cloud in parts]),
    )


def _widened(harmonics: Tensor, coefficients: int) -> Tensor:
    missing = coefficients - harmonics.shape[1]
    return torch.cat([harmonics, harmonics.new_zeros(harmonics.shape[0], missing, 3)], dim=1)
