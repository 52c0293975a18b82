"""Contains closed solids as triangle meshes: boxes, surfaces of revolution, tubes, extrusions.

Every function returns a `Solid` whose surface is closed, manifold and wound counter-clockwise seen
from outside. Edges are bevelled by default: smooth normals then look right, and so do small tiles.
Symbols: rings [ring, point, 3] are the cross-sections of a loft; profiles [point, 2] hold
(radius, y) of a surface of revolution round the Y axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from .curves import Points, as_points, round_corners, triangulate_polygon

WELD_DISTANCE = 1e-9
WELD_HASH = np.array([6364136223846793005, 1442695040888963407, 3935559000370003845], np.int64)


@dataclass(frozen=True)
class Solid:
    """A closed triangle mesh in numpy; the verbs return moved copies.

    Attributes:
        vertices: positions, +Y up.
        faces: vertex indices, counter-clockwise seen from outside.
    """

    vertices: Float64[np.ndarray, "vertex 3"]
    faces: Int64[np.ndarray, "face 3"]

    @property
    def volume(self) -> float:
        """Signed volume: positive when the faces are wound outwards."""
        a, b, c = (self.vertices[self.faces[:, corner]] for corner in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
        """Copy shifted by (x, y, z)."""
        return Solid(self.vertices + np.array([x, y, z]), self.faces)

    def scaled(self, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Solid:
        """Copy scaled about the origin; a mirroring keeps the faces outward."""
        faces = self.faces if x * y * z > 0 else self.faces[:, ::-1].copy()
        return Solid(self.vertices * np.array([x, y, z]), faces)

    def turned(self, axis: Literal["x", "y", "z"], degrees: float) -> Solid:
        """Copy rotated about an axis through the origin, right-handed."""
        first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        angle = np.radians(degrees)
        rotation = np.eye(3)
        rotation[first, first] = rotation[second, second] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        return Solid(self.vertices @ rotation.T, self.faces)

    def deformed(self, displace: Callable[[np.ndarray], np.ndarray]) -> Solid:
        """Copy with ``displace(vertices)`` as vertices; it must not turn the solid inside out."""
        return Solid(np.asarray(displace(self.vertices.copy()), dtype=np.float64), self.faces)

    def tapered(self, top_x: float, top_z: float | None = None) -> Solid:
        """Copy whose cross-section shrinks linearly with height to (top_x, top_z) of itself."""
        low, high = self.vertices[:, 1].min(), self.vertices[:, 1].max()

        def shrink(vertices: np.ndarray) -> np.ndarray:
            t = (vertices[:, 1] - low) / (high - low)
            vertices[:, 0] *= 1 + t * (top_x - 1)
            vertices[:, 2] *= 1 + t * ((top_x if top_z is None else top_z) - 1)
            return vertices

        return self.deformed(shrink)


def _close(vertices: np.ndarray, faces: np.ndarray) -> Solid:
    # Welds coinciding vertices (poles, seams), drops collapsed faces, turns the whole outwards.
    keys = np.round(vertices / WELD_DISTANCE).astype(np.int64)
    hashed = keys @ WELD_HASH  # wraps around; one number per place sorts far faster than three
    _, first, inverse = np.unique(hashed, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[faces]
    distinct = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    )
    solid = Solid(vertices[first], np.ascontiguousarray(faces[distinct], dtype=np.int64))
    return solid if solid.volume >= 0 else Solid(solid.vertices, solid.faces[:, ::-1].copy())


def _quads(corners: Sequence[np.ndarray]) -> np.ndarray:
    a, b, c, d = (corner.reshape(-1) for corner in corners)
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


def loft(rings: np.ndarray, *, loop: bool = False) -> Solid:
    """Solid through cross-sections [ring, point, 3]; the ends are closed by fans.

    Args:
        rings: closed polygons with equal numbers of points; a ring may shrink to one point.
        loop: join the last ring to the first instead of closing the ends.
    """
    rings = np.asarray(rings, dtype=np.float64)
    if rings.ndim != 3 or rings.shape[0] < 2 or rings.shape[1] < 3 or rings.shape[2] != 3:
        raise ValueError(f"rings must be [ring >= 2, point >= 3, 3], got {list(rings.shape)}.")
    num_rings, num_points, _ = rings.shape
    index = np.arange(num_rings * num_points).reshape(num_rings, num_points)
    after = np.roll(index, -1, axis=1)
    below, above = (index, np.roll(index, -1, axis=0)) if loop else (index[:-1], index[1:])
    after_below, after_above = (
        (after, np.roll(after, -1, axis=0)) if loop else (after[:-1], after[1:])
    )
    faces = [_quads([below, after_below, after_above, above])]
    vertices = [rings.reshape(-1, 3)]
    if not loop:
        for ring, flip in ((0, False), (num_rings - 1, True)):
            hub = np.full(num_points, num_rings * num_points + len(vertices) - 1)
            vertices.append(rings[ring].mean(axis=0, keepdims=True))
            fan = np.stack([index[ring], hub, after[ring]], axis=1)
            faces.append(fan[:, ::-1] if flip else fan)
    return _close(np.concatenate(vertices), np.concatenate(faces))


def lathe(profile: Points, *, segments: int = 32) -> Solid:
    """Surface of revolution round +Y of an open profile of (radius, y); flat ends are closed."""
    points = as_points(profile, 2)
    if (points[:, 0] < 0).any():
        raise ValueError(f"profile radii must not be negative, got {points[:, 0].min():.3g}.")
    angles = np.arange(segments) * (2 * np.pi / segments)
    ring = np.stack([np.sin(angles), np.zeros(segments), np.cos(angles)], axis=1)
    rings = points[:, None, :1] * ring + points[:, None, 1:] * np.array([0.0, 1.0, 0.0])
    return loft(rings)


def ellipsoid(x: float, y: float, z: float, *, segments: int = 24) -> Solid:
    """Ellipsoid with half-axes x, y, z round the origin."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    radii = np.cos(angles)
    radii[[0, -1]] = 0.0
    return lathe(np.stack([radii, np.sin(angles)], axis=1), segments=segments).scaled(x, y, z)


