"""Contains the pushing of an outer layer out of an inner one, smoothly over its neighbourhood.

Symbols: a the inner vertex nearest to an outer vertex v, n its unit normal, u = (max((a - v) . n,
0) + margin) n the push that v needs. A vertex moves by the mean push of its nearest fellow
vertices, weighted by exp(-distance).

Reference: He et al. 2025, "StdGEN", Sec. 3.4 ("pre- and post-dilation"); released program.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .closest import closest_surface_points
from .collision import InnerSurface, points_inside
from .normals import vertex_normals

PUSH_ROUNDS = 3


@dataclass(frozen=True)
class DilationParams:
    """How far and how smoothly.

    Attributes:
        margin: distance from the inner surface that is aimed at, world units.
        neighbours: fellow vertices that share a push, the vertex itself included.
        reach: fellow vertices farther away than this do not count.
        fade: pushes fade between these distances from the inner layer, so that what is far from
            it, such as the end of a skirt, stays where it is; None pushes everything, as the
            released program does.
    """

    margin: float = 0.01
    neighbours: int = 25
    reach: float = 0.06
    fade: tuple[float, float] | None = (0.05, 0.1)

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.margin < 0 or not self.reach > 0:
            raise ValueError(
                "neighbours must be at least 1, margin not negative and reach positive; got "
                f"{self.neighbours}, {self.margin} and {self.reach}."
            )
        if self.fade is not None and not 0 <= self.fade[0] < self.fade[1]:
            raise ValueError(f"fade must be two growing distances, got {self.fade}.")


@torch.no_grad()
def dilate_layer(
    vertices: Float[Tensor, "vertex 3"], inner: InnerSurface, params: DilationParams | None = None
) -> Float[Tensor, "vertex 3"]:
    """Vertices of an outer layer moved out of the inner one and off its surface."""
    from scipy.spatial import cKDTree

    params = params or DilationParams()
    if not len(vertices):
        return vertices
    index = inner.nearest(vertices)
    offset, normals = inner.vertices[index] - vertices, inner.normals[index]
    height = (offset * normals).sum(dim=-1).clamp(min=0) + params.margin
    if params.fade is not None:
        near, far = params.fade
        height = height * ((far - offset.norm(dim=-1)) / (far - near)).clamp(0, 1)
    count = min(params.neighbours, len(vertices))
    places = vertices.cpu().numpy()
    distances, fellows = cKDTree(places).query(places, k=count)
    distances = torch.as_tensor(distances).to(vertices).reshape(-1, count)
    fellows = torch.as_tensor(fellows, device=vertices.device).reshape(-1, count)
    weights = torch.exp(-distances) * (distances <= params.reach)
    pushes = (height[:, None] * normals)[fellows]  # [vertex, fellow, 3]
    return vertices + (weights[..., None] * pushes).sum(dim=1) / weights.sum(dim=1, keepdim=True)


@torch.no_grad()
def push_out(
    points: Float[Tensor, "point 3"],
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    margin: float,
) -> Float[Tensor, "point 3"]:
    """Points that lie inside a closed mesh set above the nearest place of its surface.

    What the smooth push of `dilate_layer` leaves inside comes out; all other points stay.

    Args:
        points: vertices of an outer layer.
        vertices: of the inner one.
        faces: of the inner one.
        margin: height above the surface, world units. Where this leads into another fold of the
            mesh, a point is pushed again, `PUSH_ROUNDS` times in all.
    """
    normals = vertex_normals(vertices, faces)
    moved = points.clone()
    for _ in range(PUSH_ROUNDS):
        inside = points_inside(moved, vertices, faces)
        if not bool(inside.any()):
            break
        closest = closest_surface_points(moved[inside], vertices, faces)
        outward = torch.nn.functional.normalize(closest.interpolate(normals, faces), dim=-1)
        moved[inside] = closest.interpolate(vertices, faces) + margin * outward
    return moved
