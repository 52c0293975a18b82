"""Contains how well neighbouring views of one object agree about its surface.

Points of a mesh that both of two neighbouring views see are looked up in both. In perfect views
they have the same colour and the same world normal. The mesh is the one rebuilt from the views, so
its error is part of the figure: compare with the figure of true views treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_shape
from ..camera import ViewRig
from ..geometry.transforms import normalize
from ..mesh import Mesh
from ..rendering.observation import Observation, observe_points, sample_view
from ..rendering.projection_params import VertexProjectionParams
from ..rendering.visibility import view_geometry
from .mesh_metrics import sample_surface

RASTER_PX = 256
NUM_POINTS = 20_000


@dataclass(frozen=True)
class ViewConsistency:
    """Agreement of neighbouring views; NaN where no point is seen by two of them.

    Attributes:
        color_error: mean absolute difference of colours, 0..1.
        normal_error_deg: mean angle between world normals.
        shared_points: points that were compared, over all pairs.
    """

    color_error: float
    normal_error_deg: float
    shared_points: int


@torch.no_grad()
def view_consistency(
    mesh: Mesh,
    rgb_views: Float[Tensor, "view height width 3"],
    normals_world: Float[Tensor, "view height width 3"],
    masks: Float[Tensor, "view height width"],
    rig: ViewRig,
    *,
    num_points: int = NUM_POINTS,
    seed: int = 0,
) -> ViewConsistency:
    """Compare each view with the next one round the object.

    Args:
        mesh: surface shown by the views.
        rgb_views: colours, 0..1.
        normals_world: unit world normals inside the masks.
        masks: coverage.
        rig: cameras in order round the object.
        num_points: drawn from the surface.
        seed: of the points.
    """
    require_shape("rgb_views", rgb_views, len(rig), None, None, 3)
    require_shape("normals_world", normals_world, *rgb_views.shape)
    samples = sample_surface(mesh, num_points, seed=seed)
    geometry = view_geometry(mesh, rig, width=RASTER_PX, height=RASTER_PX, masks=masks)
    params = VertexProjectionParams()
    seen = [observe_points(samples.points, samples.normals, view, params) for view in geometry]
    colors, angles = [], []
    for first in range(len(rig)):
        second = (first + 1) % len(rig)
        if second == first:
            continue
        here, there = _shared(seen[first], seen[second], num_points)
        color = [sample_view(rgb_views[v], xy) for v, xy in ((first, here), (second, there))]
        colors.append((color[0] - color[1]).abs().mean(dim=1))
        normal = [
            normalize(sample_view(normals_world[v], xy))
            for v, xy in ((first, here), (second, there))
        ]
        cosines = (normal[0] * normal[1]).sum(dim=1).clamp(-1, 1)
        angles.append(torch.rad2deg(torch.acos(cosines)))
    all_colors, all_angles = torch.cat(colors), torch.cat(angles)
    return ViewConsistency(
        float(all_colors.mean()), float(all_angles.mean()), int(all_colors.numel())
    )


def _shared(first: Observation, second: Observation, count: int) -> tuple[Tensor, Tensor]:
    """Places in both pictures of the points that both see."""
    place = torch.full((count,), -1, dtype=torch.long)
    place[second.index] = torch.arange(len(second.index))
    found = place[first.index]
    kept = found >= 0
    return first.image_xy[kept], second.image_xy[found[kept]]