def ball(radius: float, *, segments: int = 20) -> Solid:
    """Sphere round the origin."""
    return ellipsoid(radius, radius, radius, segments=segments)


def cylinder(
    bottom: float,
    top: float,
    height: float,
    *,
    bevel: float | None = None,
    segments: int = 28,
) -> Solid:
    """Frustum of a cone standing on y = 0; radius ``top`` 0 makes a cone.

    Args:
        bottom: radius at y = 0.
        top: radius at y = height.
        height: length along +Y.
        bevel: rounding of the rims; by default 12 % of the smaller of radius and height.
        segments: number of sides.
    """
    radius = 0.12 * min(max(bottom, top), height) if bevel is None else bevel
    profile = [(0.0, 0.0), (bottom, 0.0), (top, height), (0.0, height)]
    if top == 0.0:
        profile = profile[:3]
    elif bottom == 0.0:
        profile = [(0.0, 0.0), (top, height), (0.0, height)]
    return lathe(round_corners(profile, radius, steps=3, closed=False), segments=segments)


def torus(ring: float, tube_radius: float, *, segments: int = 32, sides: int = 14) -> Solid:
    """Torus round the Y axis: centre line of radius ``ring``, thickness 2 ``tube_radius``."""
    angles = np.arange(segments) * (2 * np.pi / segments)
    path = np.stack([ring * np.sin(angles), np.zeros(segments), ring * np.cos(angles)], axis=1)
    return tube(path, tube_radius, sides=sides, loop=True)


def box(x: float, y: float, z: float, *, bevel: float | None = None, steps: int = 2) -> Solid:
    """Rounded box with sides x, y, z round the origin.

    Args:
        x: size along X.
        y: size along Y.
        z: size along Z.
        bevel: radius of edges and corners; by default 12 % of the smallest side. With half the
            smallest side it becomes a pill or a ball.
        steps: facets per quarter turn of the rounding.
    """
    half = np.array([x, y, z]) / 2
    radius = 0.12 * 2 * float(half.min()) if bevel is None else min(bevel, float(half.min()))
    quarter = np.tan(np.linspace(0.0, np.pi / 4, steps + 1))  # equal angles on the sphere
    along = np.concatenate([-quarter[::-1], quarter])
    side = np.concatenate([-np.ones(steps + 1), np.ones(steps + 1)])
    count = len(along)
    index = np.arange(count * count).reshape(count, count)
    cells = _quads([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]])
    vertices: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            grid, corner = np.empty((count, count, 3)), np.empty((count, count, 3))
            grid[..., axis], corner[..., axis] = sign, sign
            first, second = (axis + 1) % 3, (axis + 2) % 3
            grid[..., first], grid[..., second] = along[:, None], along[None, :]
            corner[..., first], corner[..., second] = side[:, None], side[None, :]
            rounded = grid / np.linalg.norm(grid, axis=-1, keepdims=True)
            faces.append((cells if sign > 0 else cells[:, ::-1]) + len(vertices) * count * count)
            vertices.append((corner * (half - radius) + radius * rounded).reshape(-1, 3))
    return _close(np.concatenate(vertices), np.concatenate(faces))


