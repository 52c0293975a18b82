"""Scores of shapes: known spheres, every convention, and what the table says about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.evaluation.shape_scores import ShapeConvention, score_shape
from lift3d.core.geometry.point_alignment import place
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.initial_mesh import icosphere

RULES = ShapeConvention(num_points=1500, voxels=32)


def sphere(radius: float = 1.0, stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Mesh:
    vertices, faces = icosphere(3)
    return Mesh(vertices * radius * torch.tensor(stretch), faces)


def test_a_shape_is_nearest_to_itself() -> None:
    scores = score_shape(sphere(), sphere(), RULES)
    assert scores.iou == 1.0 and scores.f_scores[0.05] > 0.98
    assert scores.chamfer < 0.05  # the points of both differ


def test_nested_spheres_have_known_scores() -> None:
    """In the unit cube of radius 0.5 the other one is 0.1 away, and has (0.4 / 0.5)^3 of it."""
    scores = score_shape(sphere(0.8), sphere(1.0), RULES)
    assert scores.chamfer == pytest.approx(0.2, abs=0.01)
    assert scores.iou == pytest.approx(0.8**3, abs=0.02)
    assert scores.f_scores == {0.01: 0.0, 0.02: 0.0, 0.05: 0.0}
    assert scores.columns().keys() == {"CD", "IoU", "F 0.01", "F 0.02", "F 0.05"}


def test_conventions_change_numbers_as_they_say() -> None:
    pair = sphere(0.8), sphere(1.0)
    plain = score_shape(*pair, RULES).chamfer
    ball = score_shape(*pair, replace(RULES, normalize="unit_sphere")).chamfer
    none = score_shape(sphere(1.6), sphere(2.0), replace(RULES, normalize="none")).chamfer
    squared = score_shape(*pair, replace(RULES, squared=True)).chamfer
    assert score_shape(*pair, replace(RULES, reduction="mean")).chamfer == pytest.approx(plain / 2)
    assert ball == pytest.approx(2 * plain, rel=1e-3)
    assert none == pytest.approx(4 * plain, rel=0.02)
    assert squared == pytest.approx(2 * 0.1**2, rel=0.1)


def test_alignment_undoes_what_it_is_for() -> None:
    truth = sphere(1.0, (1.0, 0.7, 0.4))
    turned = torch.eye(4)
    turn = torch.tensor(0.3)
    turned[:2, :2] = torch.tensor([[turn.cos(), -turn.sin()], [turn.sin(), turn.cos()]])
    small = truth.with_vertices(0.5 * truth.vertices + 0.2)
    tilted = truth.with_vertices(place(truth.vertices, turned))
    for mesh, how in ((small, "box"), (small, "icp"), (tilted, "icp"), (tilted, "icp_rigid")):
        before = score_shape(mesh, truth, RULES)
        after = score_shape(mesh, truth, replace(RULES, align=how))
        assert after.iou > 0.9 and after.iou > before.iou + 0.04, how
    rigid = score_shape(sphere(0.8), sphere(1.0), replace(RULES, align="icp_rigid"))
    assert rigid.iou == pytest.approx(0.8**3, abs=0.03)  # the size is part of the score


def test_the_table_states_its_convention() -> None:
    text = replace(RULES, align="icp", squared=True, taus=(0.1,)).text()
    for part in ("unit cube", "ICP with scale", "sum of both mean squared", "1500", "0.1", "32^3"):
        assert part in text


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ShapeConvention(taus=(0.0,))
    with pytest.raises(ValueError, match="no surface"):
        score_shape(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), sphere(), RULES)
