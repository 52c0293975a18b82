"""Contains the harmonic basis and its derivative for one direction, for the splat kernels.

Same functions as torch_reference/harmonics.py, which names them.
"""

from __future__ import annotations

from ..torch_reference.harmonics import DEGREE_0, DEGREE_1, DEGREE_2, DEGREE_3
from .runtime import compiled

A0, A1, A2 = DEGREE_2
B0, B1, B2, B3, B4 = DEGREE_3


@compiled()
def fill_basis(x, y, z, degree, basis):
    """Values of the (degree + 1)^2 basis functions at a unit direction."""
    basis[0] = DEGREE_0
    if degree < 1:
        return
    basis[1] = -DEGREE_1 * y
    basis[2] = DEGREE_1 * z
    basis[3] = -DEGREE_1 * x
    if degree < 2:
        return
    xx, yy, zz = x * x, y * y, z * z
    basis[4] = A0 * x * y
    basis[5] = -A0 * y * z
    basis[6] = A1 * (2 * zz - xx - yy)
    basis[7] = -A0 * x * z
    basis[8] = A2 * (xx - yy)
    if degree < 3:
        return
    basis[9] = -B0 * y * (3 * xx - yy)
    basis[10] = B1 * x * y * z
    basis[11] = -B2 * y * (4 * zz - xx - yy)
    basis[12] = B3 * z * (2 * zz - 3 * xx - 3 * yy)
    basis[13] = -B2 * x * (4 * zz - xx - yy)
    basis[14] = B4 * z * (xx - yy)
    basis[15] = -B0 * x * (xx - 3 * yy)


@compiled()
def fill_basis_gradient(x, y, z, degree, g, out):
    """Gradient to (x, y, z), seen as free variables, from the gradient ``g`` to the basis."""
    out[0] = out[1] = out[2] = 0.0
    if degree < 1:
        return
    gx, gy, gz = -DEGREE_1 * g[3], -DEGREE_1 * g[1], DEGREE_1 * g[2]
    if degree >= 2:
        gx += A0 * (y * g[4] - z * g[7]) - 2 * A1 * x * g[6] + 2 * A2 * x * g[8]
        gy += A0 * (x * g[4] - z * g[5]) - 2 * A1 * y * g[6] - 2 * A2 * y * g[8]
        gz += -A0 * (y * g[5] + x * g[7]) + 4 * A1 * z * g[6]
    if degree >= 3:
        xx, yy, zz = x * x, y * y, z * z
        gx += -6 * B0 * x * y * g[9] + B1 * y * z * g[10] + 2 * B2 * x * y * g[11]
        gx += -6 * B3 * x * z * g[12] - B2 * (4 * zz - 3 * xx - yy) * g[13]
        gx += 2 * B4 * x * z * g[14] - 3 * B0 * (xx - yy) * g[15]
        gy += -3 * B0 * (xx - yy) * g[9] + B1 * x * z * g[10] - B2 * (4 * zz - xx - 3 * yy) * g[11]
        gy += -6 * B3 * y * z * g[12] + 2 * B2 * x * y * g[13]
        gy += -2 * B4 * y * z * g[14] + 6 * B0 * x * y * g[15]
        gz += B1 * x * y * g[10] - 8 * B2 * y * z * g[11] + 3 * B3 * (2 * zz - xx - yy) * g[12]
        gz += -8 * B2 * x * z * g[13] + B4 * (xx - yy) * g[14]
    out[0], out[1], out[2] = gx, gy, gz
