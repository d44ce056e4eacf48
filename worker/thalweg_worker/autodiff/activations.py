"""relu, tanh and sigmoid."""

from __future__ import annotations

from typing import Any

import numpy as np

from thalweg_worker.autodiff.arithmetic import multiply, subtract
from thalweg_worker.autodiff.chain import Kernel
from thalweg_worker.autodiff.operands import detached, elementwise, floats
from thalweg_worker.autodiff.shaping import reshape
from thalweg_worker.autodiff.tensor import Operand, Tensor

_ROW_LENGTHS = range(4096, 63, -1)  # of a row of zeros that stays in the first-level cache and is worth a call


def relu(x: Operand) -> Tensor:
    """max(x, 0); the slope at 0 is 0."""
    (x,) = floats("relu", x)
    xp = x.chain.xp
    # NumPy's `maximum` is vectorised for two arrays and not for an array and a number, a factor of 3. So the array is
    # seen as rows, and compared with one row of zeros; where it does not divide into rows, with one zero.
    width = next((length for length in _ROW_LENGTHS if x.size % length == 0), 1)
    rows = reshape(detached(x), (x.size // width, width))
    zeros = x.chain.constant(np.zeros(width, x.dtype))
    maximum = x.chain.emit(lambda x, zeros, out: xp.maximum(x, zeros, out=out), (rows, zeros), rows.shape, reuse=(0,))
    y = reshape(maximum, x.shape)
    step = _relu_vjp(xp)
    return y.linked((x, lambda g: y.chain.emit(step, (g, y), y.shape, reuse=(1,), scratch=[(y.shape, np.bool_)])))


def _relu_vjp(xp: Any) -> Kernel:
    def kernel(g: Any, y: Any, out: Any, mask: Any) -> None:
        xp.greater(y, 0, mask)
        xp.copyto(out, mask)  # 0.0 and 1.0: `multiply` by a mask of bool would convert it piece by piece
        xp.multiply(g, out, out)

    return kernel


def tanh(x: Operand) -> Tensor:
    """tanh(x)"""
    (x,) = floats("tanh", x)
    y = elementwise("tanh", x)
    return y.linked((x, lambda g: multiply(g, subtract(1.0, multiply(y, y)))))


def sigmoid(x: Operand) -> Tensor:
    """1 / (1 + exp(-x)), computed as (1 + tanh(x / 2)) / 2, which does not overflow."""
    (x,) = floats("sigmoid", x)
    xp = x.chain.xp

    def kernel(x: Any, out: Any) -> None:
        xp.multiply(x, 0.5, out)
        xp.tanh(out, out)
        xp.add(out, 1, out)
        xp.multiply(out, 0.5, out)

    y = x.chain.emit(kernel, (x,), x.shape, reuse=(0,))
    return y.linked((x, lambda g: multiply(multiply(g, y), subtract(1.0, y))))
