"""Contains a small vocabulary for numba intrinsics that work on eight numbers at once.

numba vectorises loops only when they are long; spans of a few pixels are not. Here the vector
instructions are written as LLVM vector operations, which every processor's backend lowers to what
it has (AVX, SSE, NEON).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

WIDTH = 8
INT32 = ir.IntType(32)
FLOAT = ir.FloatType()
DOUBLE = ir.DoubleType()


class Vectors:
    """Builds vector operations; values are LLVM vectors of `WIDTH` lanes."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def constant(self, value: float, kind: ir.Type = DOUBLE) -> Any:
        """The same constant in all lanes."""
        return ir.Constant(ir.VectorType(kind, WIDTH), [value] * WIDTH)

    def ramp(self) -> Any:
        """0, 1, .. 7 as doubles."""
        return ir.Constant(ir.VectorType(DOUBLE, WIDTH), [float(i) for i in range(WIDTH)])

    def spread(self, scalar: Any) -> Any:
        """A scalar value in all lanes."""
        kind = ir.VectorType(scalar.type, WIDTH)
        first = self.builder.insert_element(
            ir.Constant(kind, ir.Undefined), scalar, ir.Constant(INT32, 0)
        )
        lanes = ir.Constant(ir.VectorType(INT32, WIDTH), [0] * WIDTH)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), lanes)

    def load(self, data: Any, index: Any) -> Any:
        """Eight neighbours of an array from ``index`` on."""
        return self.builder.load(self._pointer(data, index), align=4)

    def store(self, value: Any, data: Any, index: Any) -> None:
        """Write eight neighbours of an array from ``index`` on."""
        self.builder.store(value, self._pointer(data, index), align=4)

    def scalar(self, data: Any, index: Any) -> Any:
        """One element of an array in all lanes."""
        return self.spread(self.builder.load(self.builder.gep(data, [index])))

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """A * b + c, fused where the processor can."""
        product = self.builder.fmul(a, b, flags=("contract",))
        return self.builder.fadd(product, c, flags=("contract",))

    def polynomial(self, x: Any, coefficients: list[float]) -> Any:
        """Horner's rule, constant term first."""
        value = self.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            value = self.multiply_add(value, x, self.constant(coefficient))
        return value

    def minimum(self, a: Any, b: Any) -> Any:
        """Lane-wise minimum."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def negative_magnitude(self, a: Any) -> Any:
        """-abs(a) of doubles."""
        is_positive = self.builder.fcmp_ordered(">", a, self.constant(0.0))
        return self.builder.select(is_positive, self.builder.fneg(a), a)

    def to_float(self, a: Any) -> Any:
        """Doubles to floats."""
        return self.builder.fptrunc(a, ir.VectorType(FLOAT, WIDTH))

    def to_double(self, a: Any) -> Any:
        """Floats to doubles."""
        return self.builder.fpext(a, ir.VectorType(DOUBLE, WIDTH))

    def _pointer(self, data: Any, index: Any) -> Any:
        element = self.builder.gep(data, [index])
        kind = ir.VectorType(data.type.pointee, WIDTH)
        return self.builder.bitcast(element, kind.as_pointer())
