"""Contains the map from texture pixels (texels) to the triangles that cover them.

A texel belongs to a triangle when its centre lies inside. Compiled on the CPU; elsewhere plain
torch lists the texels of every triangle's bounding box, in portions of bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..backends.probe import numba_problem
from ..mesh import Mesh

MAX_CANDIDATES = 4_000_000
EDGE_EPSILON = 1e-4
"""Texels closer than this share of a triangle to its border count for none in layer counts."""


@dataclass(frozen=True)
class UvReport:
    """What is wrong with the texture coordinates of a mesh, as shares of its faces or texels.

    Attributes:
        overlap_share: share of the covered texels that more than one triangle covers.
        outside_share: share of the faces that reach outside 0..1 or cross a tile border.
        degenerate_share: share of the surface area whose faces have no area in the texture.
        num_layers: largest number of triangles on one texel.
    """

    overlap_share: float
    outside_share: float
    degenerate_share: float
    num_layers: int

    def problems(self, *, max_overlap: float = 0.01, max_degenerate: float = 0.01) -> list[str]:
        """One sentence per reason why no picture can be baked onto these coordinates."""
        found = []
        if self.overlap_share > max_overlap:
            found.append(
                f"{self.overlap_share:.1%} of the covered texels belong to several places of the "
                "surface (mirrored or stacked islands)"
            )
        if self.outside_share > 0:
            found.append(f"{self.outside_share:.1%} of the faces cross the border of the texture")
        if self.degenerate_share > max_degenerate:
            found.append(f"{self.degenerate_share:.1%} of the surface has no area in the texture")
        return found


def count_layers(
    uvs: Float[Tensor, "vertex 2"], faces: Int64[Tensor, "face 3"], *, width: int, height: int
) -> Int64[Tensor, "height width"]:
    """Number of triangles that cover each texel's centre, both orientations counted."""
    if _compiled_kernels_fit(uvs):
        from ..backends.numba_cpu.runtime import run_kernel
        from ..backends.numba_cpu.texels import count_layers as kernel

        layers = np.zeros((height, width), dtype=np.int32)
        corners = _corners_px(uvs, faces, width, height).numpy()
        run_kernel(kernel, corners, layers, EDGE_EPSILON)
        return torch.from_numpy(layers).long()
    counts = torch.zeros(height * width, dtype=torch.int64, device=uvs.device)
    for texels, _ in _inside_texels(uvs, faces, width, height):
        counts.index_add_(0, texels, torch.ones_like(texels))
    return counts.reshape(height, width)


def overlapping_faces(
    uvs: Float[Tensor, "vertex 2"], faces: Int64[Tensor, "face 3"], *, width: int, height: int
) -> Bool[Tensor, " face"]:
    """True for faces that share a texel's centre with another face."""
    counts = count_layers(uvs, faces, width=width, height=height)
    involved = torch.zeros(len(faces), dtype=torch.bool, device=uvs.device)
    if int(counts.max()) <= 1:
        return involved
    if _compiled_kernels_fit(uvs):
        from ..backends.numba_cpu.runtime import run_kernel
        from ..backends.numba_cpu.texels import find_overlaps

        corners = _corners_px(uvs, faces, width, height).numpy()
        run_kernel(find_overlaps, corners, counts.int().numpy(), EDGE_EPSILON, involved.numpy())
        return involved
    for texels, face in _inside_texels(uvs, faces, width, height):
        involved[face[counts.reshape(-1)[texels] > 1]] = True
    return involved


def inspect_uvs(mesh: Mesh, *, resolution: int = 512) -> UvReport:
    """Find overlaps, coordinates outside the texture and faces without area in it.

    Args:
        mesh: a mesh with uvs.
        resolution: side of the raster on which overlaps are counted.

    Raises:
        ValueError: the mesh has no texture coordinates.
    """
    if mesh.uvs is None:
        raise ValueError("The mesh has no uvs to inspect; unwrap it first.")
    if mesh.is_empty:
        return UvReport(0.0, 0.0, 0.0, 0)
    uvs = move_islands_to_first_tile(mesh.uvs, mesh.faces)
    corners = uvs[mesh.faces]
    outside = ((corners < -1e-5) | (corners > 1 + 1e-5)).any(dim=2).any(dim=1)
    sides = mesh.vertices[mesh.faces]
    surface = torch.linalg.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0]).norm(dim=1)
    edges = corners[:, 1:] - corners[:, :1]
    flat = (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]).abs()
    degenerate = surface[flat < 1e-12].sum() / surface.sum().clamp(min=1e-30)
    layers = count_layers(uvs, mesh.faces[~outside], width=resolution, height=resolution)
    covered = int((layers > 0).sum())
    return UvReport(
        overlap_share=int((layers > 1).sum()) / max(covered, 1),
        outside_share=float(outside.float().mean()),
        degenerate_share=float(degenerate),
        num_layers=int(layers.max()),
    )


