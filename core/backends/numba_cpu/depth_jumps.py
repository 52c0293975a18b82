"""Contains the compiled search for depth jumps between neighbouring pixels."""

from __future__ import annotations

import numba
import numpy as np

from .runtime import compiled


@compiled(parallel=True)
def find_depth_jumps(planes, covered, pose, camera, limit_px, jumps):  # type: ignore[no-untyped-def]
    """Mark pixels with a neighbour (of eight) that shows a surface further away than the limit.

    Args:
        planes: [height, width, 4] world-space plane shown at each pixel.
        covered: [height, width] bool.
        pose: camera to world, [4, 4], float64.
        camera: focal length in pixels, 1 for perspective.
        limit_px: distance across the planes, in pixel sizes at the nearer pixel.
        jumps: [height, width] bool, changed in place.
    """
    height, width = covered.shape
    focal, perspective = camera
    local = np.empty((height, width, 4))
    for y in numba.prange(height):
        for x in range(width):
            if covered[y, x]:
                _surface_point(planes[y, x], pose, focal, perspective, x, y, height, width, local)
    for y in numba.prange(height):
        for x in range(width):
            jumps[y, x] = covered[y, x] and _jumps_to_neighbour(
                planes, covered, local, limit_px, x, y
            )


@compiled()
def _surface_point(plane, pose, focal, perspective, x, y, height, width, local):  # type: ignore[no-untyped-def]
    """World point on the plane at a pixel centre, and the size of a pixel there."""
    rx, ry = (x + 0.5 - width / 2) / focal, (height / 2 - y - 0.5) / focal
    nx = plane[0] * pose[0, 0] + plane[1] * pose[1, 0] + plane[2] * pose[2, 0]
    ny = plane[0] * pose[0, 1] + plane[1] * pose[1, 1] + plane[2] * pose[2, 1]
    nz = plane[0] * pose[0, 2] + plane[1] * pose[1, 2] + plane[2] * pose[2, 2]
    offset = plane[3] + plane[0] * pose[0, 3] + plane[1] * pose[1, 3] + plane[2] * pose[2, 3]
    sideways = nx * rx + ny * ry
    if perspective > 0:
        slope = sideways - nz
        depth = -offset / (slope if abs(slope) > 1e-9 else 1e-9)
        rx, ry = rx * depth, ry * depth
    else:
        depth = (sideways + offset) / (nz if abs(nz) > 1e-9 else 1e-9)
    for axis in range(3):
        local[y, x, axis] = (
            pose[axis, 0] * rx + pose[axis, 1] * ry - pose[axis, 2] * depth + pose[axis, 3]
        )
    local[y, x, 3] = depth / focal if perspective > 0 else 1.0 / focal


@compiled()
def _jumps_to_neighbour(planes, covered, local, limit_px, x, y):  # type: ignore[no-untyped-def]
    height, width = covered.shape
    for row in range(max(y - 1, 0), min(y + 2, height)):
        for column in range(max(x - 1, 0), min(x + 2, width)):
            if not covered[row, column]:
                continue
            here, there = 0.0, 0.0
            for axis in range(3):
                step = local[row, column, axis] - local[y, x, axis]
                here += planes[y, x, axis] * step
                there += planes[row, column, axis] * step
            limit = limit_px * min(local[y, x, 3], local[row, column, 3])
            if abs(here) > limit or abs(there) > limit:
                return True
    return False
