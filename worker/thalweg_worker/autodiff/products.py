"""The matrix product."""

from __future__ import annotations

from typing import Any

from thalweg_worker.autodiff.chain import Kernel
from thalweg_worker.autodiff.operands import broadcast_shape, floats
from thalweg_worker.autodiff.reductions import sum_to
from thalweg_worker.autodiff.shaping import reshape, transpose
from thalweg_worker.autodiff.tensor import Operand, Tensor


def matmul(a: Operand, b: Operand) -> Tensor:
    """a @ b as `numpy.matmul`: (..., n, k) @ (..., k, m) = (..., n, m), leading axes broadcast, vectors allowed.

    (..., n, k) @ (k, m) is one product of (... * n, k), and its gradient likewise, never a sum of many.
    """
    a, b = floats("matmul", a, b)
    if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: expected shapes (..., n, k) and (..., k, m), found {a.shape} and {b.shape}")
    if a.ndim == 1:
        y = matmul(reshape(a, (1, a.size)), b)
        return reshape(y, (*y.shape[:-2], *y.shape[-1:])) if b.ndim > 1 else reshape(y, ())
    if b.ndim == 1:
        return reshape(matmul(a, reshape(b, (b.size, 1))), a.shape[:-1])
    if b.ndim == 2 and a.ndim > 2:
        rows = reshape(a, (a.size // a.shape[-1] if a.size else 0, a.shape[-1]))
        return reshape(matmul(rows, b), (*a.shape[:-1], b.shape[-1]))
    lead = broadcast_shape("matmul", a.shape[:-2], b.shape[:-2])
    xp = a.chain.xp

    def kernel(a: Any, b: Any, out: Any) -> None:
        xp.matmul(a, b, out=out)

    def only(begin: int, end: int) -> Kernel:
        def kernel(a: Any, b: Any, out: Any) -> None:
            xp.matmul(a[begin:end], b, out=out[begin:end])

        return kernel

    y = a.chain.emit(kernel, (a, b), (*lead, a.shape[-2], b.shape[-1]), rows=None if lead else only)
    return y.linked(
        (a, lambda g: sum_to(_like(a, g, _turned(b)), a.shape)),
        (b, lambda g: sum_to(_like(b, _turned(a), g), b.shape)),
    )


def _like(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a @ b, the cotangent of x. Where x is a turned view (as W.T), the turned product: it lies as x's base does."""
    if x.undo is not None and not x.dense:
        return _turned(matmul(_turned(b), _turned(a)))
    return matmul(a, b)


def _turned(x: Tensor) -> Tensor:
    """`x` with its last two axes swapped."""
    return transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))
