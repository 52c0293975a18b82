"""Contains the kernels that interpolate vertex attributes over a raster, and their gradient.

Imported lazily: it needs numba.
"""

from __future__ import annotations

import numba
import numpy as np

from .runtime import compiled


@compiled(parallel=True)
def interpolate_forward(attributes, rast, faces, out):
    """Fill ``out`` [view, height, width, channel]; zero on the background.

    ``attributes`` is [view or 1, vertex, channel]: one set may serve all views.
    """
    views, height, width = rast.shape[:3]
    channels = attributes.shape[2]
    for row in numba.prange(views * height):
        view, y = row // height, row % height
        values, pixels, filled = attributes[view % attributes.shape[0]], rast[view, y], out[view, y]
        for x in range(width):
            face = np.int64(pixels[x, 3]) - 1
            if face < 0:
                for k in range(channels):
                    filled[x, k] = 0.0
                continue
            u, v = pixels[x, 0], pixels[x, 1]
            t = 1.0 - (u + v)
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            for k in range(channels):
                filled[x, k] = u * values[a, k] + v * values[b, k] + t * values[c, k]


@compiled(parallel=True)
def weights_backward(attributes, rast, faces, grad, grad_rast):
    """Fill ``grad_rast`` with the gradient with respect to u and v; zero elsewhere."""
    views, height, width = rast.shape[:3]
    channels = attributes.shape[2]
    for row in numba.prange(views * height):
        view, y = row // height, row % height
        values, pixels = attributes[view % attributes.shape[0]], rast[view, y]
        given, filled = grad[view, y], grad_rast[view, y]
        for x in range(width):
            face = np.int64(pixels[x, 3]) - 1
            u_grad, v_grad = 0.0, 0.0
            if face >= 0:
                a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
                for k in range(channels):
                    u_grad += given[x, k] * (values[a, k] - values[c, k])
                    v_grad += given[x, k] * (values[b, k] - values[c, k])
            filled[x, 0] = u_grad
            filled[x, 1] = v_grad
            filled[x, 2] = 0.0
            filled[x, 3] = 0.0


@compiled(parallel=True)
def attributes_backward(rast, faces, grad, vertices, parts):
    """Gradient with respect to the attributes, one buffer per view and part of the rows.

    Returns [view, part, vertex, channel]; every buffer has one writer, in a fixed order.
    """
    views, height, width = rast.shape[:3]
    channels = grad.shape[3]
    out = np.zeros((views, parts, vertices, channels))
    for task in numba.prange(views * parts):
        view, part = task // parts, task % parts
        buffer = out[view, part]
        for y in range(height * part // parts, height * (part + 1) // parts):
            pixels, given = rast[view, y], grad[view, y]
            for x in range(width):
                face = np.int64(pixels[x, 3]) - 1
                if face < 0:
                    continue
                u, v = pixels[x, 0], pixels[x, 1]
                t = 1.0 - (u + v)
                a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
                for k in range(channels):
                    value = given[x, k]
                    buffer[a, k] += u * value
                    buffer[b, k] += v * value
                    buffer[c, k] += t * value
    return out
