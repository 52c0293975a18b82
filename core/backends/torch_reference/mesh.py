"""Contains the readable mesh rasteriser: any device, any float type, slow; the oracle of the tests.

Conventions of all mesh backends. Clip space is OpenGL's (y up, near plane z = -w). A raster holds
per pixel (u, v, z/w, face + 1): u and v are the perspective-correct weights of the corners 0 and 1,
zero in the last channel means background, row 0 is the top of the image. Pixel centres lie at
+0.5. Symbols: F faces, P screen triangles, K clipped polygons, N their corners.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

SUBPIXELS = 256
"""Corners are snapped to this many positions per pixel, so that edge functions are exact."""
GUARD_PX = float(1 << 20)
"""Triangles are clipped this far from the image centre, so that edge functions fit 64 bits."""
MAX_FRAGMENTS = 1 << 21
NO_FACE = torch.iinfo(torch.int64).max


def exact_dtype(device: torch.device) -> torch.dtype:
    """Float type in which visibility is decided on a device."""
    return torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64


def rasterize(
    vertices_clip: Float[Tensor, "view vertex 4"],
    faces: Int64[Tensor, "face 3"],
    width: int,
    height: int,
) -> Float[Tensor, "view height width 4"]:
    """Draw triangles into one raster per view, nearest first, both sides.

    Coverage is decided with exact integers and a tie rule: a pixel centre on an edge shared by two
    triangles belongs to exactly one of them. u, v and z/w are differentiable with respect to
    ``vertices_clip``; coverage is not (see `rendering.silhouette`).

    Reference: Pineda 1988 (edge functions); Olano and Greer 1997 (homogeneous weights).
    """
    exact = vertices_clip.to(exact_dtype(vertices_clip.device))
    with torch.no_grad():
        face_index = torch.stack(
            [_visible_faces(clip, faces, width, height) for clip in exact.detach()]
        )
    return _weights_and_depth(exact, faces, face_index).to(vertices_clip.dtype)


def interpolate(
    attributes: Float[Tensor, "view vertex channel"],
    rast: Float[Tensor, "view height width 4"],
    faces: Int64[Tensor, "face 3"],
) -> Float[Tensor, "view height width channel"]:
    """Values of the corners, weighted at each pixel; zero on the background.

    Differentiable with respect to the attributes and to the weights in ``rast``.
    """
    views, height, width = rast.shape[:3]
    out = attributes.new_zeros(views * height * width, attributes.shape[-1])
    view, pixel, face = _covered(rast[..., 3].detach().long() - 1)
    weights = _three_weights(rast.reshape(-1, 4)[pixel, :2])
    values = attributes[view[:, None], faces[face]]  # [covered, 3, C]
    blended = (weights[..., None].to(values.dtype) * values).sum(dim=1)
    return out.index_put((pixel,), blended).reshape(views, height, width, -1)


def clip_planes(
    corners: Float[Tensor, "*batch 4"], width: int, height: int
) -> Float[Tensor, "*batch plane=5"]:
    """Signed distances to the near plane and the four guard planes; negative is outside."""
    x, y, z, w = corners.unbind(dim=-1)
    reach = w * (2 * GUARD_PX / max(width, height))
    return torch.stack([z + w, reach - x, reach + x, reach - y, reach + y], dim=-1)


def clip_polygons(
    corners: Float[Tensor, "polygon 3 4"], width: int, height: int
) -> tuple[Float[Tensor, "piece 3 4"], Int64[Tensor, " piece"]]:
    """Parts of triangles inside all planes, as triangle fans, with the index of their origin.

    A cut point is always computed from the inner end of the edge: neighbours get the same one.

    Reference: Sutherland and Hodgman 1974.
    """
    polygons = corners  # [K, N, 4], padded
    counts = torch.full(corners.shape[:1], 3, dtype=torch.int64, device=corners.device)
    for plane in range(5):
        distances = clip_planes(polygons, width, height)[..., plane]
        polygons, counts = _clip_by_plane(polygons, counts, distances)
    pieces, owners = [], []
    index = torch.arange(len(corners), device=corners.device)
    for corner in range(1, polygons.shape[1] - 1):
        exists = counts > corner + 1
        pieces.append(polygons[exists][:, [0, corner, corner + 1]])
        owners.append(index[exists])
    return torch.cat(pieces), torch.cat(owners)


def _clip_by_plane(polygons: Tensor, counts: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    size = polygons.shape[1]
    slot = torch.arange(size, device=polygons.device)
    exists = slot < counts[:, None]
    following = torch.where(slot + 1 < counts[:, None], slot + 1, torch.zeros_like(slot))
    next_corner = polygons.gather(1, following[..., None].expand(-1, -1, 4))
    next_distance = distances.gather(1, following)
    inside, next_inside = distances >= 0, next_distance >= 0
    inner = torch.where(inside[..., None], polygons, next_corner)
    outer = torch.where(inside[..., None], next_corner, polygons)
    inner_distance = torch.where(inside, distances, next_distance)
    outer_distance = torch.where(inside, next_distance, distances)
    cuts = exists & (inside != next_inside)
    fraction = inner_distance / torch.where(cuts, inner_distance - outer_distance, 1.0)
    cut_point = inner + fraction[..., None] * (outer - inner)
    # Each corner emits itself (if inside) and then the cut of the edge that starts at it.
    candidates = torch.stack([polygons, cut_point], dim=2).flatten(1, 2)  # [K, 2N, 4]
    kept = torch.stack([exists & inside, cuts], dim=2).flatten(1, 2)
    order = torch.argsort((~kept).long(), dim=1, stable=True)[:, : size + 1]
    return candidates.gather(1, order[..., None].expand(-1, -1, 4)), kept.sum(dim=1)


def _visible_faces(clip: Tensor, faces: Tensor, width: int, height: int) -> Tensor:
    """Index of the nearest face at each pixel of one view, -1 where there is none. [h, w]."""
    depth = torch.full((height * width,), torch.inf, dtype=clip.dtype, device=clip.device)
    winner = torch.full((height * width,), NO_FACE, dtype=torch.int64, device=clip.device)
    face, corners = _pieces_on_screen(clip, faces, width, height)
    if len(face):
        corners_px, z = _snap(corners, width, height)
        plane = _depth_planes(clip[faces[face]])
        piece, y, x_low, x_high = _row_spans(corners_px, width, height)
        lengths = x_high - x_low + 1
        for rows in _chunks(lengths):
            item = torch.repeat_interleave(rows, lengths[rows])
            starts = lengths[rows].cumsum(0) - lengths[rows]
            step = torch.arange(len(item), device=clip.device) - torch.repeat_interleave(
                starts, lengths[rows]
            )
            x = x_low[item] + step
            inside = _inside(corners_px[piece[item]], x, y[item])
            item, x = item[inside], x[inside]
            p = piece[item]
            pixel_z = _depth_at(plane[p], z[p], x, y[item], width, height)
            near_enough = pixel_z <= 1  # beyond the far plane nothing is drawn
            pixel = (y[item] * width + x)[near_enough]
            _merge(depth, winner, pixel, pixel_z[near_enough], face[p][near_enough])
    return torch.where(winner == NO_FACE, -1, winner).reshape(height, width)


def _pieces_on_screen(
    clip: Tensor, faces: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """Faces that may be seen, cut to the near and guard planes: their index and corners."""
    corners = clip[faces]
    distances = clip_planes(corners, width, height)  # [F, 3, 5]
    whole = (distances >= 0).all(dim=-1).all(dim=-1)
    crossing = ~whole & ~(distances < 0).all(dim=1).any(dim=-1)
    face = torch.arange(len(faces), device=faces.device)
    pieces, owner = clip_polygons(corners[crossing], width, height)
    face = torch.cat([face[whole], face[crossing][owner]])
    corners = torch.cat([corners[whole], pieces])
    in_front = (corners[..., 3] > 0).all(dim=-1)  # w = 0 only for corners without direction
    return face[in_front], corners[in_front]


def _snap(corners: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Pixel coordinates in steps of 1 / SUBPIXELS, y down [P, 3, 2], and z/w [P, 3]."""
    x, y, z, w = corners.unbind(dim=-1)
    x_px = (x / w * 0.5 + 0.5) * (width * SUBPIXELS)
    y_px = (0.5 - y / w * 0.5) * (height * SUBPIXELS)
    return torch.stack([x_px, y_px], dim=-1).add(0.5).floor().long(), z / w


