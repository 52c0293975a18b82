"""Contains silhouette anti-aliasing: the derivative of coverage with respect to the vertices.

Edge-driven: every silhouette edge is walked over the pixel pairs whose connecting line it crosses,
and the outer pixel is blended with the inner one by the share that the edge covers. Because it
starts from the edges and not from the visible triangles, it keeps the full silhouette gradient
when triangles are as small as pixels and seen edge-on.

Reference: the blending of one pixel pair follows Laine et al. 2020 (arxiv.org/abs/2011.03277),
Sec. 3.3.3. Symbols: E edges, S silhouette edges over all views, X crossings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..backends.probe import Backend, choose_backend
from ..backends.torch_reference.mesh import exact_dtype
from ..backends.torch_reference.mesh_silhouette import cross_line, ends_on_screen
from ..geometry.sorting import stable_sort


@dataclass(frozen=True)
class EdgeTopology:
    """Edges of a mesh with the faces that meet there; reusable as long as the faces stay.

    Attributes:
        edges: the two vertices of each edge, lower index first.
        edge_faces: the first two faces at the edge; a boundary edge names its only face twice.
        edge_signs: +1 where that face runs from the lower to the higher vertex, else -1.
        extra: (edge, face, sign) of the third and further faces of non-manifold edges.
        num_faces: number of faces of the mesh it was built from.
    """

    edges: Int64[Tensor, "edge 2"]
    edge_faces: Int64[Tensor, "edge 2"]
    edge_signs: Int64[Tensor, "edge 2"]
    extra: Int64[Tensor, "extra 3"]
    num_faces: int


@dataclass(frozen=True)
class Crossings:
    """Where silhouette edges cross pixel pairs, at most one per pair and direction.

    Attributes:
        view: index of the view.
        ends: the two vertices of the edge.
        inner: flat index (over view, row, column) of the pixel that shows the object.
        outer: flat index of its neighbour beyond the edge.
        along_x: the two pixels are neighbours in one row, otherwise in one column.
    """

    view: Int64[Tensor, " crossing"]
    ends: Int64[Tensor, "crossing 2"]
    inner: Int64[Tensor, " crossing"]
    outer: Int64[Tensor, " crossing"]
    along_x: Bool[Tensor, " crossing"]


def build_topology(
    faces: Int64[Tensor, "face 3"], vertices: Float[Tensor, "vertex 3"] | None = None
) -> EdgeTopology:
    """Edges and the faces beside them; any mesh, open and non-manifold ones too.

    Args:
        faces: vertex indices.
        vertices: if given, vertices at one position count as one, so that texture seams are not
            mistaken for open borders.
    """
    ids = faces if vertices is None else _weld(vertices)[faces]
    num_faces = len(faces)
    start, end = ids.reshape(-1), ids.roll(-1, dims=1).reshape(-1)  # [3F], face by face
    names = torch.stack([faces.reshape(-1), faces.roll(-1, dims=1).reshape(-1)], dim=1)
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    count = int(ids.max()) + 1 if num_faces else 1
    key, order = stable_sort(low * count + high)
    face = order // 3
    sign = torch.where(start < end, 1, -1)[order]
    proper = (low != high)[order]  # collapsed faces have edges without length
    key, order, face, sign = key[proper], order[proper], face[proper], sign[proper]
    _, edge, uses = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    first = uses.cumsum(0) - uses
    second = first + (uses > 1).long()
    nth = torch.arange(len(key), device=faces.device) - first[edge]
    rest = nth >= 2
    ends = names[order[first]]
    ends = torch.where((sign[first] > 0)[:, None], ends, ends.flip(1))
    return EdgeTopology(
        edges=ends,
        edge_faces=torch.stack([face[first], face[second]], dim=1),
        edge_signs=torch.stack([sign[first], sign[second]], dim=1),
        extra=torch.stack([edge[rest], face[rest], sign[rest]], dim=1),
        num_faces=num_faces,
    )


def _weld(vertices: Tensor) -> Tensor:
    return torch.unique(vertices.detach(), dim=0, return_inverse=True)[1]


def antialias(
    image: Float[Tensor, "view height width channel"],
    rast: Float[Tensor, "view height width 4"],
    vertices_clip: Float[Tensor, "view vertex 4"],
    faces: Int64[Tensor, "face 3"],
    *,
    topology: EdgeTopology | None = None,
    backend: Backend = "auto",
) -> Float[Tensor, "view height width channel"]:
    """Blend pixel pairs along visible silhouettes by the share that the edge covers.

    Differentiable with respect to the image and, through the position of the edges, to
    ``vertices_clip``. Silhouettes are edges whose faces all lie on one side in the image: folds
    and open borders. Lines where faces cut through each other are not smoothed.

    Args:
        image: any channels drawn from ``rast``, such as colour over a background, or a mask.
        rast: raster of `rendering.mesh.rasterize`.
        vertices_clip: the positions the raster was drawn from.
        faces: the faces it was drawn from.
        topology: `build_topology` of the faces, to be reused while they stay the same.
        backend: which kernel finds the crossings; the blending is the same for all.
    """
    topology = topology or build_topology(faces)
    if topology.num_faces != len(faces):
        raise ValueError(
            f"The edge topology belongs to a mesh of {topology.num_faces} faces, got "
            f"{len(faces)}; call build_topology again after the faces changed."
        )
    if not len(faces):
        return image.clone()
    with torch.no_grad():
        crossings = find_crossings(
            rast.detach(), vertices_clip.detach(), faces, topology, backend=backend
        )
    return _blend(image, vertices_clip, crossings)


def find_crossings(
    rast: Float[Tensor, "view height width 4"],
    vertices_clip: Float[Tensor, "view vertex 4"],
    faces: Int64[Tensor, "face 3"],
    topology: EdgeTopology,
    *,
    backend: Backend = "auto",
) -> Crossings:
    """Crossings of visible silhouette edges with pixel pairs, the outermost of each pair."""
    name = choose_backend("mesh", rast.device, backend)
    if name == "numba":
        from ..backends.numba_cpu.mesh import find_silhouette_candidates
    else:
        from ..backends.torch_reference.mesh_silhouette import find_silhouette_candidates
    found, reach = find_silhouette_candidates(
        rast,
        vertices_clip,
        faces,
        topology.edges,
        topology.edge_faces,
        topology.edge_signs,
        topology.extra,
    )
    chosen = _outermost(found, reach)
    view, edge, inner, outer, along_x = found[chosen].unbind(dim=1)
    return Crossings(view, topology.edges[edge], inner, outer, along_x.bool())


def _outermost(found: Tensor, reach: Tensor) -> Tensor:
    """Indices of the items with the largest reach per pixel pair and direction, sorted by pair.

    Of crossings that reach equally far the first edge is taken.
    """
    _, _, inner, outer, along_x = found.unbind(dim=1)
    pair = inner * 4 + along_x * 2 + (outer < inner)
    order = torch.argsort(reach, descending=True, stable=True)
    order = order[torch.argsort(pair[order], stable=True)]
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = pair[order][1:] != pair[order][:-1]
    return order[first]


def _blend(image: Tensor, vertices_clip: Tensor, crossings: Crossings) -> Tensor:
    """Mix the two pixels of each crossing by the covered share; the differentiable part."""
    height, width = image.shape[1:3]
    rows = crossings.view[:, None] * vertices_clip.shape[1] + crossings.ends
    ends = _gather_rows(vertices_clip.reshape(-1, 4), rows.reshape(-1)).reshape(-1, 2, 4)
    points, _ = ends_on_screen(ends.to(exact_dtype(ends.device)), width, height)
    inner, outer, along_x = crossings.inner, crossings.outer, crossings.along_x
    row, column = inner // width % height, inner % width
    position, _ = cross_line(points, along_x, torch.where(along_x, row, column))
    centre = torch.where(along_x, column, row) + 0.5
    reach = torch.where(outer > inner, position - centre, centre - position)
    # The edge lies `reach` beyond the inner centre: past the middle it enters the outer pixel.
    share = reach - 0.5
    target = torch.where(share > 0, outer, inner)
    flat = image.reshape(-1, image.shape[-1])
    total = flat.new_zeros(len(flat)).index_add(0, target, share.detach().abs().to(flat.dtype))
    share = share.to(flat.dtype) / total[target].clamp(min=1)  # never more than the whole pixel
    inner_value, outer_value = _gather_rows(flat, torch.cat([inner, outer])).chunk(2)
    change = share[:, None] * (inner_value - outer_value)
    return flat.scatter_add(0, target[:, None].expand_as(change), change).reshape(image.shape)


def _gather_rows(values: Tensor, rows: Tensor) -> Tensor:
    # Unlike that of values[rows], the gradient of gather has a fixed order of summation.
    return values.gather(0, rows[:, None].expand(-1, values.shape[1]))
