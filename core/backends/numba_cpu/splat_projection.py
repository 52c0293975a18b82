"""Contains the CPU kernels that project Gaussians to ellipses, forward and backward.

One Gaussian at a time, in float64, all steps fused. The backward pass recomputes what it needs.
Gradients to the pose are summed per chunk of fixed size, then over chunks in order, so they do not
depend on the number of threads.

Symbols: W, t rotation and translation of the view; R, s rotation and scales of the Gaussian; J
Jacobian of the projection; A = J W; M = A R diag(s); covariance = M M^T + blur; inv = 1 / z.

Reference: Zwicker et al. 2001, "EWA Splatting"; Kerbl et al. 2023, Sec. 4.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..splat_view import ALPHA_MIN, COVARIANCE_BLUR_PX2
from .runtime import compiled
from .splat_harmonics import fill_basis, fill_basis_gradient

CHUNK = 512
POSE_SIZE = 15  # W (9), t (3), eye (3)


class Splats(NamedTuple):
    """Parameters of the Gaussians, float32 arrays."""

    means: Any
    scales: Any
    quats: Any
    opacities: Any
    harmonics: Any


class Lens(NamedTuple):
    """One view: matrix [4, 4], eye [3], focal x y, centre x y, ray limits (4), near, far."""

    matrix: Any
    eye: Any
    numbers: Any
    width: int
    height: int
    perspective: bool
    degree: int


class Ellipses(NamedTuple):
    """Projected Gaussians, float64; also the gradients to them (radii unused then)."""

    means2d: Any
    conics: Any
    features: Any
    radii: Any


@compiled()
def _fill_rotation(quats, g, rotation):
    """Rotation matrix of a quaternion of any length; returns one over that length."""
    w, x, y, z = quats[g, 0], quats[g, 1], quats[g, 2], quats[g, 3]
    inverse = 1.0 / math.sqrt(
        np.float64(w) * w + np.float64(x) * x + np.float64(y) * y + np.float64(z) * z
    )
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    rotation[0, 0] = 1 - 2 * (y * y + z * z)
    rotation[0, 1] = 2 * (x * y - w * z)
    rotation[0, 2] = 2 * (x * z + w * y)
    rotation[1, 0] = 2 * (x * y + w * z)
    rotation[1, 1] = 1 - 2 * (x * x + z * z)
    rotation[1, 2] = 2 * (y * z - w * x)
    rotation[2, 0] = 2 * (x * z - w * y)
    rotation[2, 1] = 2 * (y * z + w * x)
    rotation[2, 2] = 1 - 2 * (x * x + y * y)
    return inverse


@compiled()
def _fill_quat_gradient(quats, g, inverse, g_rot, out):
    """Gradient to the unnormalised quaternion from the gradient to its rotation matrix."""
    w, x, y, z = (
        quats[g, 0] * inverse,
        quats[g, 1] * inverse,
        quats[g, 2] * inverse,
        quats[g, 3] * inverse,
    )
    r = g_rot
    gw = 2 * (z * (r[1, 0] - r[0, 1]) + y * (r[0, 2] - r[2, 0]) + x * (r[2, 1] - r[1, 2]))
    gx = 2 * (
        y * (r[0, 1] + r[1, 0])
        + z * (r[0, 2] + r[2, 0])
        + w * (r[2, 1] - r[1, 2])
        - 2 * x * (r[1, 1] + r[2, 2])
    )
    gy = 2 * (
        x * (r[0, 1] + r[1, 0])
        + z * (r[1, 2] + r[2, 1])
        + w * (r[0, 2] - r[2, 0])
        - 2 * y * (r[0, 0] + r[2, 2])
    )
    gz = 2 * (
        x * (r[0, 2] + r[2, 0])
        + y * (r[1, 2] + r[2, 1])
        + w * (r[1, 0] - r[0, 1])
        - 2 * z * (r[0, 0] + r[1, 1])
    )
    along = gw * w + gx * x + gy * y + gz * z
    out[g, 0] = (gw - along * w) * inverse
    out[g, 1] = (gx - along * x) * inverse
    out[g, 2] = (gy - along * y) * inverse
    out[g, 3] = (gz - along * z) * inverse


@compiled()
def _fill_point(means, g, view, point):
    for i in range(3):
        point[i] = (
            view[i, 0] * means[g, 0]
            + view[i, 1] * means[g, 1]
            + view[i, 2] * means[g, 2]
            + view[i, 3]
        )


@compiled()
def _fill_ray(point, lens, perspective, ray):
    """(1/z, x/z, y/z) with the ray clamped to the image and its margin; (1, 0, 0) if parallel."""
    ray[0], ray[1], ray[2] = 1.0, 0.0, 0.0
    if perspective:
        ray[0] = 1.0 / point[2]
        ray[1] = min(max(point[0] * ray[0], lens[4]), lens[5])
        ray[2] = min(max(point[1] * ray[0], lens[6]), lens[7])


@compiled()
def _fill_factor(view, lens, ray, rotation, scales, g, a, p, m):
    """A = J W [2, 3], P = A R [2, 3], M = P diag(s) [2, 3]."""
    for j in range(3):
        a[0, j] = lens[0] * ray[0] * (view[0, j] - ray[1] * view[2, j])
        a[1, j] = lens[1] * ray[0] * (view[1, j] - ray[2] * view[2, j])
    for i in range(2):
        for k in range(3):
            p[i, k] = a[i, 0] * rotation[0, k] + a[i, 1] * rotation[1, k] + a[i, 2] * rotation[2, k]
            m[i, k] = p[i, k] * scales[g, k]


@compiled()
def _fill_direction(means, g, eye, perspective, direction):
    """Unit direction from the eye to the Gaussian; returns its length before normalisation."""
    for i in range(3):
        direction[i] = means[g, i] - eye[i] if perspective else eye[i]
    length = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    length = max(length, 1e-12)
    for i in range(3):
        direction[i] /= length
    return length


@compiled()
def _shortest_axis(scales, g, rotation, direction):
    """Index of the shortest axis and the sign that turns it towards the camera."""
    axis = 0
    for k in range(1, 3):
        if scales[g, k] < scales[g, axis]:
            axis = k
    away = 0.0
    for i in range(3):
        away += rotation[i, axis] * direction[i]
    return axis, -1.0 if away > 0 else 1.0


@compiled()
def _project_one(g, splats, lens, work, basis, out):
    view, numbers = lens.matrix, lens.numbers
    point, ray, direction = work[0, 0], work[0, 1], work[0, 2]
    _fill_point(splats.means, g, view, point)
    opacity = np.float64(splats.opacities[g])
    if not (numbers[8] < point[2] < numbers[9]) or opacity < ALPHA_MIN:
        return
    _fill_ray(point, numbers, lens.perspective, ray)
    rotation, a, p, m = work[1], work[2], work[3], work[4]
    _fill_rotation(splats.quats, g, rotation)
    _fill_factor(view, numbers, ray, rotation, splats.scales, g, a, p, m)
    xx = m[0, 0] ** 2 + m[0, 1] ** 2 + m[0, 2] ** 2 + COVARIANCE_BLUR_PX2
    yy = m[1, 0] ** 2 + m[1, 1] ** 2 + m[1, 2] ** 2 + COVARIANCE_BLUR_PX2
    xy = m[0, 0] * m[1, 0] + m[0, 1] * m[1, 1] + m[0, 2] * m[1, 2]
    u = numbers[0] * point[0] * ray[0] + numbers[2]
    v = numbers[1] * point[1] * ray[0] + numbers[3]
    reach = 2 * math.log(opacity / ALPHA_MIN)
    half_x, half_y = math.sqrt(reach * xx), math.sqrt(reach * yy)
    if u + half_x < 0.5 or u - half_x > lens.width - 0.5:
        return
    if v + half_y < 0.5 or v - half_y > lens.height - 0.5:
        return

    determinant = xx * yy - xy * xy
    out.means2d[g, 0], out.means2d[g, 1] = u, v
    out.conics[g, 0] = yy / determinant
    out.conics[g, 1] = -xy / determinant
    out.conics[g, 2] = xx / determinant
    middle = 0.5 * (xx + yy)
    spread = math.sqrt(max(middle * middle - determinant, 0.0))
    out.radii[g] = 3.0 * math.sqrt(middle + spread)
    _fill_direction(splats.means, g, lens.eye, lens.perspective, direction)
    fill_basis(direction[0], direction[1], direction[2], lens.degree, basis)
    for channel in range(3):
        color = 0.5
        for k in range((lens.degree + 1) ** 2):
            color += basis[k] * splats.harmonics[g, k, channel]
        out.features[g, channel] = max(color, 0.0)
    out.features[g, 3] = point[2]
    if out.features.shape[1] > 4:
        axis, sign = _shortest_axis(splats.scales, g, rotation, direction)
        for i in range(3):
            out.features[g, 4 + i] = sign * rotation[i, axis]


@compiled()
def project_forward(lane, num_lanes, splats, lens, out):
    """Project every num_lanes-th chunk of Gaussians; rows of undrawn ones keep their zeros."""
    count = splats.means.shape[0]
    work = np.empty((5, 3, 3))
    basis = np.empty(16)
    for chunk in range(lane, (count + CHUNK - 1) // CHUNK, num_lanes):
        for g in range(chunk * CHUNK, min(count, (chunk + 1) * CHUNK)):
            _project_one(g, splats, lens, work, basis, out)


@compiled()
def _factor_gradient(conics, g, g_conics, m, g_m):
    """Gradient to M from the gradient to the conic (inverse of M M^T + blur)."""
    a, b, c = conics[g, 0], conics[g, 1], conics[g, 2]
    ga, gb, gc = g_conics[g, 0], g_conics[g, 1], g_conics[g, 2]
    g_xx = -(a * a * ga + a * b * gb + b * b * gc)
    g_yy = -(b * b * ga + b * c * gb + c * c * gc)
    g_xy = -(2 * a * b * ga + (a * c + b * b) * gb + 2 * b * c * gc)
    for k in range(3):
        g_m[0, k] = 2 * g_xx * m[0, k] + g_xy * m[1, k]
        g_m[1, k] = 2 * g_yy * m[1, k] + g_xy * m[0, k]


@compiled()
def _color_gradient(g, splats, lens, ellipses, slopes, work, basis, g_harmonics):
    """Gradients to the harmonics and, in work[8, 1], to the offset of the Gaussian from the eye."""
    direction, g_direction = work[0, 2], work[8, 1]
    length = _fill_direction(splats.means, g, lens.eye, lens.perspective, direction)
    values, g_values = basis[0], basis[1]
    fill_basis(direction[0], direction[1], direction[2], lens.degree, values)
    for k in range(16):
        g_values[k] = 0.0
    for channel in range(3):
        if ellipses.features[g, channel] > 0:  # else clamped at black
            slope = slopes.features[g, channel]
            for k in range((lens.degree + 1) ** 2):
                g_harmonics[g, k, channel] = values[k] * slope
                g_values[k] += splats.harmonics[g, k, channel] * slope
    fill_basis_gradient(
        direction[0], direction[1], direction[2], lens.degree, g_values, g_direction
    )
    along = 0.0
    for i in range(3):
        along += g_direction[i] * direction[i]
    for i in range(3):
        g_direction[i] = (g_direction[i] - along * direction[i]) / length


@compiled()
def _shape_gradient(g, splats, lens, ellipses, slopes, work, out):
    """Gradients to scales and quaternion, and in work[7] to A = J W."""
    a, p, m = work[2], work[3], work[4]
    rotation, direction = work[1], work[0, 2]
    g_m, g_rot, g_a = work[5], work[6], work[7]
    inverse = _fill_rotation(splats.quats, g, rotation)
    _fill_factor(lens.matrix, lens.numbers, work[0, 1], rotation, splats.scales, g, a, p, m)
    _factor_gradient(ellipses.conics, g, slopes.conics, m, g_m)
    for k in range(3):
        out.scales[g, k] = g_m[0, k] * p[0, k] + g_m[1, k] * p[1, k]
        g_m[0, k] *= splats.scales[g, k]  # now the gradient to P
        g_m[1, k] *= splats.scales[g, k]
    for j in range(3):
        g_a[0, j] = g_a[1, j] = 0.0
        for k in range(3):
            g_rot[j, k] = g_m[0, k] * a[0, j] + g_m[1, k] * a[1, j]
            g_a[0, j] += g_m[0, k] * rotation[j, k]
            g_a[1, j] += g_m[1, k] * rotation[j, k]
    if ellipses.features.shape[1] > 4:
        axis, sign = _shortest_axis(splats.scales, g, rotation, direction)
        for i in range(3):
            g_rot[i, axis] += sign * slopes.features[g, 4 + i]
    _fill_quat_gradient(splats.quats, g, inverse, g_rot, out.quats)


@compiled()
def _point_gradient(g, lens, slopes, work, pose):
    """Gradient to the camera-space point, in work[8, 0]; A = focal / z (W_row - ray W_2)."""
    point, ray, g_point = work[0, 0], work[0, 1], work[8, 0]
    a, g_a, numbers = work[2], work[7], lens.numbers
    gu, gv = slopes.means2d[g, 0], slopes.means2d[g, 1]
    g_inv, g_ray_x, g_ray_y = 0.0, 0.0, 0.0
    for j in range(3):
        first, second = numbers[0] * ray[0] * g_a[0, j], numbers[1] * ray[0] * g_a[1, j]
        pose[j] += first
        pose[3 + j] += second
        pose[6 + j] -= ray[1] * first + ray[2] * second
        g_ray_x -= first * lens.matrix[2, j]
        g_ray_y -= second * lens.matrix[2, j]
        g_inv += (g_a[0, j] * a[0, j] + g_a[1, j] * a[1, j]) / ray[0]
    g_point[0] = gu * numbers[0] * ray[0]
    g_point[1] = gv * numbers[1] * ray[0]
    g_point[2] = slopes.features[g, 3]
    if lens.perspective:
        g_inv += gu * numbers[0] * point[0] + gv * numbers[1] * point[1]
        if numbers[4] <= point[0] * ray[0] <= numbers[5]:
            g_point[0] += g_ray_x * ray[0]
            g_inv += g_ray_x * point[0]
        if numbers[6] <= point[1] * ray[0] <= numbers[7]:
            g_point[1] += g_ray_y * ray[0]
            g_inv += g_ray_y * point[1]
        g_point[2] -= g_inv * ray[0] * ray[0]


@compiled()
def _project_one_backward(g, splats, lens, ellipses, slopes, work, basis, out, pose):
    _fill_point(splats.means, g, lens.matrix, work[0, 0])
    _fill_ray(work[0, 0], lens.numbers, lens.perspective, work[0, 1])
    _color_gradient(g, splats, lens, ellipses, slopes, work, basis, out.harmonics)
    _shape_gradient(g, splats, lens, ellipses, slopes, work, out)
    _point_gradient(g, lens, slopes, work, pose)
    view, g_point, g_offset = lens.matrix, work[8, 0], work[8, 1]
    for i in range(3):
        slope = view[0, i] * g_point[0] + view[1, i] * g_point[1] + view[2, i] * g_point[2]
        if lens.perspective:
            slope += g_offset[i]
            pose[12 + i] -= g_offset[i]
        else:
            pose[12 + i] += g_offset[i]
        out.means[g, i] = slope
        pose[9 + i] += g_point[i]
        for j in range(3):
            pose[3 * i + j] += g_point[i] * splats.means[g, j]


@compiled()
def project_backward(lane, num_lanes, splats, lens, ellipses, slopes, out, parts):
    """Gradients to the parameters and to the pose (W row-major, t, eye), one row per chunk.

    ``slopes`` holds the gradients to ``ellipses``; outputs start at zero. The opacities play no
    part in the projection.
    """
    count = splats.means.shape[0]
    work = np.empty((9, 3, 3))
    basis = np.empty((2, 16))
    for chunk in range(lane, (count + CHUNK - 1) // CHUNK, num_lanes):
        for g in range(chunk * CHUNK, min(count, (chunk + 1) * CHUNK)):
            if ellipses.radii[g] > 0:
                _project_one_backward(
                    g, splats, lens, ellipses, slopes, work, basis, out, parts[chunk]
                )
