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

from ..backends.probe import Backend


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
    start, end = ids.T.reshape(-1), ids.roll(-1, dims=1).T.reshape(-1)  # [3F]
    names = torch.stack([faces.T.reshape(-1), faces.roll(-1, dims=1).T.reshape(-1)], dim=1)
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    count = int(ids.max()) + 1 if num_faces else 1
    key, order = torch.sort(low * count + high, stable=True)
    face = torch.arange(num_faces, device=faces.device).repeat(3)[order]
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
        crossings = find_crossings(rast.detach(), vertices_clip.detach(), faces, topology)
    return _blend(image, vertices_clip, crossings)


def find_crossings(
    rast: Float[Tensor, "view height width 4"],
    vertices_clip: Float[Tensor, "view vertex 4"],
    faces: Int64[Tensor, "face 3"],
    topology: EdgeTopology,
) -> Crossings:
    """Crossings of visible silhouette edges with pixel pairs, the outermost of each pair."""
    height, width = rast.shape[1:3]
    exact = vertices_clip.to(_exact_dtype(vertices_clip.device))
    view, edge, side = _silhouette_edges(exact, faces, topology)
    ends = topology.edges[edge]
    points, visible = _ends_on_screen(exact[view[:, None], ends], width, height)
    view, ends, side, points = view[visible], ends[visible], side[visible], points[visible]
    item, along_x, line = _crossed_lines(points, width, height)
    position, z = _cross_line(points[item], along_x, line)
    low = torch.floor(position - 0.5)
    size = torch.where(along_x, width, height)
    on_image = (low >= 0) & (low + 1 < size)
    item, along_x, line, position, z, low = (
        value[on_image] for value in (item, along_x, line, position, z, low.long())
    )
    delta = points[item, 1, :2] - points[item, 0, :2]
    # The inside lies left of the edge in device coordinates (y up) where `side` is positive.
    inner_is_high = torch.where(along_x, delta[:, 1], -delta[:, 0]) * side[item] > 0
    base = view[item] * (height * width)
    low_pixel = base + torch.where(along_x, line * width + low, low * width + line)
    high_pixel = low_pixel + torch.where(along_x, 1, width)
    inner = torch.where(inner_is_high, high_pixel, low_pixel)
    outer = torch.where(inner_is_high, low_pixel, high_pixel)
    reach = position - 0.5 - low  # distance of the edge from the inner pixel's centre
    reach = torch.where(inner_is_high, 1 - reach, reach)
    seen = _is_visible(rast, inner, outer, z)
    chosen = torch.nonzero(seen).squeeze(1)
    chosen = chosen[
        _outermost(inner[chosen] * 4 + along_x[chosen] * 2 + inner_is_high[chosen], reach[chosen])
    ]
    item = item[chosen]
    return Crossings(view[item], ends[item], inner[chosen], outer[chosen], along_x[chosen])


def _exact_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64


def _silhouette_edges(
    clip: Tensor, faces: Tensor, topology: EdgeTopology
) -> tuple[Tensor, Tensor, Tensor]:
    """View, edge and side (+1: the faces lie left of the edge) of all silhouette edges."""
    a, b, c = (clip[:, faces[:, corner]][..., [0, 1, 3]] for corner in range(3))
    facing = torch.sign((a * torch.linalg.cross(b, c)).sum(dim=-1)).to(torch.int8)  # [view, F]
    signs = topology.edge_signs.to(torch.int8)
    first = facing[:, topology.edge_faces[:, 0]] * signs[:, 0]  # [view, E]
    second = facing[:, topology.edge_faces[:, 1]] * signs[:, 1]
    is_silhouette = (first + second != 0) & (first * second >= 0)
    side = torch.where(first != 0, first, second)
    if len(topology.extra):
        edge, face, sign = topology.extra.T
        opposed = facing[:, face] * sign.to(torch.int8) * side[:, edge] < 0
        conflicts = torch.zeros_like(side, dtype=torch.int32)
        conflicts.index_add_(1, edge, opposed.to(torch.int32))
        is_silhouette &= conflicts == 0
    view, edge = torch.nonzero(is_silhouette, as_tuple=True)
    return view, edge, side[view, edge]


