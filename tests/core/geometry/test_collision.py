"""Collision of layers: published values, gradients, and what is inside."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.geometry.collision import (
    collision_loss,
    make_inner_surface,
    penetration_depths,
    points_inside,
)
from mesh_scenes import make_sphere

HEIGHTS = (0.0, 0.03, -0.02, -0.2)


def flat_inner(side: int = 11, spacing: float = 0.1):
    """A plane z = 0 with normals +z, centred on a vertex."""
    ticks = (torch.arange(side) - side // 2) * spacing
    x, y = torch.meshgrid(ticks, ticks, indexing="ij")
    vertices = torch.stack([x, y, torch.zeros_like(x)], dim=-1).reshape(-1, 3)
    index = torch.arange(side * side).reshape(side, side)
    a, b, c, d = (part.reshape(-1) for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))  # noqa: E501  # fmt: skip
    return vertices, torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])


def outer_points():
    places = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [-0.1, 0.0]])
    return torch.cat([places, torch.tensor(HEIGHTS)[:, None]], dim=1)


def test_depths_have_the_published_values():
    inner = make_inner_surface(*flat_inner())
    torch.testing.assert_close(
        penetration_depths(outer_points(), inner), torch.tensor([0, 0, 0.02, 0.2])
    )


def test_the_loss_has_the_published_values_in_both_forms():
    inner, points = make_inner_surface(*flat_inner()), outer_points()
    assert float(collision_loss(points, inner)) == pytest.approx(0.002002, abs=1e-7)
    reference = float(collision_loss(points, inner, "reference"))
    assert reference == pytest.approx(8e-6 / 3, rel=1e-4)


def test_the_gradient_pushes_outwards():
    points = outer_points().requires_grad_()
    collision_loss(points, make_inner_surface(*flat_inner())).backward()
    assert float(points.grad[2, 2]) == pytest.approx(-0.0012 / 4, rel=1e-4)
    assert float(points.grad[:2].abs().max()) == 0 and float(points.grad[:, :2].abs().max()) == 0


def test_nothing_near_is_a_finite_zero():
    inner = make_inner_surface(*flat_inner())
    far = torch.tensor([[0.0, 0.0, -0.5]], requires_grad=True)
    loss = collision_loss(far, inner, "reference")
    loss.backward()
    assert float(loss.detach()) == 0 and bool(torch.isfinite(far.grad).all())
    for form in ("paper", "reference"):
        assert float(collision_loss(torch.zeros(0, 3), inner, form)) == 0


def test_vertices_without_faces_do_not_count():
    vertices, faces = flat_inner()
    with_stray = torch.cat([vertices, torch.tensor([[0.0, 0.0, -0.02]])])
    inner = make_inner_surface(with_stray, faces)
    assert float(penetration_depths(torch.tensor([[0.0, 0.0, -0.02]]), inner)) == pytest.approx(
        0.02
    )


def test_points_of_a_ball_are_inside():
    vertices, faces = make_sphere(800)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(300, 3, generator=generator) * 2.4 - 1.2
    distance = points.norm(dim=1)
    clear = (distance - 0.95).abs() > 0.03
    found = points_inside(points, vertices, faces)
    assert torch.equal(found[clear], (distance < 0.95)[clear])
    deep = points_inside(points, vertices, faces, tolerance=0.3)
    assert int(deep.sum()) < int(found.sum())


def test_empty_layers_and_unknown_forms_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="inner layer needs faces"):
        make_inner_surface(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="'paper' or 'reference'"):
        collision_loss(outer_points(), make_inner_surface(*flat_inner()), "soft")
    nowhere = points_inside(outer_points(), torch.zeros(0, 3), torch.zeros(0, 3).long())
    assert not bool(nowhere.any())
