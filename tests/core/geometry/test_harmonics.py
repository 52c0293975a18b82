"""Colour harmonics against scipy, analytic integrals and sampled rotation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lift3d.core.geometry.harmonics import (
    evaluate_harmonics,
    fit_harmonics,
    harmonic_basis,
    harmonics_to_colors,
    resize_harmonics,
    rotate_harmonics,
)
from lift3d.core.geometry.transforms import normalize, quat_to_matrix


def _directions(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64))


def _rotation(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return quat_to_matrix(torch.randn(4, generator=generator, dtype=torch.float64))


def _scipy_real_harmonics(directions: np.ndarray, degree: int) -> np.ndarray:
    special = pytest.importorskip("scipy.special")
    if not hasattr(special, "sph_harm_y"):
        pytest.skip("needs scipy >= 1.15")
    theta = np.arccos(directions[:, 2])
    phi = np.arctan2(directions[:, 1], directions[:, 0])
    columns = []
    for level in range(degree + 1):
        for order in range(-level, level + 1):
            value = special.sph_harm_y(level, abs(order), theta, phi)
            if order < 0:
                columns.append(np.sqrt(2) * value.imag)
            elif order == 0:
                columns.append(value.real)
            else:
                columns.append(np.sqrt(2) * value.real)
    return np.stack(columns, axis=1)


def test_basis_equals_scipys_real_harmonics_with_condon_shortley_phase() -> None:
    directions = _directions(50)
    ours = harmonic_basis(directions, 3).numpy()
    np.testing.assert_allclose(ours, _scipy_real_harmonics(directions.numpy(), 3), atol=1e-13)


def test_first_degree_points_along_minus_y_z_minus_x() -> None:
    axes = torch.eye(3, dtype=torch.float64)
    basis = harmonic_basis(axes, 1)[:, 1:] / 0.4886025119029199
    expected = torch.tensor([[0, 0, -1.0], [-1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(basis, expected)


def test_dc_alone_is_the_same_from_every_side() -> None:
    harmonics = torch.full((5, 1, 3), 0.7)
    colors = harmonics_to_colors(harmonics, _directions(5).float())
    torch.testing.assert_close(colors, torch.full((5, 3), 0.5 + 0.28209479177387814 * 0.7))


def test_colors_do_not_fall_below_zero() -> None:
    colors = harmonics_to_colors(torch.full((2, 1, 3), -9.0), _directions(2).float())
    assert float(colors.min()) == 0.0


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_lower_degree_ignores_higher_coefficients(degree: int) -> None:
    harmonics = torch.randn(6, 16, 3, dtype=torch.float64)
    cut = resize_harmonics(harmonics, degree)
    directions = _directions(6)
    torch.testing.assert_close(
        evaluate_harmonics(harmonics, directions, degree), evaluate_harmonics(cut, directions)
    )


@pytest.mark.parametrize("count", [1, 4, 9, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rotated_harmonics_show_the_rotated_function(count: int, seed: int) -> None:
    harmonics = torch.randn(40, count, 3, dtype=torch.float64)
    rotation = _rotation(seed)
    directions = _directions(40, seed)
    turned = rotate_harmonics(harmonics, rotation)
    torch.testing.assert_close(
        evaluate_harmonics(turned, directions @ rotation.T),  # seen along R d
        evaluate_harmonics(harmonics, directions),
        atol=1e-12,
        rtol=1e-12,
    )


def test_rotations_compose() -> None:
    harmonics = torch.randn(3, 16, 3, dtype=torch.float64)
    first, second = _rotation(4), _rotation(5)
    torch.testing.assert_close(
        rotate_harmonics(rotate_harmonics(harmonics, first), second),
        rotate_harmonics(harmonics, second @ first),
        atol=1e-12,
        rtol=1e-12,
    )


def test_rotation_keeps_the_norm_of_each_degree() -> None:
    harmonics = torch.randn(7, 16, 3, dtype=torch.float64)
    turned = rotate_harmonics(harmonics, _rotation(6))
    for level in range(4):
        block = slice(level**2, (level + 1) ** 2)
        torch.testing.assert_close(turned[:, block].norm(dim=1), harmonics[:, block].norm(dim=1))


def test_fit_recovers_the_coefficients_of_a_sampled_function() -> None:
    coefficients = torch.randn(16, 3, dtype=torch.float64)
    directions = _directions(60)
    values = harmonic_basis(directions, 3) @ coefficients
    torch.testing.assert_close(fit_harmonics(directions, values, 3), coefficients)


def test_no_gaussians_give_no_colors() -> None:
    assert evaluate_harmonics(torch.zeros(0, 16, 3), torch.zeros(0, 3)).shape == (0, 3)
    assert rotate_harmonics(torch.zeros(0, 16, 3), torch.eye(3)).shape == (0, 16, 3)


def test_scaled_rotation_is_refused() -> None:
    with pytest.raises(ValueError, match="Divide the scale out"):
        rotate_harmonics(torch.zeros(1, 4, 3), 2 * torch.eye(3))


def test_wrong_coefficient_count_is_refused() -> None:
    with pytest.raises(ValueError, match="1, 4, 9 or 16"):
        evaluate_harmonics(torch.zeros(1, 5, 3), torch.zeros(1, 3))
