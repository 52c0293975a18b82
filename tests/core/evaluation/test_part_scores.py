"""Scores of parts: nested balls with known numbers, points with known parts, missing parts."""

from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.evaluation.part_scores import nearest_part, score_part, share_inside
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.initial_mesh import icosphere

EMPTY = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), name="hair")


def ball(radius: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    vertices, faces = icosphere(3)
    return Mesh(vertices * radius + torch.tensor(at), faces)


def test_nested_balls_are_their_radii_apart() -> None:
    scores = score_part(ball(0.8), ball(1.0), tau=0.21, num_points=1500, voxels=32)
    assert scores.iou == pytest.approx(0.8**3, abs=0.02)
    assert scores.distance == pytest.approx(0.2, abs=0.01)
    assert score_part(ball(0.8), ball(1.0), tau=0.15, num_points=1500, voxels=32).f_score == 0.0
    same = score_part(ball(1.0), ball(1.0), tau=1e-4, num_points=1500, voxels=32)
    assert same.iou == same.f_score == 1.0 and same.distance < 1e-6


def test_a_missing_part_scores_nothing_and_a_missing_truth_is_refused() -> None:
    scores = score_part(EMPTY, ball(1.0), tau=0.1)
    assert (scores.iou, scores.f_score) == (0.0, 0.0) and math.isnan(scores.distance)
    with pytest.raises(ValueError, match="'hair' has no surface"):
        score_part(ball(1.0), EMPTY, tau=0.1)


def test_points_belong_to_the_nearest_part_that_is_there() -> None:
    left, right = ball(0.5, (-1.0, 0.0, 0.0)), ball(0.5, (1.0, 0.0, 0.0))
    points = torch.tensor([[-0.2, 0.0, 0.0], [0.3, 0.0, 0.0], [-1.6, 0.0, 0.0]])
    assert nearest_part([left, EMPTY, right], points).tolist() == [0, 2, 0]
    assert nearest_part([EMPTY, right], points).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="No part has a surface"):
        nearest_part([EMPTY], points)


def test_the_share_inside_is_that_of_the_vertices_within_the_other_ball() -> None:
    outer = ball(0.5, (1.0, 0.0, 0.0))
    within = (outer.vertices.norm(dim=1) < 0.99).double().mean()
    assert share_inside(outer, ball(1.0)) == pytest.approx(float(within), abs=0.03)
    assert share_inside(ball(1.1), ball(1.0)) == 0.0 == share_inside(EMPTY, ball(1.0))
