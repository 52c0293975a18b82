"""Contains colour harmonics: evaluation, fitting and rotation of real spherical harmonics.

Coefficients are [gaussian, (degree + 1)^2, channel], DC first, in the order and with the signs of
3D Gaussian splatting files. colour = max(0.5 + sum(coefficient * basis(direction)), 0), where the
direction points from the camera to the Gaussian, in the frame of the coefficients.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..backends.torch_reference.harmonics import harmonic_basis
from ..gaussian_cloud import MAX_SH_DEGREE

__all__ = [
    "evaluate_harmonics",
    "fit_harmonics",
    "harmonic_basis",
    "harmonics_to_colors",
    "resize_harmonics",
    "rotate_harmonics",
]


def evaluate_harmonics(
    harmonics: Float[Tensor, "gaussian coefficient channel"],
    directions: Float[Tensor, "gaussian 3"],
    degree: int | None = None,
) -> Float[Tensor, "gaussian channel"]:
    """Sum of the harmonics at unit directions, up to ``degree`` (None: all that are given).

    The offset of 0.5 that makes it a colour is not added; see `harmonics_to_colors`.
    """
    degree = _checked_degree(harmonics, degree)
    basis = harmonic_basis(directions, degree)
    return torch.einsum("gk,gkc->gc", basis, harmonics[:, : (degree + 1) ** 2])


def harmonics_to_colors(
    harmonics: Float[Tensor, "gaussian coefficient 3"],
    directions: Float[Tensor, "gaussian 3"],
    degree: int | None = None,
) -> Float[Tensor, "gaussian 3"]:
    """Colours seen along unit directions (camera to Gaussian): offset 0.5, not below zero."""
    return (evaluate_harmonics(harmonics, directions, degree) + 0.5).clamp(min=0)


def fit_harmonics(
    directions: Float[Tensor, "sample 3"],
    values: Float[Tensor, "sample channel"],
    degree: int,
) -> Float[Tensor, "coefficient channel"]:
    """Least-squares coefficients of a function known at unit directions (smallest, if many)."""
    _require_degree(degree)
    basis = harmonic_basis(directions.double(), degree)
    return (torch.linalg.pinv(basis) @ values.double()).to(values.dtype)


def rotate_harmonics(
    harmonics: Float[Tensor, "gaussian coefficient channel"], rotation: Float[Tensor, "3 3"]
) -> Float[Tensor, "gaussian coefficient channel"]:
    """Coefficients of the rotated function f'(d) = f(R^T d); exact for every rotation.

    Each degree is closed under rotation, so its (2l + 1)^2 matrix follows from the values at fixed
    directions: it is the least-squares solution of B(d) D = B(R^T d), which has residual zero.
    """
    degree = _checked_degree(harmonics, None)
    rotation = rotation.to(harmonics.device, torch.float64)
    residual = float((rotation.detach().T @ rotation.detach()).sub(_eye(rotation)).abs().max())
    if residual > 1e-4:
        raise ValueError(
            f"Harmonics can be rotated, not scaled: R^T R differs from the identity by "
            f"{residual:.3g}. Divide the scale out of the matrix first."
        )
    directions = _sample_directions(24).to(rotation)
    basis = harmonic_basis(directions, degree)
    turned = harmonic_basis(directions @ rotation, degree)  # rows are R^T d
    parts = []
    for level in range(degree + 1):
        block = slice(level**2, (level + 1) ** 2)
        matrix = torch.linalg.pinv(basis[:, block]) @ turned[:, block]
        parts.append(torch.einsum("jk,gkc->gjc", matrix.to(harmonics.dtype), harmonics[:, block]))
    return torch.cat(parts, dim=1)


def resize_harmonics(
    harmonics: Float[Tensor, "gaussian old 3"], degree: int
) -> Float[Tensor, "gaussian new 3"]:
    """Coefficients cut to ``degree``, or extended to it with zeros."""
    _require_degree(degree)
    count = (degree + 1) ** 2
    missing = count - harmonics.shape[1]
    if missing <= 0:
        return harmonics[:, :count]
    zeros = harmonics.new_zeros(harmonics.shape[0], missing, 3)
    return torch.cat([harmonics, zeros], dim=1)


def _checked_degree(harmonics: Tensor, degree: int | None) -> int:
    available = math.isqrt(int(harmonics.shape[1])) - 1
    if (available + 1) ** 2 != harmonics.shape[1] or not 0 <= available <= MAX_SH_DEGREE:
        raise ValueError(
            f"harmonics must hold 1, 4, 9 or 16 coefficients, got {harmonics.shape[1]}."
        )
    if degree is None:
        return available
    _require_degree(degree)
    return min(degree, available)


def _require_degree(degree: int) -> None:
    if not 0 <= degree <= MAX_SH_DEGREE:
        raise ValueError(f"Harmonic degree must be 0..{MAX_SH_DEGREE}, got {degree}.")


def _eye(matrix: Tensor) -> Tensor:
    return torch.eye(3, dtype=matrix.dtype, device=matrix.device)


def _sample_directions(count: int) -> Tensor:
    """Well spread unit directions (Fibonacci spiral), float64."""
    index = torch.arange(count, dtype=torch.float64)
    z = 1 - 2 * (index + 0.5) / count
    angle = index * math.pi * (3 - math.sqrt(5))
    ring = (1 - z * z).sqrt()
    return torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=-1)
