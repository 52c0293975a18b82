"""Placing point sets: known similarities come back, mirrors are no answer, bad input is told."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.geometry.point_alignment import (
    box_placement,
    fit_similarity,
    icp_placement,
    place,
)


def random_points(count: int = 200, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def similarity(scale: float, angle: float, shift: tuple[float, float, float]) -> torch.Tensor:
    turn = torch.tensor(angle)
    matrix = torch.eye(4)
    matrix[:2, :2] = torch.tensor([[turn.cos(), -turn.sin()], [turn.sin(), turn.cos()]])
    matrix[:3, :3] *= scale
    matrix[:3, 3] = torch.tensor(shift)
    return matrix


def test_a_known_similarity_comes_back() -> None:
    points, truth = random_points(), similarity(1.7, 0.6, (0.3, -1.0, 2.0))
    found = fit_similarity(points, place(points, truth))
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)
    rigid = fit_similarity(points, place(points, similarity(1.0, 0.6, (0, 0, 0))), with_scale=False)
    torch.testing.assert_close(rigid, similarity(1.0, 0.6, (0, 0, 0)), atol=1e-5, rtol=0)


def test_a_mirrored_set_is_answered_by_a_rotation() -> None:
    points = random_points()
    found = fit_similarity(points, points * torch.tensor([-1.0, 1.0, 1.0]))
    assert float(torch.det(found[:3, :3])) > 0


def test_boxes_agree_after_box_placement() -> None:
    points = random_points() * torch.tensor([1.0, 2.0, 0.5]) + 3
    reference = random_points(seed=1) * 4
    moved = place(points, box_placement(points, reference))
    sides = moved.amax(dim=0) - moved.amin(dim=0)
    assert float(sides.max()) == pytest.approx(
        float((reference.amax(dim=0) - reference.amin(dim=0)).max()), rel=1e-5
    )
    middle = (moved.amax(dim=0) + moved.amin(dim=0)) / 2
    torch.testing.assert_close(
        middle, (reference.amax(dim=0) + reference.amin(dim=0)) / 2, atol=1e-4, rtol=0
    )
    with pytest.raises(ValueError, match="no extent"):
        box_placement(torch.zeros(4, 3), reference)


def test_closest_points_undo_a_small_displacement() -> None:
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 7)] * 3, indexing="ij"), dim=-1)
    reference = grid.reshape(-1, 3) * torch.tensor([1.0, 0.7, 0.4])
    moved = place(reference, similarity(1.04, 0.03, (0.02, -0.03, 0.01)))
    found = place(moved, icp_placement(moved, reference))
    torch.testing.assert_close(found, reference, atol=1e-4, rtol=0)
    rigid = icp_placement(moved, reference, with_scale=False)
    assert float(torch.det(rigid[:3, :3])) == pytest.approx(1.0, abs=1e-4)


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least three pairs"):
        fit_similarity(torch.zeros(2, 3), torch.zeros(2, 3))
