"""Elementwise operations, with NumPy's broadcasting.

Each function is an instruction and a vector-Jacobian product for each operand. Operands are tensors, arrays and
numbers; results have the chain's floating dtype, unless all operands are integers and the operation keeps them so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from thalweg_worker.autodiff.operands import broadcast_shape, cast, elementwise, floats, tensors
from thalweg_worker.autodiff.reductions import sum_to
from thalweg_worker.autodiff.tensor import Operand, Tensor


def add(a: Operand, b: Operand) -> Tensor:
    """a + b"""
    a, b = _numbers("add", a, b)
    y = elementwise("add", a, b)
    return y.linked((a, lambda g: sum_to(g, a.shape)), (b, lambda g: sum_to(g, b.shape)))


def subtract(a: Operand, b: Operand) -> Tensor:
    """a - b"""
    a, b = _numbers("subtract", a, b)
    y = elementwise("subtract", a, b)
    return y.linked((a, lambda g: sum_to(g, a.shape)), (b, lambda g: negative(sum_to(g, b.shape))))


def multiply(a: Operand, b: Operand) -> Tensor:
    """a * b"""
    a, b = _numbers("multiply", a, b)
    y = elementwise("multiply", a, b)
    return y.linked(
        (a, lambda g: sum_to(multiply(g, b), a.shape)),
        (b, lambda g: sum_to(multiply(g, a), b.shape)),
    )


def divide(a: Operand, b: Operand) -> Tensor:
    """a / b"""
    a, b = floats("divide", a, b)
    y = elementwise("divide", a, b)
    return y.linked(
        (a, lambda g: sum_to(divide(g, b), a.shape)),
        (b, lambda g: sum_to(negative(divide(multiply(g, y), b)), b.shape)),
    )


def negative(x: Operand) -> Tensor:
    """-x"""
    (x,) = _numbers("negative", x)
    return elementwise("negative", x).linked((x, negative))


def power(x: Operand, exponent: Operand) -> Tensor:
    """x ** exponent; the cotangent of a tensor exponent is 0 where x <= 0, where log(x) is not defined."""
    if not isinstance(exponent, Tensor) and np.ndim(exponent) == 0:
        return _power(x, float(exponent))
    x, p = floats("power", x, exponent)
    y = elementwise("power", x, p)
    return y.linked(
        (x, lambda g: sum_to(multiply(g, multiply(p, power(x, subtract(p, 1)))), x.shape)),
        (p, lambda g: sum_to(multiply(g, multiply(y, log(where(x > 0, x, 1.0)))), p.shape)),
    )


def _power(x: Operand, exponent: float) -> Tensor:
    (x,) = floats("power", x)
    if exponent == 2:
        return elementwise("square", x).linked((x, lambda g: multiply(multiply(g, 2.0), x)))
    if exponent == 0.5:
        return sqrt(x)
    y = elementwise("power", x, x.chain.constant(exponent, x.dtype))
    slope = exponent - 1 if exponent else 0.0  # 0 * x**-1 would be NaN at x = 0
    return y.linked((x, lambda g: multiply(multiply(g, exponent), _power(x, slope))))


def exp(x: Operand) -> Tensor:
    """e ** x"""
    (x,) = floats("exp", x)
    y = elementwise("exp", x)
    return y.linked((x, lambda g: multiply(g, y)))


def log(x: Operand) -> Tensor:
    """The natural logarithm of x."""
    (x,) = floats("log", x)
    return elementwise("log", x).linked((x, lambda g: divide(g, x)))


def sqrt(x: Operand) -> Tensor:
    """The square root of x."""
    (x,) = floats("sqrt", x)
    y = elementwise("sqrt", x)
    return y.linked((x, lambda g: divide(multiply(g, 0.5), y)))


def compare(name: str, a: Operand, b: Operand) -> Tensor:
    """The mask `a < b` and its like (`name` is NumPy's); not differentiable."""
    a, b = _numbers(name, a, b)
    return elementwise(name, a, b, dtype=np.bool_)


def where(mask: Operand, a: Operand, b: Operand) -> Tensor:
    """a where mask (bool) is true, else b. Both are computed; the cotangent flows only to the one that is taken."""
    mask, a, b = tensors("where", mask, a, b)
    if mask.dtype != np.bool_:
        raise TypeError(f"where: expected a mask of bool, found {mask.dtype}; compare first, e.g. x > 0")
    a, b = _numbers("where", a, b)
    copyto = mask.chain.xp.copyto

    def select(mask: Any, a: Any, b: Any, out: Any) -> None:
        copyto(out, b)
        copyto(out, a, where=mask)

    shape = broadcast_shape("where", mask.shape, a.shape, b.shape)
    y = mask.chain.emit(select, (mask, a, b), shape, a.dtype)
    return y.linked(
        (a, lambda g: sum_to(where(mask, g, 0.0), a.shape)),
        (b, lambda g: sum_to(where(mask, 0.0, g), b.shape)),
    )


def _numbers(name: str, *values: Operand) -> tuple[Tensor, ...]:
    """`values` as tensors of one dtype: integers if all are, else the chain's."""
    xs = tensors(name, *values)
    integral = all(x.dtype.kind in "iu" for x in xs)
    dtype = np.result_type(*(x.dtype for x in xs)) if integral else xs[0].chain.dtype
    return tuple(cast(x, dtype) for x in xs)
