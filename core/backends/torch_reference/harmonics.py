"""Contains the real spherical harmonics to degree 3, as polynomials of unit directions.

Order and signs are those of 3D Gaussian splatting files (orders m = -l..l, Condon-Shortley phase):
degree 1 is proportional to (-y, z, -x).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

_PI = math.pi
DEGREE_0 = 0.5 * math.sqrt(1 / _PI)
DEGREE_1 = math.sqrt(3 / (4 * _PI))
DEGREE_2 = (
    0.5 * math.sqrt(15 / _PI),  # xy, yz, xz
    0.25 * math.sqrt(5 / _PI),  # 2zz - xx - yy
    0.25 * math.sqrt(15 / _PI),  # xx - yy
)
DEGREE_3 = (
    0.25 * math.sqrt(35 / (2 * _PI)),  # |m| = 3
    0.5 * math.sqrt(105 / _PI),  # xyz
    0.25 * math.sqrt(21 / (2 * _PI)),  # |m| = 1
    0.25 * math.sqrt(7 / _PI),  # m = 0
    0.25 * math.sqrt(105 / _PI),  # z (xx - yy)
)


def harmonic_basis(
    directions: Float[Tensor, "*batch 3"], degree: int
) -> Float[Tensor, "*batch coefficient"]:
    """Values of the (degree + 1)^2 basis functions at unit directions."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, DEGREE_0)]
    if degree >= 1:
        values += [-DEGREE_1 * y, DEGREE_1 * z, -DEGREE_1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            DEGREE_2[0] * x * y,
            -DEGREE_2[0] * y * z,
            DEGREE_2[1] * (2 * zz - xx - yy),
            -DEGREE_2[0] * x * z,
            DEGREE_2[2] * (xx - yy),
        ]
    if degree >= 3:
        values += [
            -DEGREE_3[0] * y * (3 * xx - yy),
            DEGREE_3[1] * x * y * z,
            -DEGREE_3[2] * y * (4 * zz - xx - yy),
            DEGREE_3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -DEGREE_3[2] * x * (4 * zz - xx - yy),
            DEGREE_3[4] * z * (xx - yy),
            -DEGREE_3[0] * x * (xx - 3 * yy),
        ]
    return torch.stack(values, dim=-1)
