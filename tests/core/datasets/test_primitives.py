from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lift3d.core.datasets import primitives
from lift3d.core.datasets.curves import (
    arc,
    circle,
    round_corners,
    smooth_curve,
    star,
    triangulate_polygon,
)
from lift3d.core.geometry.repair import euler_characteristic, is_manifold, is_watertight

SOLIDS = {
    "box": lambda: primitives.box(1.0, 0.5, 2.0),
    "pill": lambda: primitives.box(0.4, 0.4, 2.0, bevel=0.2),
    "cube ball": lambda: primitives.box(1.0, 1.0, 1.0, bevel=0.5),
    "ellipsoid": lambda: primitives.ellipsoid(1.0, 0.5, 0.25),
    "cylinder": lambda: primitives.cylinder(0.5, 0.3, 1.0),
    "cone": lambda: primitives.cylinder(0.5, 0.0, 1.0),
    "upturned cone": lambda: primitives.cylinder(0.0, 0.5, 1.0),
    "torus": lambda: primitives.torus(1.0, 0.2),
    "lathe": lambda: primitives.lathe([(0.3, 0.0), (0.5, 0.5), (0.2, 1.0)]),
    "tube": lambda: primitives.tube(smooth_curve([(0, 0, 0), (1, 1, 0), (2, 0, 1)]), 0.1),
    "prism": lambda: primitives.extrude([(0, 0), (2, 0), (2, 1), (1, 0.4), (0, 1)], 0.5),
    "star": lambda: primitives.extrude(star(5, 1.0, 0.45), 0.4, bevel=0.05),
    "clockwise prism": lambda: primitives.extrude([(0, 1), (1, 1), (1, 0), (0, 0)], 0.5),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_every_solid_is_closed_manifold_and_outward(name):
    solid = SOLIDS[name]()
    faces = torch.from_numpy(solid.faces)
    assert is_watertight(faces)
    assert is_manifold(faces)
    assert solid.volume > 0
    assert euler_characteristic(faces) == (0 if name == "torus" else 2)


@pytest.mark.parametrize(
    ("solid", "volume", "tolerance"),
    [
        (lambda: primitives.box(1.0, 2.0, 3.0, bevel=1e-6), 6.0, 1e-4),
        (lambda: primitives.ball(1.0, segments=96), 4 / 3 * math.pi, 5e-3),
        (lambda: primitives.cylinder(0.5, 0.5, 2.0, bevel=1e-6, segments=256), math.pi / 2, 1e-3),
        (lambda: primitives.torus(1.0, 0.3, segments=128, sides=64), 2 * math.pi**2 * 0.09, 5e-3),
        (lambda: primitives.extrude([(0, 0), (1, 0), (0, 1)], 2.0, bevel=1e-6), 1.0, 1e-4),
    ],
)
def test_volumes_are_the_analytic_ones(solid, volume, tolerance):
    assert solid().volume == pytest.approx(volume, rel=tolerance)


def test_box_has_the_sides_asked_for():
    solid = primitives.box(1.0, 2.0, 3.0)
    np.testing.assert_allclose(np.ptp(solid.vertices, axis=0), [1.0, 2.0, 3.0], atol=1e-12)


def test_mirroring_keeps_the_surface_outward():
    solid = primitives.cylinder(0.5, 0.2, 1.0)
    assert solid.scaled(x=-1.0).volume == pytest.approx(solid.volume)


def test_turns_are_right_handed():
    z_up = primitives.box(0.1, 2.0, 0.1).moved(y=1.0).turned("x", 90)
    np.testing.assert_allclose(z_up.vertices[:, 2].max(), 2.0, atol=1e-12)
    x_to_back = primitives.box(2.0, 0.1, 0.1).moved(x=1.0).turned("y", 90)
    np.testing.assert_allclose(x_to_back.vertices[:, 2].min(), -2.0, atol=1e-12)


def test_smooth_curve_passes_through_all_points():
    points = np.array([(0.0, 0.0), (1.0, 2.0), (3.0, 1.0)])
    np.testing.assert_allclose(smooth_curve(points, samples=4)[::4], points)


def test_rounding_keeps_the_ends_of_an_open_line():
    line = round_corners([(0, 0), (1, 0), (1, 1)], 0.3, closed=False)
    np.testing.assert_allclose(line[[0, -1]], [(0, 0), (1, 1)])
    assert np.linalg.norm(line - [1, 0], axis=1).min() > 0.1


def test_triangulation_covers_the_polygon():
    outline = star(7, 1.0, 0.3)
    triangles = outline[triangulate_polygon(outline)]
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    areas = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    after = np.roll(outline, -1, axis=0)
    whole = (outline[:, 0] * after[:, 1] - after[:, 0] * outline[:, 1]).sum() / 2
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(whole)
    assert len(triangles) == len(outline) - 2


def test_circle_and_arc_lie_on_their_ellipse():
    np.testing.assert_allclose(np.linalg.norm(circle(2.0), axis=1), 2.0)
    points = arc((1.0, 0.0), (2.0, 3.0), 0, 90, 5)
    np.testing.assert_allclose(points[[0, -1]], [(3.0, 0.0), (1.0, 3.0)], atol=1e-12)


def test_bad_outlines_are_refused():
    with pytest.raises(ValueError, match="crosses itself"):
        triangulate_polygon(np.array([(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0)]))
    with pytest.raises(ValueError, match="radii must not be negative"):
        primitives.lathe([(0.5, 0.0), (-0.1, 1.0)])
    with pytest.raises(ValueError, match=r"points must be \[point >= 2, 3\]"):
        primitives.tube([(0.0, 0.0), (1.0, 1.0)], 0.1)
    with pytest.raises(ValueError, match="rings must be"):
        primitives.loft(np.zeros((1, 8, 3)))
