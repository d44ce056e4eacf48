"""Sums, means and maxima over axes, and their reverse, broadcasting.

`axis` is an axis, several, or None for all; with `keepdims` the reduced axes stay with length 1.
"""

from __future__ import annotations

import math

import numpy as np

from thalweg_worker.autodiff import arithmetic, operands, shaping
from thalweg_worker.autodiff.tensor import Operand, Tensor

Axis = int | tuple[int, ...] | None


def sum(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over `axis`."""
    (x,) = operands.floats("sum", x)
    over = operands.axes("sum", x, axis)
    kept = _kept(x, over)
    y = x.chain.emit(lambda x, out: x.sum(over, None, out, True), (x,), kept)
    y.linked((x, lambda g: broadcast_to(g, x.shape)))
    return y if keepdims else _without(y, over)


def mean(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over `axis`."""
    (x,) = operands.floats("mean", x)
    count = math.prod(x.shape[a] for a in operands.axes("mean", x, axis))
    if count == 0:
        raise ValueError(f"mean: expected at least one element, found shape {x.shape} over axis {axis}")
    return arithmetic.multiply(sum(x, axis, keepdims), 1 / count)


def max(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over `axis`; elements that are equally large share the cotangent equally."""
    (x,) = operands.floats("max", x)
    over = operands.axes("max", x, axis)
    if 0 in (x.shape[a] for a in over):
        raise ValueError(f"max: expected at least one element, found shape {x.shape} over axis {axis}")
    y = x.chain.emit(lambda x, out: x.max(over, out, True), (x,), _kept(x, over))

    def vjp(g: Tensor) -> Tensor:
        largest = operands.cast(arithmetic.compare("equal", x, y), x.dtype)
        return arithmetic.multiply(largest, arithmetic.divide(g, sum(largest, over, keepdims=True)))

    y.linked((x, vjp))
    return y if keepdims else _without(y, over)


def sum_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`x` summed over the axes along which an array of `shape` was broadcast: the reverse of broadcasting."""
    if x.shape == shape:
        return x
    core = shape
    while core and core[0] == 1:
        core = core[1:]
    if core and x.dense and x.shape[x.ndim - len(core) :] == core and math.prod(core) > 1:
        return shaping.reshape(_sum_rows(shaping.reshape(x, (-1, math.prod(core)))), shape)
    lead = x.ndim - len(shape)
    over = tuple(a for a in range(x.ndim) if a < lead or (shape[a - lead] == 1 and x.shape[a] != 1))
    return shaping.reshape(sum(x, over), shape)


def _sum_rows(x: Tensor) -> Tensor:
    """(n, d) to (d,), the gradient of a bias: as ones @ x by BLAS, 1.3 to 2.7 times as fast as add.reduce."""
    ones = x.chain.constant(np.ones(x.shape[0], x.dtype))
    dot = x.chain.xp.dot
    return x.chain.emit(lambda ones, x, out: dot(ones, x, out), (ones, x), x.shape[1:])


def broadcast_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A view of `x` repeated along new axes and along axes of length 1."""
    if x.shape == shape:
        return x
    broadcast = x.chain.xp.broadcast_to
    y = x.chain.view(x, lambda array: broadcast(array, shape), shape)
    return y.linked((x, lambda g: sum_to(g, x.shape)))


def _kept(x: Tensor, over: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if a in over else length for a, length in enumerate(x.shape))


def _without(x: Tensor, over: tuple[int, ...]) -> Tensor:
    return shaping.reshape(x, tuple(length for a, length in enumerate(x.shape) if a not in over))