def move_islands_to_first_tile(
    uvs: Float[Tensor, "vertex 2"], faces: Int64[Tensor, "face 3"]
) -> Float[Tensor, "vertex 2"]:
    """Shift connected islands by whole tiles so that those that fit lie within 0..1.

    Repeating textures make the shift invisible. Islands wider than a tile keep reaching outside.
    """
    if not len(faces) or (float(uvs.min()) >= 0 and float(uvs.max()) <= 1):
        return uvs
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    corner = faces.cpu().numpy()
    rows, columns = corner[:, [0, 1]].ravel(), corner[:, [1, 2]].ravel()
    graph = coo_array((torch.ones(len(rows)).numpy(), (rows, columns)), shape=(len(uvs),) * 2)
    _, label = connected_components(graph, directed=False)
    islands = torch.as_tensor(label, dtype=torch.int64, device=uvs.device)
    index = islands[:, None].expand(-1, 2)
    lowest = torch.full((int(islands.max()) + 1, 2), torch.inf, dtype=uvs.dtype, device=uvs.device)
    lowest = lowest.scatter_reduce(0, index, uvs, reduce="amin")
    return uvs - (lowest + 1e-5).floor()[islands]


def _compiled_kernels_fit(uvs: Tensor) -> bool:
    return uvs.device.type == "cpu" and not numba_problem()


def _corners_px(uvs: Tensor, faces: Tensor, width: int, height: int) -> Tensor:
    """Triangle corners in pixels, texel centres at whole numbers, [F, 3, 2] float64."""
    size = torch.tensor([width, height], dtype=torch.float64, device=uvs.device)
    return uvs.detach()[faces].double() * size - 0.5


def _inside_texels(
    uvs: Tensor, faces: Tensor, width: int, height: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Portions of (flat texel index, face index) of covered centres, in bounded memory."""
    corners = _corners_px(uvs, faces, width, height)
    low = corners.amin(dim=1).ceil().long().clamp(min=0)
    limit = torch.tensor([width - 1, height - 1], device=uvs.device)
    high = torch.minimum(corners.amax(dim=1).floor().long(), limit)
    sizes = (high - low + 1).clamp(min=0)
    candidates = sizes[:, 0] * sizes[:, 1]
    kept = (candidates > 0).nonzero()[:, 0]
    ends = candidates[kept].cumsum(0)
    start = 0
    while start < len(kept):
        done = int(ends[start - 1]) if start else 0
        stop = int(torch.searchsorted(ends, done + MAX_CANDIDATES, right=True))
        stop = max(stop, start + 1)
        portion = kept[start:stop]
        counts = candidates[portion]
        face = portion.repeat_interleave(counts)
        first = (counts.cumsum(0) - counts).repeat_interleave(counts)
        offset = torch.arange(len(face), device=face.device) - first
        columns = low[face, 0] + offset % sizes[face, 0]
        rows = low[face, 1] + offset // sizes[face, 0]
        inside = _contains(corners[face], columns.double(), rows.double())
        yield (rows * width + columns)[inside], face[inside]
        start = stop


def _contains(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    a, b, c = corners.unbind(dim=1)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    safe = torch.where(area.abs() < 1e-12, torch.inf, area)
    u = ((b[:, 0] - x) * (c[:, 1] - y) - (c[:, 0] - x) * (b[:, 1] - y)) / safe
    v = ((c[:, 0] - x) * (a[:, 1] - y) - (a[:, 0] - x) * (c[:, 1] - y)) / safe
    return (u > EDGE_EPSILON) & (v > EDGE_EPSILON) & (1 - u - v > EDGE_EPSILON)
