"""Contains the compiled test of which points a view shows, in one pass over the points."""

from __future__ import annotations

import math

import numba
import numpy as np

from .runtime import compiled


@compiled(parallel=True)
def observe(  # type: ignore[no-untyped-def]
    points, normals, candidates, pose, camera, limits, planes, covered, trust, out
):
    """Fill ``out`` [candidate, 5] with cosine, confidence, purity and pixel x, y; cosine 0: unseen.

    Args:
        points: [point, 3].
        normals: [point, 3].
        candidates: indices of the points to look at.
        pose: camera to world, [4, 4], float64.
        camera: focal length in pixels, near, far, 1 for perspective, 1 for directions per ray.
        limits: smallest cosine, bias in pixels (negative: no test for hidden points), 1 if both
            sides of the surface count, 1 if pure pixels without confidence count.
        planes: [height, width, 4].
        covered: [height, width] bool.
        trust: [height, width, 2]: confidence and purity.
        out: float32, changed in place.
    """
    focal, near, far, perspective, per_ray = camera
    min_cosine, bias_px, two_sided, use_pure = limits
    height, width = covered.shape
    for item in numba.prange(len(candidates)):
        point = candidates[item]
        px, py, pz = points[point, 0], points[point, 1], points[point, 2]
        nx, ny, nz = normals[point, 0], normals[point, 1], normals[point, 2]
        out[item, 0] = 0.0
        dx, dy, dz = pose[0, 3] - px, pose[1, 3] - py, pose[2, 3] - pz
        depth = dx * pose[0, 2] + dy * pose[1, 2] + dz * pose[2, 2]
        if not (depth > near and depth < far):
            continue
        if per_ray > 0 and perspective > 0:
            length = math.sqrt(dx * dx + dy * dy + dz * dz)
            cosine = (nx * dx + ny * dy + nz * dz) / max(length, 1e-12)
        else:
            cosine = nx * pose[0, 2] + ny * pose[1, 2] + nz * pose[2, 2]
        if two_sided > 0:
            cosine = abs(cosine)
        if cosine <= min_cosine:
            continue
        scale = focal / depth if perspective > 0 else focal
        x = width / 2 - scale * (dx * pose[0, 0] + dy * pose[1, 0] + dz * pose[2, 0])
        y = height / 2 + scale * (dx * pose[0, 1] + dy * pose[1, 1] + dz * pose[2, 1])
        if not (x > 0 and x < width and y > 0 and y < height):
            continue
        column, row = int(math.floor(x - 0.5)), int(math.floor(y - 0.5))
        fx, fy = x - 0.5 - column, y - 0.5 - row
        confidence, purity, surface, visible = 0.0, 0.0, False, False
        for tap in range(4):
            u, v = tap & 1, tap >> 1
            c = min(max(column + u, 0), width - 1)
            r = min(max(row + v, 0), height - 1)
            share = (fx if u else 1 - fx) * (fy if v else 1 - fy)
            confidence += share * trust[r, c, 0]
            purity += share * trust[r, c, 1]
            if covered[r, c]:
                surface = True
                plane = planes[r, c]
                distance = plane[0] * px + plane[1] * py + plane[2] * pz + plane[3]
                if distance >= -bias_px / scale:
                    visible = True
        hidden = bias_px >= 0 and surface and not visible
        if hidden or not (confidence > 0 or (use_pure > 0 and purity > 0)):
            continue
        out[item, 0] = np.float32(cosine)
        out[item, 1] = np.float32(confidence)
        out[item, 2] = np.float32(purity)
        out[item, 3] = np.float32(x)
        out[item, 4] = np.float32(y)
