"""Contains the rasterising kernels: triangles to bands of rows, bands to visible faces.

Imported lazily: it needs numba. One task draws one band of one view, so no two threads write to
the same pixel and the result does not depend on their number.

Reference: Pineda 1988 (edge functions); Olano and Greer 1997 (homogeneous weights).
"""

from __future__ import annotations

import numba
import numpy as np

from .mesh_clipping import SUBPIXELS
from .runtime import compiled

BAND_ROWS = 16
CHUNKS = 4  # parts of the triangle list that are sorted into bands at the same time
NARROW_PX = 10  # up to here testing each pixel of a row is faster than solving for its ends


@compiled(inline="always")
def _bounds(primitive, view, faces, xy, outside, piece_xy, piece_first, width, height):
    """Pixel columns and rows that a triangle may cover: x_low, x_high, y_low, y_high."""
    count = faces.shape[0]
    if primitive < count:
        a, b, c = faces[primitive, 0], faces[primitive, 1], faces[primitive, 2]
        if (outside[view, a] | outside[view, b] | outside[view, c]) != 0:
            return 0, -1, 0, -1
        x0, y0 = np.int64(xy[view, a, 0]), np.int64(xy[view, a, 1])
        x1, y1 = np.int64(xy[view, b, 0]), np.int64(xy[view, b, 1])
        x2, y2 = np.int64(xy[view, c, 0]), np.int64(xy[view, c, 1])
    else:
        piece = piece_first[view] + primitive - count
        x0, y0 = np.int64(piece_xy[piece, 0, 0]), np.int64(piece_xy[piece, 0, 1])
        x1, y1 = np.int64(piece_xy[piece, 1, 0]), np.int64(piece_xy[piece, 1, 1])
        x2, y2 = np.int64(piece_xy[piece, 2, 0]), np.int64(piece_xy[piece, 2, 1])
    half = SUBPIXELS // 2
    x_low = max(-((half - min(x0, x1, x2)) // SUBPIXELS), 0)
    y_low = max(-((half - min(y0, y1, y2)) // SUBPIXELS), 0)
    x_high = min((max(x0, x1, x2) - half) // SUBPIXELS, width - 1)
    y_high = min((max(y0, y1, y2) - half) // SUBPIXELS, height - 1)
    if x_low > x_high or (x1 - x0) * (y2 - y0) == (x2 - x0) * (y1 - y0):
        return 0, -1, 0, -1
    return x_low, x_high, y_low, y_high


@compiled(parallel=True)
def sort_into_bands(faces, xy, outside, piece_xy, piece_first, width, height):
    """Lists of the triangles that touch each band, in ascending order.

    Returns:
        The lists one after the other, and where the list of each (view, band) begins.
    """
    views = xy.shape[0]
    bands = (height + BAND_ROWS - 1) // BAND_ROWS
    counts = np.zeros((views, bands, CHUNKS), np.int64)
    for task in numba.prange(views * CHUNKS):
        view, chunk = task // CHUNKS, task % CHUNKS
        total = faces.shape[0] + piece_first[view + 1] - piece_first[view]
        for primitive in range(total * chunk // CHUNKS, total * (chunk + 1) // CHUNKS):
            _, _, low, high = _bounds(
                primitive, view, faces, xy, outside, piece_xy, piece_first, width, height
            )
            if low <= high:
                for band in range(low // BAND_ROWS, high // BAND_ROWS + 1):
                    counts[view, band, chunk] += 1
    ends = np.cumsum(counts.reshape(-1))
    starts = (ends - counts.reshape(-1)).reshape(views, bands, CHUNKS)
    listed = np.empty(ends[-1], np.int32)
    for task in numba.prange(views * CHUNKS):
        view, chunk = task // CHUNKS, task % CHUNKS
        cursor = starts[view, :, chunk].copy()
        total = faces.shape[0] + piece_first[view + 1] - piece_first[view]
        for primitive in range(total * chunk // CHUNKS, total * (chunk + 1) // CHUNKS):
            _, _, low, high = _bounds(
                primitive, view, faces, xy, outside, piece_xy, piece_first, width, height
            )
            if low <= high:
                for band in range(low // BAND_ROWS, high // BAND_ROWS + 1):
                    listed[cursor[band]] = primitive
                    cursor[band] += 1
    first = np.empty(views * bands + 1, np.int64)
    first[:-1] = starts[:, :, 0].copy().reshape(-1)
    first[-1] = ends[-1]
    return listed, first


@compiled(parallel=True)
def draw_bands(
    clip, faces, xy, depth, piece_xy, piece_depth, piece_face, piece_first, listed, first, rast
):
    """Fill ``rast`` [view, height, width, 4] with (u, v, z/w, face + 1); zero on the background."""
    views, height, width = rast.shape[:3]
    bands = (height + BAND_ROWS - 1) // BAND_ROWS
    x_ndc = (np.arange(width) + 0.5) * (2.0 / width) - 1.0
    for order in numba.prange(views * bands):
        view, band = order % views, order // views
        slot = view * bands + band
        top = band * BAND_ROWS
        rows = min(BAND_ROWS, height - top)
        nearest = np.full((rows, width), np.inf)
        visible = np.full((rows, width), -1, np.int32)
        corners = np.empty((3, 2), np.int64)
        for entry in range(first[slot], first[slot + 1]):
            primitive = listed[entry]
            if primitive < faces.shape[0]:
                face = primitive
                z_low, z_high = np.inf, -np.inf
                for k in range(3):
                    vertex = faces[face, k]
                    corners[k, 0] = xy[view, vertex, 0]
                    corners[k, 1] = xy[view, vertex, 1]
                    z_low = min(z_low, depth[view, vertex])
                    z_high = max(z_high, depth[view, vertex])
            else:
                piece = piece_first[view] + primitive - faces.shape[0]
                face = piece_face[piece]
                z_low, z_high = piece_depth[piece].min(), piece_depth[piece].max()
                for k in range(3):
                    corners[k, 0] = piece_xy[piece, k, 0]
                    corners[k, 1] = piece_xy[piece, k, 1]
            plane = _depth_plane(clip[view], faces[face, 0], faces[face, 1], faces[face, 2])
            _draw(corners, face, plane, z_low, z_high, x_ndc, top, height, nearest, visible)
        for row in range(rows):
            y_ndc = 1.0 - (top + row + 0.5) * (2.0 / height)
            _finish_row(clip[view], faces, visible[row], x_ndc, y_ndc, rast[view, top + row])


@compiled(inline="always")
def _depth_plane(clip, a, b, c):
    """Coefficients of z/w = A X + B Y + C over normalised device coordinates."""
    x0, y0, z0, w0 = clip[a, 0], clip[a, 1], clip[a, 2], clip[a, 3]
    x1, y1, z1, w1 = clip[b, 0], clip[b, 1], clip[b, 2], clip[b, 3]
    x2, y2, z2, w2 = clip[c, 0], clip[c, 1], clip[c, 2], clip[c, 3]
    # Cofactors: cross products of the rows (x, y, w) of the other two corners.
    c0x, c0y, c0w = y1 * w2 - w1 * y2, w1 * x2 - x1 * w2, x1 * y2 - y1 * x2
    c1x, c1y, c1w = y2 * w0 - w2 * y0, w2 * x0 - x2 * w0, x2 * y0 - y2 * x0
    c2x, c2y, c2w = y0 * w1 - w0 * y1, w0 * x1 - x0 * w1, x0 * y1 - y0 * x1
    determinant = x0 * c0x + y0 * c0y + w0 * c0w
    if determinant == 0:
        determinant = 1.0
    return (
        (z0 * c0x + z1 * c1x + z2 * c2x) / determinant,
        (z0 * c0y + z1 * c1y + z2 * c2y) / determinant,
        (z0 * c0w + z1 * c1w + z2 * c2w) / determinant,
    )


@compiled(inline="always")
def _ceil_divide(a, b):
    return -((-a) // b)


@compiled()
def _draw(corners, face, plane, z_low, z_high, x_ndc, top, height, nearest, visible):
    """Draw one triangle into a band: exact coverage, nearest depth, lowest face on equal depth."""
    rows, width = nearest.shape
    half = SUBPIXELS // 2
    x0, y0 = corners[0, 0], corners[0, 1]
    x1, y1 = corners[1, 0], corners[1, 1]
    x2, y2 = corners[2, 0], corners[2, 1]
    if (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0) < 0:
        x1, y1, x2, y2 = x2, y2, x1, y1
    x_low = max(_ceil_divide(min(x0, x1, x2) - half, SUBPIXELS), 0)
    x_high = min((max(x0, x1, x2) - half) // SUBPIXELS, width - 1)
    y_low = max(_ceil_divide(min(y0, y1, y2) - half, SUBPIXELS), top)
    y_high = min((max(y0, y1, y2) - half) // SUBPIXELS, top + rows - 1)
    dx0, dy0, dx1, dy1, dx2, dy2 = x1 - x0, y1 - y0, x2 - x1, y2 - y1, x0 - x2, y0 - y2
    # An edge owns the centres exactly on it or not, opposite to the same edge of its neighbour.
    px, py = x_low * SUBPIXELS + half, y_low * SUBPIXELS + half
    row0 = dx0 * (py - y0) - dy0 * (px - x0) - (0 if dy0 > 0 or (dy0 == 0 and dx0 > 0) else 1)
    row1 = dx1 * (py - y1) - dy1 * (px - x1) - (0 if dy1 > 0 or (dy1 == 0 and dx1 > 0) else 1)
    row2 = dx2 * (py - y2) - dy2 * (px - x2) - (0 if dy2 > 0 or (dy2 == 0 and dx2 > 0) else 1)
    step0, step1, step2 = -dy0 * SUBPIXELS, -dy1 * SUBPIXELS, -dy2 * SUBPIXELS
    a, b, c = plane
    for y in range(y_low, y_high + 1):
        start, end = x_low, x_high
        if x_high - x_low > NARROW_PX:
            start, end = _solve_row(row0, step0, x_low, start, end)
            start, end = _solve_row(row1, step1, x_low, start, end)
            start, end = _solve_row(row2, step2, x_low, start, end)
        by = b * (1.0 - (y + 0.5) * (2.0 / height))
        z_row, face_row = nearest[y - top], visible[y - top]
        e0 = row0 + step0 * (start - x_low)
        e1 = row1 + step1 * (start - x_low)
        e2 = row2 + step2 * (start - x_low)
        for x in range(start, end + 1):
            if (e0 | e1 | e2) >= 0:
                z = min(max(a * x_ndc[x] + by + c, z_low), z_high)
                if z <= 1 and (z < z_row[x] or (z == z_row[x] and face < face_row[x])):
                    z_row[x] = z
                    face_row[x] = face
            e0 += step0
            e1 += step1
            e2 += step2
        row0 += dx0 * SUBPIXELS
        row1 += dx1 * SUBPIXELS
        row2 += dx2 * SUBPIXELS


@compiled(inline="always")
def _solve_row(value, step, x_low, start, end):
    """Narrow start..end to the columns where value + step (x - x_low) >= 0."""
    if step > 0:
        start = max(start, x_low + _ceil_divide(-value, step))
    elif step < 0:
        end = min(end, x_low + value // -step)
    elif value < 0:
        end = start - 1
    return start, end


@compiled()
def _finish_row(clip, faces, visible, x_ndc, y_ndc, out):
    """Weights and depth of the visible faces of one pixel row."""
    for x in range(visible.shape[0]):
        face = visible[x]
        if face < 0:
            out[x, 0] = 0.0
            out[x, 1] = 0.0
            out[x, 2] = 0.0
            out[x, 3] = 0.0
            continue
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        w0, w1, w2 = clip[a, 3], clip[b, 3], clip[c, 3]
        x0, y0 = clip[a, 0] - x_ndc[x] * w0, clip[a, 1] - y_ndc * w0
        x1, y1 = clip[b, 0] - x_ndc[x] * w1, clip[b, 1] - y_ndc * w1
        x2, y2 = clip[c, 0] - x_ndc[x] * w2, clip[c, 1] - y_ndc * w2
        e0, e1, e2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
        total = e0 + e1 + e2
        if total == 0:
            total = 1.0
        # Snapping lets a triangle cover centres up to 1/512 px outside: stay on the triangle.
        u = min(max(e0 / total, 0.0), 1.0)
        v = min(max(e1 / total, 0.0), 1 - u)
        t = 1 - (u + v)
        out[x, 0] = u
        out[x, 1] = v
        out[x, 2] = (u * clip[a, 2] + v * clip[b, 2] + t * clip[c, 2]) / (u * w0 + v * w1 + t * w2)
        out[x, 3] = face + 1


@compiled(parallel=True)
def raster_backward(clip, faces, rast, grad_rast, parts):
    """Gradient of u, v and z/w with respect to clip positions.

    Returns one buffer per (view, part of the rows) [view, part, vertex, 4]; their sum over the
    parts is the gradient. Every buffer has one writer, in a fixed order.
    """
    views, height, width = rast.shape[:3]
    out = np.zeros((views, parts, clip.shape[1], 4))
    for task in numba.prange(views * parts):
        view, part = task // parts, task % parts
        buffer = out[view, part]
        for y in range(height * part // parts, height * (part + 1) // parts):
            y_ndc = 1.0 - (y + 0.5) * (2.0 / height)
            for x in range(width):
                face = np.int64(rast[view, y, x, 3]) - 1
                grad = grad_rast[view, y, x]
                if face >= 0 and (grad[0] != 0 or grad[1] != 0 or grad[2] != 0):
                    x_ndc = (x + 0.5) * (2.0 / width) - 1.0
                    _pixel_backward(clip[view], faces[face], x_ndc, y_ndc, grad, buffer)
    return out


@compiled()
def _pixel_backward(clip, corners, x_ndc, y_ndc, grad, out):
    a, b, c = corners[0], corners[1], corners[2]
    w0, w1, w2 = clip[a, 3], clip[b, 3], clip[c, 3]
    x0, y0 = clip[a, 0] - x_ndc * w0, clip[a, 1] - y_ndc * w0
    x1, y1 = clip[b, 0] - x_ndc * w1, clip[b, 1] - y_ndc * w1
    x2, y2 = clip[c, 0] - x_ndc * w2, clip[c, 1] - y_ndc * w2
    e0, e1, e2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    total = e0 + e1 + e2
    if total == 0:
        return
    u_raw, v_raw = e0 / total, e1 / total
    u = min(max(u_raw, 0.0), 1.0)
    v = min(max(v_raw, 0.0), 1 - u)
    t = 1 - (u + v)
    # z/w = (b . z) / (b . w)
    over_w = 1 / (u * w0 + v * w1 + t * w2)
    z_grad = np.float64(grad[2]) * over_w
    w_grad = -z_grad * over_w * (u * clip[a, 2] + v * clip[b, 2] + t * clip[c, 2])
    u_grad = grad[0] + z_grad * (clip[a, 2] - clip[c, 2]) + w_grad * (w0 - w2)
    v_grad = grad[1] + z_grad * (clip[b, 2] - clip[c, 2]) + w_grad * (w1 - w2)
    # The clamps, last one first.
    if max(v_raw, 0.0) > 1 - u:
        u_grad -= v_grad
        v_grad = 0.0
    elif v_raw < 0:
        v_grad = 0.0
    if u_raw < 0 or u_raw > 1:
        u_grad = 0.0
    # u = e0 / (e0 + e1 + e2) and v = e1 / (e0 + e1 + e2)
    shared = u_grad * u_raw + v_grad * v_raw
    g0, g1, g2 = (u_grad - shared) / total, (v_grad - shared) / total, -shared / total
    gx0, gy0 = g2 * y1 - g1 * y2, g1 * x2 - g2 * x1
    gx1, gy1 = g0 * y2 - g2 * y0, g2 * x0 - g0 * x2
    gx2, gy2 = g1 * y0 - g0 * y1, g0 * x1 - g1 * x0
    out[a, 0] += gx0
    out[a, 1] += gy0
    out[a, 2] += u * z_grad
    out[a, 3] += u * w_grad - x_ndc * gx0 - y_ndc * gy0
    out[b, 0] += gx1
    out[b, 1] += gy1
    out[b, 2] += v * z_grad
    out[b, 3] += v * w_grad - x_ndc * gx1 - y_ndc * gy1
    out[c, 0] += gx2
    out[c, 1] += gy2
    out[c, 2] += t * z_grad
    out[c, 3] += t * w_grad - x_ndc * gx2 - y_ndc * gy2
