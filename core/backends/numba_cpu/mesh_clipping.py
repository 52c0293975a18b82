"""Contains the kernels that bring vertices and clipped triangles to fixed-point pixel coordinates.

Imported lazily: it needs numba. Same arithmetic as `torch_reference.mesh`, so that both backends
cover the same pixels.
"""

from __future__ import annotations

import numba
import numpy as np

from .runtime import compiled

SUBPIXELS = 256
GUARD_PX = float(1 << 20)
MAX_CORNERS = 8  # three, and at most one more for each of the five planes
NO_DIRECTION = 32  # bit of a vertex with w <= 0 that no plane excludes


@compiled()
def plane_distance(plane, x, y, z, w, guard):
    """Signed distance to the near plane (0) or a guard plane (1..4); negative is outside."""
    if plane == 0:
        return z + w
    if plane == 1:
        return w * guard - x
    if plane == 2:
        return w * guard + x
    if plane == 3:
        return w * guard - y
    return w * guard + y


@compiled(parallel=True)
def project_vertices(clip, width, height, xy, depth, outside):
    """Fill pixel coordinates, z/w and the bit mask of planes each vertex lies beyond.

    Args:
        clip: [view, vertex, 4] float64.
        width: columns.
        height: rows.
        xy: out, [view, vertex, 2] int32 in steps of 1 / SUBPIXELS, y down.
        depth: out, [view, vertex] float64.
        outside: out, [view, vertex] uint8, one bit per plane.
    """
    views, count = clip.shape[:2]
    guard = 2 * GUARD_PX / max(width, height)
    for item in numba.prange(views * count):
        view, vertex = item // count, item % count
        x, y = clip[view, vertex, 0], clip[view, vertex, 1]
        z, w = clip[view, vertex, 2], clip[view, vertex, 3]
        mask = 0
        for plane in range(5):
            if not plane_distance(plane, x, y, z, w, guard) >= 0:
                mask |= 1 << plane
        if mask == 0 and not w > 0:
            mask = NO_DIRECTION
        outside[view, vertex] = mask
        if mask == 0:
            xy[view, vertex, 0] = snap_x(x / w, width)
            xy[view, vertex, 1] = snap_y(y / w, height)
            depth[view, vertex] = z / w


@compiled()
def snap_x(x_ndc, width):
    """Column in steps of 1 / SUBPIXELS."""
    return np.int64(np.floor((x_ndc * 0.5 + 0.5) * (width * SUBPIXELS) + 0.5))


@compiled()
def snap_y(y_ndc, height):
    """Row in steps of 1 / SUBPIXELS, counted from the top."""
    return np.int64(np.floor((0.5 - y_ndc * 0.5) * (height * SUBPIXELS) + 0.5))


@compiled()
def count_crossing(outside, faces):
    """Number of faces per view that some plane cuts."""
    views = outside.shape[0]
    counts = np.zeros(views, np.int64)
    for view in range(views):
        for face in range(faces.shape[0]):
            counts[view] += is_crossing(outside, view, faces, face)
    return counts


@compiled()
def is_crossing(outside, view, faces, face):
    """Whether a face lies neither inside all planes nor wholly outside one of them."""
    a = outside[view, faces[face, 0]]
    b = outside[view, faces[face, 1]]
    c = outside[view, faces[face, 2]]
    return (a | b | c) != 0 and (a & b & c) == 0


@compiled()
def clip_faces(clip, faces, outside, width, height, capacity):
    """Triangles that are left of the faces which a plane cuts.

    Reference: Sutherland and Hodgman 1974. A cut point is always computed from the inner end of
    the edge, so that neighbours get the same one.

    Returns:
        xy [piece, 3, 2] int32, depth [piece, 3], face [piece] uint32, and the first piece of each
        view with the total at the end [view + 1].
    """
    views = clip.shape[0]
    guard = 2 * GUARD_PX / max(width, height)
    xy = np.empty((capacity, 3, 2), np.int32)
    depth = np.empty((capacity, 3), np.float64)
    owner = np.empty(capacity, np.uint32)
    first = np.zeros(views + 1, np.int64)
    polygon = np.empty((MAX_CORNERS + 1, 4))
    scratch = np.empty((MAX_CORNERS + 1, 4))
    used = 0
    for view in range(views):
        for face in range(faces.shape[0]):
            if not is_crossing(outside, view, faces, face):
                continue
            for corner in range(3):
                polygon[corner] = clip[view, faces[face, corner]]
            count = 3
            for plane in range(5):
                count = _clip_by_plane(polygon, count, plane, guard, scratch)
                polygon, scratch = scratch, polygon
            for corner in range(1, count - 1):
                if _emit(polygon, corner, width, height, xy[used], depth[used]):
                    owner[used] = face
                    used += 1
        first[view + 1] = used
    return xy[:used], depth[:used], owner[:used], first


@compiled()
def _clip_by_plane(polygon, count, plane, guard, out):
    kept = 0
    for i in range(count):
        start, end = polygon[i], polygon[(i + 1) % count]
        d_start = plane_distance(plane, start[0], start[1], start[2], start[3], guard)
        d_end = plane_distance(plane, end[0], end[1], end[2], end[3], guard)
        if d_start >= 0:
            out[kept] = start
            kept += 1
        if (d_start >= 0) != (d_end >= 0):
            if d_start >= 0:
                fraction = d_start / (d_start - d_end)
                for k in range(4):
                    out[kept, k] = start[k] + fraction * (end[k] - start[k])
            else:
                fraction = d_end / (d_end - d_start)
                for k in range(4):
                    out[kept, k] = end[k] + fraction * (start[k] - end[k])
            kept += 1
    return kept


@compiled()
def _emit(polygon, corner, width, height, xy, depth):
    """Write the fan triangle (0, corner, corner + 1); False if a corner has no direction."""
    for slot in range(3):
        source = polygon[0 if slot == 0 else corner + slot - 1]
        if not source[3] > 0:
            return False
        xy[slot, 0] = snap_x(source[0] / source[3], width)
        xy[slot, 1] = snap_y(source[1] / source[3], height)
        depth[slot] = source[2] / source[3]
    return True
