"""Contains the kernels that find where silhouette edges cross pixel pairs.

Imported lazily: it needs numba. Same decisions as `rendering.silhouette.find_crossings` takes in
torch; see there for the method.
"""

from __future__ import annotations

import numba
import numpy as np

from .runtime import compiled

CHUNKS = 4  # parts of the edge list that are walked at the same time


@compiled(parallel=True)
def face_orientations(clip, faces):
    """+1 where a face runs counter-clockwise in the image, -1 clockwise, 0 edge-on. [view, F]."""
    views, count = clip.shape[0], faces.shape[0]
    out = np.empty((views, count), np.int8)
    for task in numba.prange(views * CHUNKS):
        view, chunk = task // CHUNKS, task % CHUNKS
        points = clip[view]
        for face in range(count * chunk // CHUNKS, count * (chunk + 1) // CHUNKS):
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            x1, y1, w1 = points[b, 0], points[b, 1], points[b, 3]
            x2, y2, w2 = points[c, 0], points[c, 1], points[c, 3]
            area = (
                points[a, 0] * (y1 * w2 - w1 * y2)
                + points[a, 1] * (w1 * x2 - x1 * w2)
                + points[a, 3] * (x1 * y2 - y1 * x2)
            )
            out[view, face] = 1 if area > 0 else (-1 if area < 0 else 0)
    return out


@compiled(parallel=True)
def find_candidates(clip, rast, orientations, edges, edge_faces, edge_signs, extra, extra_first):
    """All crossings of visible silhouette edges, several per pixel pair possible.

    Args:
        clip: [view, vertex, 4] float64.
        rast: [view, height, width, 4].
        orientations: of `face_orientations`.
        edges: [edge, 2].
        edge_faces: [edge, 2].
        edge_signs: [edge, 2].
        extra: [extra, 3] (edge, face, sign), sorted by edge.
        extra_first: first row of ``extra`` of each edge, [edge + 1].

    Returns:
        Integer columns (view, edge, inner pixel, outer pixel, along_x), and the reach of each.
    """
    views = clip.shape[0]
    counts = np.zeros(views * CHUNKS, np.int64)
    none, no_reach = np.empty((0, 5), np.int64), np.empty(0)
    for task in numba.prange(views * CHUNKS):
        counts[task] = _walk_edges(
            task, clip, rast, orientations, edges, edge_faces, edge_signs, extra, extra_first,
            0, none, no_reach,
        )  # fmt: skip
    ends = np.cumsum(counts)
    found = np.empty((ends[-1], 5), np.int64)
    reach = np.empty(ends[-1])
    for task in numba.prange(views * CHUNKS):
        _walk_edges(
            task, clip, rast, orientations, edges, edge_faces, edge_signs, extra, extra_first,
            ends[task] - counts[task], found, reach,
        )  # fmt: skip
    return found, reach


@compiled()
def _walk_edges(
    task, clip, rast, orientations, edges, edge_faces, edge_signs, extra, extra_first,
    slot, found, reach,
):  # fmt: skip
    """Count the crossings of one part of the edges; write them too if ``found`` has room."""
    view, chunk = task // CHUNKS, task % CHUNKS
    points, pixels, facing = clip[view], rast[view], orientations[view]
    height, width = pixels.shape[:2]
    base = view * height * width
    count, writes, used = edges.shape[0], len(found) > 0, 0
    for edge in range(count * chunk // CHUNKS, count * (chunk + 1) // CHUNKS):
        side = _silhouette_side(edge, facing, edge_faces, edge_signs, extra, extra_first)
        if side == 0:
            continue
        seen, x0, y0, z0, x1, y1, z1 = _ends_on_screen(
            points, edges[edge, 0], edges[edge, 1], width, height
        )
        if not seen:
            continue
        dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
        along_x = abs(dy) >= abs(dx)
        if along_x:
            scan0, scan1, lines, size = y0, y1, height, width
            inner_is_high = dy * side > 0
        else:
            scan0, scan1, lines, size = x0, x1, width, height
            inner_is_high = -dx * side > 0
        low = max(np.ceil(min(scan0, scan1) - 0.5), 0.0)
        high = min(np.ceil(max(scan0, scan1) - 0.5), float(lines))
        line = np.int64(low)
        while line < high:
            fraction = (line + 0.5 - scan0) / (scan1 - scan0)
            position = (x0 + fraction * dx) if along_x else (y0 + fraction * dy)
            first = np.floor(position - 0.5)
            if 0 <= first < size - 1:
                near = np.int64(first)
                far = near + 1
                distance = position - 0.5 - first
                if inner_is_high:
                    near, far, distance = far, near, 1 - distance
                ny, nx, fy, fx = (line, near, line, far) if along_x else (near, line, far, line)
                z = z0 + fraction * dz
                if _is_visible(pixels[ny, nx], pixels[fy, fx], z):
                    if writes:
                        found[slot + used, 0] = view
                        found[slot + used, 1] = edge
                        found[slot + used, 2] = base + ny * width + nx
                        found[slot + used, 3] = base + fy * width + fx
                        found[slot + used, 4] = along_x
                        reach[slot + used] = distance
                    used += 1
            line += 1
    return used


@compiled()
def _silhouette_side(edge, facing, edge_faces, edge_signs, extra, extra_first):
    """+1 if all faces at the edge lie left of it, -1 if right, 0 if on both sides or edge-on."""
    first = facing[edge_faces[edge, 0]] * edge_signs[edge, 0]
    second = facing[edge_faces[edge, 1]] * edge_signs[edge, 1]
    side = first if first != 0 else second
    if side == 0 or first * second < 0:
        return 0
    for row in range(extra_first[edge], extra_first[edge + 1]):
        if facing[extra[row, 1]] * extra[row, 2] * side < 0:
            return 0
    return side


@compiled()
def _ends_on_screen(points, a, b, width, height):
    """Whether any of an edge is before the near plane; pixel x, y (down) and z/w of its ends."""
    xa, ya, za, wa = points[a, 0], points[a, 1], points[a, 2], points[a, 3]
    xb, yb, zb, wb = points[b, 0], points[b, 1], points[b, 2], points[b, 3]
    near_a, near_b = za + wa, zb + wb
    if near_a < 0 and near_b < 0:
        return False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if near_a < 0:
        f = near_b / (near_b - near_a)
        xa, ya, za = xb + f * (xa - xb), yb + f * (ya - yb), zb + f * (za - zb)
        wa = wb + f * (wa - wb)
    elif near_b < 0:
        f = near_a / (near_a - near_b)
        xb, yb, zb = xa + f * (xb - xa), ya + f * (yb - ya), za + f * (zb - za)
        wb = wa + f * (wb - wa)
    if not (wa > 0 and wb > 0):
        return False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    half_w, half_h = width / 2, height / 2
    return (
        True,
        xa / wa * half_w + half_w,
        ya / wa * -half_h + half_h,
        za / wa,
        xb / wb * half_w + half_w,
        yb / wb * -half_h + half_h,
        zb / wb,
    )


@compiled()
def _is_visible(inner, outer, edge_z):
    """Whether the edge separates the inner pixel's surface from something farther away."""
    if not inner[3] > 0:
        return False
    if not outer[3] > 0:
        return True
    inner_z, outer_z = np.float64(inner[2]), np.float64(outer[2])
    return outer_z > edge_z and inner_z - edge_z < 0.5 * (outer_z - edge_z)
