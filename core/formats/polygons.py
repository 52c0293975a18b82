"""Contains the triangulation of polygons with any number of corners."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

from .limits import MAX_POLYGON_CORNERS


# NaN and huge coordinates pass through here: the mesh refuses them later, and says how many.
@np.errstate(over="ignore", invalid="ignore")
def triangulate_polygons(
    points: Float[np.ndarray, "corner 3"], counts: Int64[np.ndarray, " polygon"]
) -> tuple[Int64[np.ndarray, "triangle 3"], Int64[np.ndarray, " triangle"]]:
    """Split polygons into triangles: convex ones as fans, concave ones by ear clipping.

    Args:
        points: positions of the corners, polygon after polygon.
        counts: corners of each polygon; those with fewer than three give no triangle.

    Returns:
        Corner indices of the triangles (polygon order kept), and the polygon of each.

    Reference: Meisters 1975 (two ears); normals by Newell's method. Self-intersecting polygons
    are covered, but not in a defined way.
    """
    if counts.size and int(counts.max()) > MAX_POLYGON_CORNERS:
        raise ValueError(
            f"a polygon has {int(counts.max()):,} corners, at most {MAX_POLYGON_CORNERS} are "
            "accepted; triangulate the mesh before export."
        )
    starts = np.cumsum(counts) - counts
    triangles = [np.zeros((0, 3), dtype=np.int64)]
    polygons = [np.zeros(0, dtype=np.int64)]
    for count in np.unique(counts[counts >= 3]):
        members = np.flatnonzero(counts == count)
        corners = starts[members, None] + np.arange(count)  # [polygon, count]
        concave = _is_concave(points[corners]) if count > 3 else np.zeros(members.size, bool)
        fan = np.stack([np.zeros(count - 2), np.arange(1, count - 1), np.arange(2, count)], axis=1)
        triangles.append(corners[~concave][:, fan.astype(np.int64)].reshape(-1, 3))
        polygons.append(np.repeat(members[~concave], count - 2))
        for polygon, ring in zip(members[concave], corners[concave], strict=True):
            ears = ring[_clip_ears(points[ring])]
            triangles.append(ears)
            polygons.append(np.full(len(ears), polygon))
    order = np.argsort(np.concatenate(polygons), kind="stable")
    return np.concatenate(triangles)[order], np.concatenate(polygons)[order]


def _newell_normals(rings: Float[np.ndarray, "polygon corner 3"]) -> np.ndarray:
    return np.cross(rings, np.roll(rings, -1, axis=1)).sum(axis=1)


def _is_concave(rings: Float[np.ndarray, "polygon corner 3"]) -> np.ndarray:
    rings = rings - rings[:, :1]
    incoming = rings - np.roll(rings, 1, axis=1)
    outgoing = np.roll(rings, -1, axis=1) - rings
    turns = np.einsum("pci,pi->pc", np.cross(incoming, outgoing), _newell_normals(rings))
    tolerance = 1e-9 * np.abs(turns).max(axis=1, keepdims=True)
    return (turns < -tolerance).any(axis=1)


def _clip_ears(ring: Float[np.ndarray, "corner 3"]) -> Int64[np.ndarray, "triangle 3"]:
    flat = _flatten(ring)
    remaining = list(range(len(ring)))
    triangles = []
    while len(remaining) > 3:
        position = _find_ear(flat, remaining)
        if position is None:  # self-intersecting or flat: a fan is as good as anything
            break
        before, tip, after = (remaining[(position + k) % len(remaining)] for k in (-1, 0, 1))
        triangles.append((before, tip, after))
        del remaining[position]
    first = remaining[0]
    triangles.extend((first, b, c) for b, c in zip(remaining[1:-1], remaining[2:], strict=True))
    return np.asarray(triangles, dtype=np.int64)


def _flatten(ring: Float[np.ndarray, "corner 3"]) -> Float[np.ndarray, "corner 2"]:
    """Coordinates in the polygon's plane, counter-clockwise."""
    ring = ring - ring.mean(axis=0)
    normal = _newell_normals(ring[None])[0]
    drop = int(np.abs(normal).argmax())
    u, v = (drop + 1) % 3, (drop + 2) % 3
    return ring[:, [u, v]] if normal[drop] >= 0 else ring[:, [v, u]]


def _find_ear(flat: Float[np.ndarray, "corner 2"], remaining: list[int]) -> int | None:
    ring = flat[remaining]
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    turns = _cross(ring - before, after - ring)
    for position in np.flatnonzero(turns > 0):
        a, b, c = before[position], ring[position], after[position]
        inside = (
            (_cross(b - a, ring - a) >= 0)
            & (_cross(c - b, ring - b) >= 0)
            & (_cross(a - c, ring - c) >= 0)
        )
        own = (ring == a).all(axis=1) | (ring == b).all(axis=1) | (ring == c).all(axis=1)
        if not (inside & ~own).any():
            return int(position)
    return None


def _cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
