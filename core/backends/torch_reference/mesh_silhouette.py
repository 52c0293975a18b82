"""Contains the torch search for crossings of silhouette edges with pixel pairs.

An edge is a silhouette where all its faces lie on one side of it in the image: a fold or an open
border. Symbols: E edges, S silhouette edges over all views, X crossings.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .mesh import exact_dtype


def find_silhouette_candidates(
    rast: Float[Tensor, "view height width 4"],
    vertices_clip: Float[Tensor, "view vertex 4"],
    faces: Int64[Tensor, "face 3"],
    edges: Int64[Tensor, "edge 2"],
    edge_faces: Int64[Tensor, "edge 2"],
    edge_signs: Int64[Tensor, "edge 2"],
    extra: Int64[Tensor, "extra 3"],
) -> tuple[Int64[Tensor, "candidate 5"], Float[Tensor, " candidate"]]:
    """Crossings of visible silhouette edges with pixel pairs; several may fall on one pair.

    Args:
        rast: (u, v, z/w, face + 1) per pixel.
        vertices_clip: OpenGL clip coordinates.
        faces: vertex indices.
        edges: the two vertices of each edge, lower index first.
        edge_faces: the first two faces at the edge.
        edge_signs: +1 where that face runs from the lower to the higher vertex, else -1.
        extra: (edge, face, sign) of the third and further faces of an edge.

    Returns:
        Columns (view, edge, inner pixel, outer pixel, along_x), pixels as flat indices over all
        views; and the distance of the edge from the inner pixel's centre.
    """
    height, width = rast.shape[1:3]
    exact = vertices_clip.to(exact_dtype(vertices_clip.device))
    view, edge, side = _silhouette_edges(exact, faces, edge_faces, edge_signs, extra)
    points, visible = ends_on_screen(exact[view[:, None], edges[edge]], width, height)
    view, edge, side, points = view[visible], edge[visible], side[visible], points[visible]
    item, along_x, line = _crossed_lines(points, width, height)
    position, z = cross_line(points[item], along_x, line)
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
    reach = position - 0.5 - low
    reach = torch.where(inner_is_high, 1 - reach, reach)
    found = torch.stack([view[item], edge[item], inner, outer, along_x.long()], dim=1)
    seen = _is_visible(rast.reshape(-1, 4), inner, outer, z)
    return found[seen], reach[seen]


def _silhouette_edges(
    clip: Tensor, faces: Tensor, edge_faces: Tensor, edge_signs: Tensor, extra: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """View, edge and side (+1: the faces lie left of the edge) of all silhouette edges."""
    a, b, c = (clip[:, faces[:, corner]][..., [0, 1, 3]] for corner in range(3))
    facing = torch.sign((a * torch.linalg.cross(b, c)).sum(dim=-1)).to(torch.int8)  # [view, F]
    signs = edge_signs.to(torch.int8)
    first = facing[:, edge_faces[:, 0]] * signs[:, 0]  # [view, E]
    second = facing[:, edge_faces[:, 1]] * signs[:, 1]
    is_silhouette = (first + second != 0) & (first * second >= 0)
    side = torch.where(first != 0, first, second)
    if len(extra):
        edge, face, sign = extra.T
        opposed = facing[:, face] * sign.to(torch.int8) * side[:, edge] < 0
        conflicts = torch.zeros_like(side, dtype=torch.int32)
        conflicts.index_add_(1, edge, opposed.to(torch.int32))
        is_silhouette &= conflicts == 0
    view, edge = torch.nonzero(is_silhouette, as_tuple=True)
    return view, edge, side[view, edge]


def ends_on_screen(
    ends: Float[Tensor, "edge 2 4"], width: int, height: int
) -> tuple[Float[Tensor, "edge 2 3"], Bool[Tensor, " edge"]]:
    """Pixel x, y (down) and z/w of clip-space edge ends, cut at the near plane; which are seen."""
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


def cross_line(
    points: Float[Tensor, "crossing 2 3"],
    along_x: Bool[Tensor, " crossing"],
    line: Int64[Tensor, " crossing"],
) -> tuple[Float[Tensor, " crossing"], Float[Tensor, " crossing"]]:
    """Coordinate along the pixel line at which the edge crosses it, and z/w there."""
    start, end = points.unbind(dim=1)  # [X, 3]
    scan_start = torch.where(along_x, start[:, 1], start[:, 0])
    scan_end = torch.where(along_x, end[:, 1], end[:, 0])
    fraction = (line + 0.5 - scan_start) / (scan_end - scan_start)
    crossing = start + fraction[:, None] * (end - start)
    return torch.where(along_x, crossing[:, 0], crossing[:, 1]), crossing[:, 2]


def _is_visible(rast: Tensor, inner: Tensor, outer: Tensor, edge_z: Tensor) -> Tensor:
    """Whether the edge separates the inner pixel's surface from something farther away."""
    inner_pixel, outer_pixel = rast[inner], rast[outer]  # [X, 4]
    inner_z, outer_z = (
        torch.where(pixel[:, 3] > 0, pixel[:, 2], torch.inf).to(edge_z.dtype)
        for pixel in (inner_pixel, outer_pixel)
    )
    # The inner surface may be nearer than the edge (it bulges) or a little farther (it slopes),
    # but not as far as what lies beyond: then neither pixel shows the object.
    slopes = (inner_z - edge_z) < 0.5 * (outer_z - edge_z)
    return torch.isfinite(inner_z) & (outer_z > edge_z) & slopes
