from __future__ import annotations

import numpy as np
import pytest
from lift3d.core.formats.polygons import triangulate_polygons


def _areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area vectors of the triangles."""
    a, b, c = points[triangles].transpose(1, 0, 2)
    return np.cross(b - a, c - a) / 2


def _turned(flat: list, seed: int = 0) -> np.ndarray:
    """Plane points carried to a random plane of space."""
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.column_stack([flat, np.zeros(len(flat))]) @ rotation.T + 5


ARROW = [(0, 0), (4, 0), (1, 1), (0, 4)]
STAIRS = [(0, 0), (3, 0), (3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3)]
COMB = [(0, 0), (7, 0), (7, 3), (6, 3), (6, 1), (4, 1), (4, 3), (3, 3), (3, 1), (1, 1), (1, 3), (0, 3)]  # fmt: skip
HEXAGON = [(np.cos(a), np.sin(a)) for a in np.arange(6) * np.pi / 3]


@pytest.mark.parametrize("flat", [ARROW, STAIRS, COMB, HEXAGON, COMB[::-1], ARROW[1:] + ARROW[:1]])
def test_triangles_cover_the_polygon_once_and_keep_its_side(flat):
    points = _turned(flat)
    triangles, polygons = triangulate_polygons(points, np.array([len(flat)]))
    areas = _areas(points, triangles)
    whole = np.cross(points - points[0], np.roll(points, -1, axis=0) - points[0]).sum(axis=0) / 2
    assert len(triangles) == len(flat) - 2 and (polygons == 0).all()
    # Same total as a vector and as a sum of sizes: nothing overlaps, nothing is turned over.
    np.testing.assert_allclose(areas.sum(axis=0), whole, atol=1e-9)
    assert np.linalg.norm(areas, axis=1).sum() == pytest.approx(np.linalg.norm(whole))


def test_order_of_polygons_is_kept_and_short_ones_vanish():
    square = _turned([(0, 0), (1, 0), (1, 1), (0, 1)])
    points = np.concatenate([square, square[:3], square[:2], square])
    triangles, polygons = triangulate_polygons(points, np.array([4, 3, 2, 4]))
    assert polygons.tolist() == [0, 0, 1, 3, 3]
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6], [9, 10, 11], [9, 11, 12]]


def test_flat_and_collapsed_polygons_end_in_the_right_number_of_triangles():
    for points in (np.zeros((6, 3)), np.outer(np.arange(6.0), [1, 2, 3])):
        triangles, _ = triangulate_polygons(points, np.array([6]))
        assert triangles.shape == (4, 3)


def test_self_intersecting_polygon_ends():
    points = np.random.default_rng(1).normal(size=(60, 3))
    assert len(triangulate_polygons(points, np.array([60]))[0]) == 58


def test_absurd_polygon_is_refused():
    with pytest.raises(ValueError, match="2,000 corners"):
        triangulate_polygons(np.zeros((2000, 3)), np.array([2000]))
