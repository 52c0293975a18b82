"""Contains the fusion of overlapping shells into one watertight outer surface."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..geometry.isosurface import extract_isosurface
from ..geometry.normals import face_normals, vertex_normals
from ..geometry.voxelize import voxelize_solid
from ..mesh import Mesh

BAND_VOXELS = 2.5
MARGIN_VOXELS = 3
SAMPLES_PER_VOXEL = 3.0


def fuse_shells(mesh: Mesh, *, resolution: int = 96) -> Mesh:
    """One watertight, manifold mesh round the union of overlapping closed shells.

    Details thinner than about two voxels are lost and sharp edges become round. Vertex colours
    are those of the nearest visible surface, so they change within one voxel at part borders.

    Args:
        mesh: closed, outward-wound shells, with or without vertex colours.
        resolution: voxels along the longest side, 16..512; memory grows with its cube.

    Raises:
        ValueError: the mesh encloses nothing at this resolution.
    """
    from scipy.spatial import cKDTree

    if not 16 <= resolution <= 512:
        raise ValueError(f"resolution must lie within 16..512, got {resolution}.")
    low, high = mesh.bounds()
    voxel = float((high - low).max()) / resolution
    center, reach = (low + high) / 2, voxel * (resolution / 2 + MARGIN_VOXELS)
    low, high = center - reach, center + reach
    inside = voxelize_solid(mesh, low, high, resolution + 2 * MARGIN_VOXELS)
    if not bool(inside.any()):
        raise ValueError(
            f"The mesh encloses no voxel of size {voxel:.3g}; close its shells or raise resolution."
        )
    points, colors = _visible_samples(mesh, inside, low, voxel)
    tree = cKDTree(points.numpy())
    sdf = _signed_distance(inside, tree, low, voxel)
    vertices, faces = extract_isosurface(sdf, low + voxel / 2, high - voxel / 2)
    # Asked from a little outside, so that a thin layer hides the colour of what it lies on.
    outside = vertices + 0.75 * voxel * vertex_normals(vertices, faces)
    nearest = torch.from_numpy(tree.query(outside.numpy())[1])
    return Mesh(
        vertices=vertices,
        faces=faces,
        vertex_colors=None if colors is None else colors[nearest],
        material=mesh.material,
        name=mesh.name,
    )


def _visible_samples(
    mesh: Mesh, inside: Tensor, low: Float[Tensor, 3], voxel: float
) -> tuple[Tensor, Tensor | None]:
    # Points on the faces, fine against the voxels, without those inside other shells.
    face, weight = _sample_faces(mesh.vertices[mesh.faces], voxel / SAMPLES_PER_VOXEL)
    points = (mesh.vertices[mesh.faces[face]] * weight[..., None]).sum(dim=1)
    ahead = points + 0.9 * voxel * face_normals(mesh.vertices, mesh.faces)[face]
    cell = ((ahead - low) / voxel).floor().long().clamp(0, inside.shape[0] - 1)
    visible = ~inside[cell[:, 0], cell[:, 1], cell[:, 2]]
    colors = None
    if mesh.vertex_colors is not None:
        colored = mesh.vertex_colors[mesh.faces[face[visible]]]
        colors = (colored * weight[visible, :, None]).sum(dim=1)
    return points[visible], colors


def _sample_faces(
    corners: Float[Tensor, "face 3 3"], spacing: float
) -> tuple[Int64[Tensor, " sample"], Float[Tensor, "sample 3"]]:
    # Face and barycentric weights of points in rows parallel to the longest edge of each face.
    edges = corners.roll(-1, dims=1) - corners  # edge i runs from corner i to i + 1
    lengths = edges.norm(dim=-1)
    longest, first = lengths.max(dim=1)
    area = torch.linalg.cross(edges[:, 0], edges[:, 1]).norm(dim=-1)
    columns = (longest / spacing).ceil().clamp(min=1).long()
    rows = (area / longest.clamp(min=1e-12) / spacing).ceil().clamp(min=1).long()
    count = columns * rows
    face = torch.repeat_interleave(torch.arange(len(corners)), count)
    rank = torch.arange(len(face)) - (count.cumsum(0) - count)[face]
    along = (rank % columns[face] + 0.5) / columns[face]
    height = (rank // columns[face] + 0.5) / rows[face]
    start = (1 - height) * (1 - along)
    ordered = torch.stack([start, (1 - height) * along, height], dim=1)
    place = (torch.arange(3) - first[face, None]) % 3  # weight of corner k in the turned order
    return face, ordered.gather(1, place)


def _signed_distance(inside: Tensor, tree, low: Float[Tensor, 3], voxel: float) -> Tensor:
    # Exact near the surface, constant elsewhere: only the crossings matter.
    grown = torch.nn.functional.max_pool3d(inside[None].float(), 5, 1, 2)[0] > 0
    shrunk = torch.nn.functional.max_pool3d((~inside)[None].float(), 5, 1, 2)[0] == 0
    band = (grown & ~shrunk).nonzero()
    centers = low + (band + 0.5) * voxel
    distance, _ = tree.query(centers.numpy(), distance_upper_bound=BAND_VOXELS * voxel)
    sdf = torch.full(inside.shape, BAND_VOXELS * voxel)
    clipped = torch.from_numpy(np.minimum(distance, BAND_VOXELS * voxel)).float()
    sdf[band[:, 0], band[:, 1], band[:, 2]] = clipped.clamp(min=0.02 * voxel)
    return torch.where(inside, -sdf, sdf)