def _ends_on_screen(ends: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Pixel x, y (down) and z/w of edge ends [S, 2, 3], cut at the near plane; which are seen."""
    near = ends[..., 2] + ends[..., 3]  # [S, 2]
    other_end, other_near = ends.flip(1), near.flip(1)
    cut = (near < 0) & (other_near >= 0)
    fraction = other_near / torch.where(cut, other_near - near, 1.0)
    ends = torch.where(cut[..., None], other_end + fraction[..., None] * (ends - other_end), ends)
    w = ends[..., 3]
    visible = ((near >= 0) | cut).all(dim=1) & (w > 0).all(dim=1)
    ndc = ends[..., :3] / torch.where(w > 0, w, 1.0)[..., None]
    scale, shift = (
        ndc.new_tensor([width / 2, -height / 2, 1]),
        ndc.new_tensor([width / 2, height / 2, 0]),
    )
    return ndc * scale + shift, visible


def _crossed_lines(points: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """All (edge, pixel row or column) crossings: edge index, whether it is a row, its number.

    Steep edges cross rows, flat ones columns: each edge is sampled along its longer side.
    """
    delta = points[:, 1, :2] - points[:, 0, :2]
    along_x = delta[:, 1].abs() >= delta[:, 0].abs()
    scan = torch.where(along_x[:, None], points[..., 1], points[..., 0])  # [S, 2]
    limit = torch.where(along_x, height, width)
    # Half-open: a line through a corner belongs to one of the two edges that meet there.
    low = torch.ceil(scan.amin(dim=1) - 0.5).clamp(min=0)
    high = torch.minimum(torch.ceil(scan.amax(dim=1) - 0.5), limit.to(scan.dtype))
    count = (high - low).clamp(min=0).long()
    item = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    start = (count.cumsum(0) - count)[item]
    line = low.long()[item] + torch.arange(len(item), device=count.device) - start
    return item, along_x[item], line


def _cross_line(points: Tensor, along_x: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinate along the pixel line at which the edge crosses it, and z/w there."""
    start, end = points.unbind(dim=1)  # [X, 3]
    scan_start = torch.where(along_x, start[:, 1], start[:, 0])
    scan_end = torch.where(along_x, end[:, 1], end[:, 0])
    fraction = (line + 0.5 - scan_start) / (scan_end - scan_start)
    crossing = start + fraction[:, None] * (end - start)
    return torch.where(along_x, crossing[:, 0], crossing[:, 1]), crossing[:, 2]


def _is_visible(rast: Tensor, inner: Tensor, outer: Tensor, edge_z: Tensor) -> Tensor:
    """Whether the edge separates the inner pixel's surface from something farther away."""
    depth = torch.where(rast[..., 3] > 0, rast[..., 2], torch.inf).reshape(-1).to(edge_z.dtype)
    inner_z, outer_z = depth[inner], depth[outer]
    # The inner surface may be nearer than the edge (it bulges) or a little farther (it slopes),
    # but not as far as what lies beyond: then neither pixel shows the object.
    slopes = (inner_z - edge_z) < 0.5 * (outer_z - edge_z)
    return torch.isfinite(inner_z) & (outer_z > edge_z) & slopes


def _outermost(pair: Tensor, reach: Tensor) -> Tensor:
    """Indices of the items with the largest reach of each pair, lowest index first on ties."""
    order = torch.argsort(reach, descending=True, stable=True)
    order = order[torch.argsort(pair[order], stable=True)]
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = pair[order][1:] != pair[order][:-1]
    return order[first]


def _blend(image: Tensor, vertices_clip: Tensor, crossings: Crossings) -> Tensor:
    """Mix the two pixels of each crossing by the covered share; the differentiable part."""
    height, width = image.shape[1:3]
    ends = vertices_clip[crossings.view[:, None], crossings.ends]  # [X, 2, 4]
    points, _ = _ends_on_screen(ends.to(_exact_dtype(ends.device)), width, height)
    inner, outer, along_x = crossings.inner, crossings.outer, crossings.along_x
    row, column = inner // width % height, inner % width
    position, _ = _cross_line(points, along_x, torch.where(along_x, row, column))
    centre = torch.where(along_x, column, row) + 0.5
    reach = torch.where(outer > inner, position - centre, centre - position)
    # The edge lies `reach` beyond the inner centre: past the middle it enters the outer pixel.
    share = reach - 0.5
    target = torch.where(share > 0, outer, inner)
    flat = image.reshape(-1, image.shape[-1])
    total = flat.new_zeros(len(flat)).index_add(0, target, share.detach().abs().to(flat.dtype))
    share = share.to(flat.dtype) / total[target].clamp(min=1)  # never more than the whole pixel
    difference = flat[inner] - flat[outer]
    return flat.index_add(0, target, share[:, None] * difference).reshape(image.shape)
