"""Contains plane and space polylines for solids: smooth curves, rounded corners, triangulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Points = Sequence[Any] | np.ndarray


def as_points(points: Points, columns: int) -> np.ndarray:
    """Points as a float64 array [point, columns].

    Raises:
        ValueError: another shape, or fewer than two points.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != columns or len(array) < 2:
        raise ValueError(f"points must be [point >= 2, {columns}], got {list(array.shape)}.")
    return array


def smooth_curve(points: Points, *, samples: int = 6) -> np.ndarray:
    """Catmull-Rom curve through all points: ``samples`` steps for each segment.

    Reference: Catmull and Rom 1974 (uniform knots); the end tangents point along the end segments.
    """
    given = np.asarray(points, dtype=np.float64)
    padded = np.concatenate([2 * given[:1] - given[1:2], given, 2 * given[-1:] - given[-2:-1]])
    t = (np.arange(samples) / samples)[:, None]
    pieces = []
    for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        linear, square, cube = c - a, 2 * a - 5 * b + 4 * c - d, 3 * b - a - 3 * c + d
        pieces.append(b + 0.5 * (t * linear + t**2 * square + t**3 * cube))
    return np.concatenate([*pieces, given[-1:]])


def smooth_profile(points: Points, *, samples: int = 6) -> np.ndarray:
    """Catmull-Rom profile of (radius, y) whose radii do not overshoot below zero."""
    curve = smooth_curve(points, samples=samples)
    curve[:, 0] = np.maximum(curve[:, 0], 0.0)
    return curve


def round_corners(
    points: Points, radius: float, *, steps: int = 3, closed: bool = True
) -> np.ndarray:
    """Polyline in the plane with every corner replaced by a quadratic curve.

    Args:
        points: corners [point, 2].
        radius: distance from the corner where the curve begins; at most 45 % of either side.
        steps: segments of each curve.
        closed: the last point joins the first; otherwise both ends stay as they are.
    """
    corners = as_points(points, 2)
    t = np.linspace(0.0, 1.0, steps + 1)[:, None]
    rounded = [] if closed else [corners[:1]]
    for i in range(0 if closed else 1, len(corners) if closed else len(corners) - 1):
        corner = corners[i]
        before, after = corners[i - 1] - corner, corners[(i + 1) % len(corners)] - corner
        lengths = np.linalg.norm(before), np.linalg.norm(after)
        start, end = (
            corner + side / length * min(radius, 0.45 * length)
            for side, length in zip((before, after), lengths, strict=True)
        )
        rounded.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end)
    return np.concatenate(rounded if closed else [*rounded, corners[-1:]])


def circle(radius: float, count: int = 24, *, start_deg: float = 0.0) -> np.ndarray:
    """Regular polygon [count, 2], counter-clockwise from ``start_deg``."""
    angles = np.radians(start_deg) + np.arange(count) * (2 * np.pi / count)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def arc(
    center: Sequence[float],
    radii: Sequence[float],
    start_deg: float,
    end_deg: float,
    count: int = 12,
) -> np.ndarray:
    """Points [count, 2] on an ellipse from one angle to another, both included."""
    angles = np.radians(np.linspace(start_deg, end_deg, count))
    return np.stack(
        [center[0] + radii[0] * np.cos(angles), center[1] + radii[1] * np.sin(angles)], axis=1
    )


def star(points: int, outer: float, inner: float, *, start_deg: float = 90.0) -> np.ndarray:
    """Outline of a star with ``points`` tips, counter-clockwise."""
    angles = np.radians(start_deg) + np.arange(2 * points) * (np.pi / points)
    radii = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def triangulate_polygon(outline: np.ndarray) -> np.ndarray:
    """Triangles [face, 3] of a simple counter-clockwise polygon by ear clipping.

    Reference: Meisters 1975, polygons have ears. Quadratic; meant for up to a few hundred corners.

    Raises:
        ValueError: no ear was found, so the outline crosses itself or runs clockwise.
    """
    left = list(range(len(outline)))
    triangles = []
    while len(left) > 3:
        ear = _find_ear(outline, left)
        if ear is None:
            raise ValueError("The outline crosses itself or runs clockwise; it has no ear left.")
        triangles.append((left[ear - 1], left[ear], left[(ear + 1) % len(left)]))
        del left[ear]
    return np.array([*triangles, tuple(left)], dtype=np.int64)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _find_ear(outline: np.ndarray, left: list[int]) -> int | None:
    # The convex corner with the shortest diagonal whose triangle holds no other corner.
    ring = outline[left]
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    convex = _cross(ring - before, after - ring) > 1e-14
    order = np.argsort(np.linalg.norm(after - before, axis=1), kind="stable")
    for i in order[convex[order]]:
        corners = before[i], ring[i], after[i]
        others = np.delete(ring, [(i - 1) % len(left), i, (i + 1) % len(left)], axis=0)
        inside = np.ones(len(others), dtype=bool)
        for a, b in zip(corners, (*corners[1:], corners[0]), strict=True):
            inside &= _cross(b - a, others - a) >= -1e-14
        if not inside.any():
            return int(i)
    return None
