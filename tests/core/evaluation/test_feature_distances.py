"""Distances of feature sets: known normal distributions, and a loop written out."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.evaluation.feature_distances import (
    cosine_similarity,
    frechet_distance,
    kernel_distance,
)


def features(count: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    drawn = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return scale * drawn + shift


def test_frechet_distance_is_that_of_the_moments() -> None:
    """Diagonal covariances: sum of (mean difference)^2 + (std difference)^2."""
    first, second = features(20_000, 0), features(20_000, 1, scale=2.0, shift=1.0)
    assert frechet_distance(first, second) == pytest.approx(3 * (1 + 1), rel=0.03)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)


def test_frechet_distance_agrees_with_scipys_matrix_root() -> None:
    from scipy.linalg import sqrtm

    mix = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.2, 0.0, 1.0]])
    first, second = features(50, 0) @ mix, features(60, 1)
    a, b = (torch.cov(x.double().T).numpy() for x in (first, second))
    shift = (first.double().mean(0) - second.double().mean(0)).square().sum()
    expected = float(shift) + (a + b - 2 * sqrtm(a @ b).real).trace()
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-8)


def test_kernel_distance_is_the_loop_of_its_definition() -> None:
    x, y = features(5, 0).double(), features(4, 1).double()

    def kernel(a, b):
        return float((a @ b / 3 + 1) ** 3)

    within_x = sum(kernel(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
    within_y = sum(kernel(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    across = sum(kernel(a, b) for a in x for b in y) / 20
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * across)
    assert abs(kernel_distance(features(800, 0), features(800, 1))) < 0.05
    assert kernel_distance(features(800, 0), features(800, 1, shift=1.0)) > 0.5


def test_cosines_are_of_pairs() -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    other = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    assert cosine_similarity(one, other) == pytest.approx((1 + 0.5**0.5) / 2)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="at least two features"):
            distance(features(1, 0), features(4, 1))
    with pytest.raises(ValueError, match="one shape"):
        cosine_similarity(features(2, 0), features(3, 0))
