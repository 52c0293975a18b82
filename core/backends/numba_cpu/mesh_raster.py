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

SHIFT = 8
HALF = SUBPIXELS // 2
assert SUBPIXELS == 1 << SHIFT
BAND_ROWS = 16
CHUNKS = 4  # parts of the triangle list that are sorted into bands at the same time
FUSED = {"contract", "nsz"}  # multiply and add in one step; never changes what is covered
NARROW_PX = 10  # up to here testing each pixel of a row is faster than solving for its ends


@compiled()
def _first_centre(value):
    """Index of the first pixel whose centre lies at or after a fixed-point coordinate."""
    return (value + HALF - 1) >> SHIFT


@compiled()
def _last_centre(value):
    """Index of the last pixel whose centre lies at or before a fixed-point coordinate."""
    return (value - HALF) >> SHIFT


@compiled()
def _band_span(x0, y0, x1, y1, x2, y2, width, height):
    """First and last band that a triangle touches; an empty range if it covers no centre."""
    x_low = max(_first_centre(min(x0, x1, x2)), 0)
    y_low = max(_first_centre(min(y0, y1, y2)), 0)
    x_high = min(_last_centre(max(x0, x1, x2)), width - 1)
    y_high = min(_last_centre(max(y0, y1, y2)), height - 1)
    if x_low > x_high or y_low > y_high or (x1 - x0) * (y2 - y0) == (x2 - x0) * (y1 - y0):
        return 0, -1
    return y_low // BAND_ROWS, y_high // BAND_ROWS