def _transported_frames(path: np.ndarray, loop: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Tangents and two normals that turn as little as possible along the path.
    if loop:
        tangents = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
    else:
        tangents = np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    helper = np.eye(3)[np.abs(tangents[0]).argmin()]
    normals = np.empty_like(path)
    for i, tangent in enumerate(tangents):
        normal = helper - (helper @ tangent) * tangent
        normals[i] = helper = normal / np.linalg.norm(normal)
    return tangents, normals, np.cross(tangents, normals)


def tube(
    path: Points,
    radius: float | Sequence[float] | np.ndarray,
    *,
    sides: int = 12,
    flatten: float = 1.0,
    loop: bool = False,
) -> Solid:
    """Round tube along a polyline with hemispherical ends.

    Args:
        path: points of the centre line [point, 3]; closed curves must be planar.
        radius: one number, or one per point.
        sides: corners of the cross-section.
        flatten: factor on the second axis of the cross-section (see `_transported_frames`).
        loop: join the end to the beginning.
    """
    points = as_points(path, 3)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(points),)).copy()
    tangents, normals, binormals = _transported_frames(points, loop)
    if not loop:
        bulge = np.radians([90.0, 60.0, 30.0])
        grow, reach = np.cos(bulge), np.sin(bulge)
        grow[0] = 0.0
        head = points[0] - reach[:, None] * radii[0] * tangents[0]
        tail = points[-1] + reach[::-1, None] * radii[-1] * tangents[-1]
        points = np.concatenate([head, points, tail])
        radii = np.concatenate([grow * radii[0], radii, grow[::-1] * radii[-1]])
        normals, binormals = (
            np.concatenate([axis[:1].repeat(3, axis=0), axis, axis[-1:].repeat(3, axis=0)])
            for axis in (normals, binormals)
        )
    angles = np.arange(sides) * (2 * np.pi / sides)
    spokes = (
        np.cos(angles)[:, None] * normals[:, None]
        + flatten * np.sin(angles)[:, None] * binormals[:, None]
    )
    return loft(points[:, None] + radii[:, None, None] * spokes, loop=loop)


def extrude(outline: Points, depth: float, *, bevel: float | None = None) -> Solid:
    """Prism of a simple polygon in the XY plane, centred on z = 0, with bevelled rims.

    Args:
        outline: corners [point, 2] in either direction, without self-intersections.
        depth: thickness along Z.
        bevel: width of the rim's chamfer; by default 15 % of ``depth``. It must stay below the
            distance between opposite sides.
    """
    points = as_points(outline, 2)
    following = np.roll(points, -1, axis=0)
    if (points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]).sum() < 0:
        points = points[::-1].copy()
    width = 0.15 * depth if bevel is None else min(bevel, depth / 2)
    inner = _inset(points, width)
    layers = [
        (inner, -depth / 2),
        (points, width - depth / 2),
        (points, depth / 2 - width),
        (inner, depth / 2),
    ]
    vertices = np.concatenate(
        [np.concatenate([ring, np.full((len(ring), 1), z)], axis=1) for ring, z in layers]
    )
    index = np.arange(4 * len(points)).reshape(4, len(points))
    after = np.roll(index, -1, axis=1)
    cap = triangulate_polygon(points)
    faces = [_quads([index[:-1], after[:-1], after[1:], index[1:]])]
    faces += [cap[:, ::-1], cap + 3 * len(points)]
    return _close(vertices, np.concatenate(faces))


def _inset(points: np.ndarray, width: float) -> np.ndarray:
    # Counter-clockwise outline moved inwards along the mitres, which are limited at sharp corners.
    edges = np.roll(points, -1, axis=0) - points
    edges = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    inward = np.stack([-edges[:, 1], edges[:, 0]], axis=1)
    before = np.roll(inward, 1, axis=0)
    cosine = (inward * before).sum(axis=1, keepdims=True)
    return points + width * (inward + before) / np.maximum(1 + cosine, 0.4)
