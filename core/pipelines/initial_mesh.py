"""Contains the mesh that refinement starts from: a carved visual hull, a sphere or a given mesh."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..geometry.components import drop_small_components
from ..geometry.depth_carving import CarvingParams, carve_hull
from ..geometry.repair import is_manifold, repair_mesh
from ..geometry.visual_hull import VisualHullParams, visual_hull_sdf
from ..mesh import Mesh

InitialShape = Literal["carved_hull", "visual_hull", "sphere"]


@dataclass(frozen=True)
class InitialMeshParams:
    """How the initial mesh is made.

    Attributes:
        shape: the visual hull carved by the normal maps, the plain hull, or a sphere.
        carving: of the hull; holds the sampling of the plain hull too.
        min_part_area: parts with less of the total area are dropped.
        sphere_subdivisions: each makes four faces of one, from 20.
    """

    shape: InitialShape = "carved_hull"
    carving: CarvingParams = field(default_factory=CarvingParams)
    min_part_area: float = 0.003
    sphere_subdivisions: int = 4

    def __post_init__(self) -> None:
        if self.shape not in ("carved_hull", "visual_hull", "sphere"):
            raise ValueError(
                f"shape must be carved_hull, visual_hull or sphere, got '{self.shape}'."
            )


def make_initial_mesh(
    masks: Float[Tensor, "view height width"],
    normals_world: Float[Tensor, "view height width 3"],
    rig: ViewRig,
    params: InitialMeshParams = InitialMeshParams(),
) -> Mesh:
    """Watertight, manifold mesh to start from."""
    if params.shape == "sphere":
        return enclosed_sphere(masks, rig, params.sphere_subdivisions)
    grid = visual_hull_sdf(masks, rig, params.carving.hull)
    if params.shape == "carved_hull":
        grid = carve_hull(grid, masks, normals_world, rig, params.carving)
    mesh = grid.mesh("reconstruction")
    if mesh.is_empty:
        raise ValueError(
            "The silhouettes leave no solid that the grid can hold: raise the hull's resolution, "
            "or check the cameras and their radius."
        )
    return make_manifold(drop_small_components(mesh, min_area_fraction=params.min_part_area))


def make_manifold(mesh: Mesh) -> Mesh:
    """The mesh itself if it can be optimised, else a repaired copy without colours."""
    bare = Mesh(mesh.vertices, mesh.faces, name=mesh.name)
    return bare if is_manifold(mesh.faces) else repair_mesh(bare)


def enclosed_sphere(
    masks: Float[Tensor, "view height width"], rig: ViewRig, subdivisions: int = 4
) -> Mesh:
    """Sphere at the centre of the visual hull, with half its mean extent as radius."""
    hull = visual_hull_sdf(masks, rig, VisualHullParams(resolution=32))
    inside = hull.points()[hull.values < hull.cell]
    low, high = inside.amin(dim=0), inside.amax(dim=0)
    radius = float((high - low).mean()) / 2
    vertices, faces = icosphere(subdivisions)
    return Mesh(vertices.to(low) * radius + (low + high) / 2, faces.to(low.device), name="sphere")


def icosphere(subdivisions: int) -> tuple[Tensor, Tensor]:
    """Unit sphere from an icosahedron whose faces are divided in four again and again."""
    golden = (1 + 5**0.5) / 2
    corners = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    rows = [tuple(c[(i - shift) % 3] for i in range(3)) for shift in range(3) for c in corners]
    vertices = torch.tensor(rows)
    vertices = vertices / vertices.norm(dim=1, keepdim=True)
    faces = _hull_faces(vertices)
    for _ in range(subdivisions):
        vertices, faces = _divide(vertices, faces)
    return vertices, faces


def _hull_faces(vertices: Tensor) -> Tensor:
    """The 20 triangles of nearest corners of an icosahedron, counter-clockwise from outside."""
    near = torch.cdist(vertices, vertices) < 1.1
    triples = torch.combinations(torch.arange(len(vertices)), 3)
    a, b, c = triples.unbind(1)
    triples = triples[near[a, b] & near[b, c] & near[c, a]]
    a, b, c = vertices[triples].unbind(1)
    inverted = (torch.linalg.cross(b - a, c - a) * a).sum(dim=1) < 0
    return torch.where(inverted[:, None], triples.flip(1), triples)


def _divide(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
    edges, index = torch.unique(sides, dim=0, return_inverse=True)
    middle = vertices[edges].mean(dim=1)
    middle = middle / middle.norm(dim=1, keepdim=True)
    ab, bc, ca = (len(vertices) + index).reshape(3, -1)
    a, b, c = faces.unbind(1)
    rows = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
    return torch.cat([vertices, middle]), torch.cat([torch.stack(row, dim=1) for row in rows])