@compiled(parallel=True)
def sort_into_bands(faces, xy, outside, piece_xy, piece_first, width, height):
    """Lists of the triangles that touch each band, in ascending order.

    Triangle numbers from the number of faces on stand for the pieces of clipped faces.

    Returns:
        The lists one after the other, and where the list of each (view, band) begins.
    """
    views, num_faces = xy.shape[0], faces.shape[0]
    bands = (height + BAND_ROWS - 1) // BAND_ROWS
    most = num_faces
    for view in range(views):
        most = max(most, num_faces + piece_first[view + 1] - piece_first[view])
    spans = np.empty((views, most, 2), np.int16)
    counts = np.zeros((views, CHUNKS, bands), np.int64)
    for task in numba.prange(views * CHUNKS):
        view, chunk = task // CHUNKS, task % CHUNKS
        total = num_faces + piece_first[view + 1] - piece_first[view]
        for triangle in range(total * chunk // CHUNKS, total * (chunk + 1) // CHUNKS):
            low, high = 0, -1
            if triangle >= num_faces:
                corners = piece_xy[piece_first[view] + triangle - num_faces]
                low, high = _band_span(
                    np.int64(corners[0, 0]), np.int64(corners[0, 1]),
                    np.int64(corners[1, 0]), np.int64(corners[1, 1]),
                    np.int64(corners[2, 0]), np.int64(corners[2, 1]), width, height,
                )  # fmt: skip
            else:
                a, b, c = faces[triangle, 0], faces[triangle, 1], faces[triangle, 2]
                if (outside[view, a] | outside[view, b] | outside[view, c]) == 0:
                    low, high = _band_span(
                        np.int64(xy[view, a, 0]), np.int64(xy[view, a, 1]),
                        np.int64(xy[view, b, 0]), np.int64(xy[view, b, 1]),
                        np.int64(xy[view, c, 0]), np.int64(xy[view, c, 1]), width, height,
                    )  # fmt: skip
            spans[view, triangle, 0] = low
            spans[view, triangle, 1] = high
            for band in range(low, high + 1):
                counts[view, chunk, band] += 1
    starts = np.empty((views, CHUNKS, bands), np.int64)
    first = np.empty(views * bands + 1, np.int64)
    used = 0
    for view in range(views):
        for band in range(bands):
            first[view * bands + band] = used
            for chunk in range(CHUNKS):
                starts[view, chunk, band] = used
                used += counts[view, chunk, band]
    first[views * bands] = used
    listed = np.empty(used, np.uint32)
    for task in numba.prange(views * CHUNKS):
        view, chunk = task // CHUNKS, task % CHUNKS
        total = num_faces + piece_first[view + 1] - piece_first[view]
        for triangle in range(total * chunk // CHUNKS, total * (chunk + 1) // CHUNKS):
            for band in range(spans[view, triangle, 0], spans[view, triangle, 1] + 1):
                listed[starts[view, chunk, band]] = triangle
                starts[view, chunk, band] += 1
    return listed, first


@compiled(parallel=True, fastmath=FUSED)
def draw_bands(
    clip, faces, xy, depth, piece_xy, piece_depth, piece_face, piece_first, listed, first, rast
):
    """Fill ``rast`` [view, height, width, 4] with (u, v, z/w, face + 1); zero on the background."""
    views, height, width = rast.shape[:3]
    bands = (height + BAND_ROWS - 1) // BAND_ROWS
    num_faces = faces.shape[0]
    for slot in numba.prange(views * bands):
        view, band = slot // bands, slot % bands
        top = band * BAND_ROWS
        rows = min(BAND_ROWS, height - top)
        points, pixels, z_of = clip[view], xy[view], depth[view]
        nearest = np.full(rows * width, np.inf)
        visible = np.full(rows * width, -1, np.int32)
        for entry in range(first[slot], first[slot + 1]):
            triangle = listed[entry]
            if triangle < num_faces:
                face = triangle
                a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
                x0, y0 = np.int64(pixels[a, 0]), np.int64(pixels[a, 1])
                x1, y1 = np.int64(pixels[b, 0]), np.int64(pixels[b, 1])
                x2, y2 = np.int64(pixels[c, 0]), np.int64(pixels[c, 1])
                z0, z1, z2 = z_of[a], z_of[b], z_of[c]
            else:
                piece = piece_first[view] + triangle - num_faces
                face = piece_face[piece]
                a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
                x0, y0 = np.int64(piece_xy[piece, 0, 0]), np.int64(piece_xy[piece, 0, 1])
                x1, y1 = np.int64(piece_xy[piece, 1, 0]), np.int64(piece_xy[piece, 1, 1])
                x2, y2 = np.int64(piece_xy[piece, 2, 0]), np.int64(piece_xy[piece, 2, 1])
                z0, z1, z2 = piece_depth[piece, 0], piece_depth[piece, 1], piece_depth[piece, 2]
            z_x, z_y, z_1 = _depth_plane(points, a, b, c)
            _draw(
                x0, y0, x1, y1, x2, y2, face, z_x, z_y, z_1, min(z0, z1, z2), max(z0, z1, z2),
                top, rows, width, height, nearest, visible,
            )  # fmt: skip
        for row in range(rows):
            _finish_row(points, faces, visible, row * width, top + row, height, rast[view])


@compiled(fastmath=FUSED)
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
    scale = 1 / determinant if determinant != 0 else 1.0
    return (
        (z0 * c0x + z1 * c1x + z2 * c2x) * scale,
        (z0 * c0y + z1 * c1y + z2 * c2y) * scale,
        (z0 * c0w + z1 * c1w + z2 * c2w) * scale,
    )


@compiled(fastmath=FUSED)
def _draw(
    x0, y0, x1, y1, x2, y2, face, z_x, z_y, z_1, z_low, z_high,
    top, rows, width, height, nearest, visible,
):  # fmt: skip
    """Draw one triangle into a band: exact coverage, nearest depth, lowest face on equal depth."""
    if (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0) < 0:
        x1, y1, x2, y2 = x2, y2, x1, y1
    x_low = max(_first_centre(min(x0, x1, x2)), 0)
    x_high = min(_last_centre(max(x0, x1, x2)), width - 1)
    y_low = max(_first_centre(min(y0, y1, y2)), top)
    y_high = min(_last_centre(max(y0, y1, y2)), top + rows - 1)
    dx0, dy0, dx1, dy1, dx2, dy2 = x1 - x0, y1 - y0, x2 - x1, y2 - y1, x0 - x2, y0 - y2
    # An edge owns the centres exactly on it or not, opposite to the same edge of its neighbour.
    px, py = x_low * SUBPIXELS + HALF, y_low * SUBPIXELS + HALF
    row0 = dx0 * (py - y0) - dy0 * (px - x0) - (0 if dy0 > 0 or (dy0 == 0 and dx0 > 0) else 1)
    row1 = dx1 * (py - y1) - dy1 * (px - x1) - (0 if dy1 > 0 or (dy1 == 0 and dx1 > 0) else 1)
    row2 = dx2 * (py - y2) - dy2 * (px - x2) - (0 if dy2 > 0 or (dy2 == 0 and dx2 > 0) else 1)
    step0, step1, step2 = -dy0 * SUBPIXELS, -dy1 * SUBPIXELS, -dy2 * SUBPIXELS
    wide = x_high - x_low > NARROW_PX
    x_scale, y_scale = 2.0 / width, 2.0 / height
    for y in range(y_low, y_high + 1):
        start, end = x_low, x_high
        if wide:
            start, end = _solve_row(row0, step0, x_low, start, end)
            start, end = _solve_row(row1, step1, x_low, start, end)
            start, end = _solve_row(row2, step2, x_low, start, end)
        z_row = z_y * (1.0 - (y + 0.5) * y_scale)
        e0 = row0 + step0 * (start - x_low)
        e1 = row1 + step1 * (start - x_low)
        e2 = row2 + step2 * (start - x_low)
        pixel = (y - top) * width + start
        for x in range(start, end + 1):
            if (e0 | e1 | e2) >= 0:
                # Triangles seen edge-on have steep planes: stay within what their corners reach.
                z = z_x * ((x + 0.5) * x_scale - 1.0) + z_row + z_1
                z = min(max(z, z_low), z_high)
                if z <= 1 and (
                    z < nearest[pixel] or (z == nearest[pixel] and face < visible[pixel])
                ):
                    nearest[pixel] = z
                    visible[pixel] = face
            pixel += 1
            e0 += step0
            e1 += step1
            e2 += step2
        row0 += dx0 * SUBPIXELS
        row1 += dx1 * SUBPIXELS
        row2 += dx2 * SUBPIXELS


@compiled()
def _solve_row(value, step, x_low, start, end):
    """Narrow start..end to the columns where value + step (x - x_low) >= 0."""
    if step > 0:
        start = max(start, x_low - value // step)  # the ceiling of -value / step
    elif step < 0:
        end = min(end, x_low + value // -step)
    elif value < 0:
        end = start - 1
    return start, end


@compiled(fastmath=FUSED)
def _finish_row(clip, faces, visible, offset, y, height, out):
    """Weights and depth of the visible faces of one pixel row."""
    width = out.shape[1]
    x_scale = 2.0 / width
    y_ndc = 1.0 - (y + 0.5) * (2.0 / height)
    for x in range(width):
        face = visible[offset + x]
        if face < 0:
            out[y, x, 0] = 0.0
            out[y, x, 1] = 0.0
            out[y, x, 2] = 0.0
            out[y, x, 3] = 0.0
            continue
        x_ndc = (x + 0.5) * x_scale - 1.0
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        w0, w1, w2 = clip[a, 3], clip[b, 3], clip[c, 3]
        x0, y0 = clip[a, 0] - x_ndc * w0, clip[a, 1] - y_ndc * w0
        x1, y1 = clip[b, 0] - x_ndc * w1, clip[b, 1] - y_ndc * w1
        x2, y2 = clip[c, 0] - x_ndc * w2, clip[c, 1] - y_ndc * w2
        e0, e1, e2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
        total = e0 + e1 + e2
        scale = 1 / total if total != 0 else 1.0
        # Snapping lets a triangle cover centres up to 1/512 px outside: stay on the triangle.
        u = min(max(e0 * scale, 0.0), 1.0)
        v = min(max(e1 * scale, 0.0), 1 - u)
        t = 1 - (u + v)
        depth = (u * clip[a, 2] + v * clip[b, 2] + t * clip[c, 2]) / (u * w0 + v * w1 + t * w2)
        out[y, x, 0] = u
        out[y, x, 1] = v
        out[y, x, 2] = depth
        out[y, x, 3] = face + 1


@compiled(parallel=True, fastmath=FUSED)
def raster_backward(clip, faces, rast, grad_rast, parts):
    """Gradient of u, v and z/w with respect to clip positions.

    Returns one buffer per (view, part of the rows) [view, part, vertex, 4]; their sum over the
    parts is the gradient. Every buffer has one writer, in a fixed order.
    """
    views, height, width = rast.shape[:3]
    out = np.zeros((views, parts, clip.shape[1], 4))
    x_scale, y_scale = 2.0 / width, 2.0 / height
    for task in numba.prange(views * parts):
        view, part = task // parts, task % parts
        points, pixels, grads, buffer = clip[view], rast[view], grad_rast[view], out[view, part]
        for y in range(height * part // parts, height * (part + 1) // parts):
            y_ndc = 1.0 - (y + 0.5) * y_scale
            for x in range(width):
                face = np.int64(pixels[y, x, 3]) - 1
                u_grad = np.float64(grads[y, x, 0])
                v_grad = np.float64(grads[y, x, 1])
                z_grad = np.float64(grads[y, x, 2])
                if face >= 0 and (u_grad != 0 or v_grad != 0 or z_grad != 0):
                    a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
                    x_ndc = (x + 0.5) * x_scale - 1.0
                    _pixel_backward(points, a, b, c, x_ndc, y_ndc, u_grad, v_grad, z_grad, buffer)
    return out


@compiled(fastmath=FUSED)
def _pixel_backward(clip, a, b, c, x_ndc, y_ndc, u_grad, v_grad, z_grad, out):
    """Add the gradient of one pixel to the three corners (a, b, c) of its face."""
    z0, z1, z2 = clip[a, 2], clip[b, 2], clip[c, 2]
    w0, w1, w2 = clip[a, 3], clip[b, 3], clip[c, 3]
    x0, y0 = clip[a, 0] - x_ndc * w0, clip[a, 1] - y_ndc * w0
    x1, y1 = clip[b, 0] - x_ndc * w1, clip[b, 1] - y_ndc * w1
    x2, y2 = clip[c, 0] - x_ndc * w2, clip[c, 1] - y_ndc * w2
    e0, e1, e2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    total = e0 + e1 + e2
    if total == 0:
        return
    scale = 1 / total
    u_raw, v_raw = e0 * scale, e1 * scale
    u = min(max(u_raw, 0.0), 1.0)
    v = min(max(v_raw, 0.0), 1 - u)
    t = 1 - (u + v)
    w_grad = 0.0
    if z_grad != 0:  # z/w = (b . z) / (b . w) with weights b
        over_w = 1 / (u * w0 + v * w1 + t * w2)
        z_grad *= over_w
        w_grad = -z_grad * over_w * (u * z0 + v * z1 + t * z2)
        u_grad += z_grad * (z0 - z2) + w_grad * (w0 - w2)
        v_grad += z_grad * (z1 - z2) + w_grad * (w1 - w2)
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
    g0, g1, g2 = (u_grad - shared) * scale, (v_grad - shared) * scale, -shared * scale
    gx0, gy0 = g2 * y1 - g1 * y2, g1 * x2 - g2 * x1
    gx1, gy1 = g0 * y2 - g2 * y0, g2 * x0 - g0 * x2
    gx2, gy2 = g1 * y0 - g0 * y1, g0 * x1 - g1 * x0
    out[a, 0] += gx0
    out[a, 1] += gy0
    out[a, 3] += u * w_grad - x_ndc * gx0 - y_ndc * gy0
    out[b, 0] += gx1
    out[b, 1] += gy1
    out[b, 3] += v * w_grad - x_ndc * gx1 - y_ndc * gy1
    out[c, 0] += gx2
    out[c, 1] += gy2
    out[c, 3] += t * w_grad - x_ndc * gx2 - y_ndc * gy2
    if z_grad != 0:
        out[a, 2] += u * z_grad
        out[b, 2] += v * z_grad
        out[c, 2] += t * z_grad