def _row_spans(
    corners_px: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All (triangle, pixel row) pairs of the bounding boxes, with first and last column."""
    half = SUBPIXELS // 2
    low = -((half - corners_px.amin(dim=1)) // SUBPIXELS)  # first pixel centre at or after
    high = (corners_px.amax(dim=1) - half) // SUBPIXELS
    low = low.clamp(min=0)
    high = torch.minimum(high, high.new_tensor([width - 1, height - 1]))
    rows = (high - low + 1)[:, 1].clamp(min=0) * (low[:, 0] <= high[:, 0])
    piece = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), rows)
    start = (rows.cumsum(0) - rows)[piece]
    y = low[piece, 1] + torch.arange(len(piece), device=rows.device) - start
    return piece, y, low[piece, 0], high[piece, 0]


def _chunks(lengths: Tensor) -> list[Tensor]:
    """Consecutive index ranges whose lengths sum to about MAX_FRAGMENTS."""
    bucket = (lengths.cumsum(0) - lengths) // MAX_FRAGMENTS
    _, sizes = torch.unique_consecutive(bucket, return_counts=True)
    return list(torch.arange(len(lengths), device=lengths.device).split(sizes.tolist()))


def _inside(corners_px: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Whether pixel centres lie in their triangle; exact, ties decided by edge direction."""
    half = SUBPIXELS // 2
    point = torch.stack([x * SUBPIXELS + half, y * SUBPIXELS + half], dim=-1)
    a, b, c = corners_px.unbind(dim=1)
    area = _cross(b - a, c - a)
    sign = torch.sign(area)
    inside = area != 0
    for start, end in ((a, b), (b, c), (c, a)):
        edge = (end - start) * sign[:, None]
        owns_ties = (edge[:, 1] > 0) | ((edge[:, 1] == 0) & (edge[:, 0] > 0))
        inside &= _cross(edge, point - start) >= torch.where(owns_ties, 0, 1)
    return inside


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _depth_planes(corners: Tensor) -> Tensor:
    """Coefficients of z/w = A X + B Y + C over normalised device coordinates. [P, 3]."""
    rows = corners[..., [0, 1, 3]]  # [P, 3 corners, (x, y, w)]
    cofactors = torch.linalg.cross(rows.roll(-1, dims=1), rows.roll(-2, dims=1))
    determinant = (rows[:, 0] * cofactors[:, 0]).sum(dim=-1, keepdim=True)
    summed = (corners[..., 2:3] * cofactors).sum(dim=1)
    return summed / torch.where(determinant == 0, 1.0, determinant)


def _depth_at(
    plane: Tensor, corner_z: Tensor, x: Tensor, y: Tensor, width: int, height: int
) -> Tensor:
    x_ndc, y_ndc = _pixel_centres(x.to(plane.dtype), y.to(plane.dtype), width, height)
    z = plane[:, 0] * x_ndc + plane[:, 1] * y_ndc + plane[:, 2]
    # Triangles seen edge-on have steep planes: stay within what their corners reach.
    return torch.minimum(torch.maximum(z, corner_z.amin(dim=1)), corner_z.amax(dim=1))


def _pixel_centres(x: Tensor, y: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    return (x + 0.5) * (2.0 / width) - 1.0, 1.0 - (y + 0.5) * (2.0 / height)


def _merge(depth: Tensor, winner: Tensor, pixel: Tensor, z: Tensor, face: Tensor) -> None:
    """Keep the nearest fragment per pixel, in place; of equal ones the lowest face index."""
    before = depth.clone()
    depth.scatter_reduce_(0, pixel, z, "amin")
    winner[depth < before] = NO_FACE
    nearest = z == depth[pixel]
    winner.scatter_reduce_(0, pixel[nearest], face[nearest], "amin")


def _covered(face_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """View, flat pixel and face index of all covered pixels."""
    flat = face_index.reshape(-1)
    pixel = torch.nonzero(flat >= 0).squeeze(1)
    view = pixel // (face_index.shape[1] * face_index.shape[2])
    return view, pixel, flat[pixel]


def _three_weights(uv: Tensor) -> Tensor:
    return torch.cat([uv, 1 - uv.sum(dim=-1, keepdim=True)], dim=-1)


def _weights_and_depth(clip: Tensor, faces: Tensor, face_index: Tensor) -> Tensor:
    """Raster of known visible faces; differentiable with respect to ``clip``."""
    views, height, width = face_index.shape
    view, pixel, face = _covered(face_index)
    x = (pixel % width).to(clip.dtype)
    y = (pixel // width % height).to(clip.dtype)
    x_ndc, y_ndc = _pixel_centres(x, y, width, height)
    corners = clip[view[:, None], faces[face]]  # [covered, 3, 4]
    w = corners[..., 3]
    relative = corners[..., :2] - torch.stack([x_ndc, y_ndc], dim=-1)[:, None] * w[..., None]
    edges = _cross(relative.roll(-1, dims=1), relative.roll(-2, dims=1))  # [covered, 3]
    total = edges.sum(dim=1)
    weights = edges / torch.where(total == 0, 1.0, total)[:, None]
    # Snapping lets a triangle cover centres up to 1/512 px outside: stay on the triangle.
    u = weights[:, 0].clamp(0, 1)
    v = weights[:, 1].clamp(min=0)
    v = torch.where(v > 1 - u, 1 - u, v)
    b = _three_weights(torch.stack([u, v], dim=-1))
    depth = (b * corners[..., 2]).sum(dim=1) / (b * w).sum(dim=1)
    values = torch.stack([u, v, depth, (face + 1).to(clip.dtype)], dim=-1)
    out = clip.new_zeros(views * height * width, 4)
    return out.index_put((pixel,), values).reshape(views, height, width, 4)
