"""The matrix product."""

from __future__ import annotations

from typing import Any

from thalweg_worker.autodiff.chain import Kernel
from thalweg_worker.autodiff.operands import broadcast_shape, floats
from thalweg_worker.autodiff.reductions import sum_to
from thalweg_worker.autodiff.shaping import reshape, transpose
from thalweg_worker.autodiff.tensor import Operand, Tensor
from thalweg_worker.autodiff.tiles import parameter_blocks


def matmul(a: Operand, b: Operand) -> Tensor:
    """a @ b as `numpy.matmul`: (..., n, k) @ (..., k, m) = (..., n, m), leading axes broadcast, vectors allowed.

    (..., n, k) @ (k, m) is one product of (... * n, k), and its gradient likewise, never a sum of many. Where b is a
    large parameter it is the sum of the products with a few blocks of its rows (tiles.py).
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
    y = _product(a, b, lead) if lead or not _as_it_lies(b) else _product_in_blocks(a, b)
    return y.linked(
        (a, lambda g: sum_to(_like(a, g, _turned(b)), a.shape)),
        (b, lambda g: sum_to(_like(b, _turned(a), g), b.shape)),
    )


def _product(a: Tensor, b: Tensor, lead: tuple[int, ...] = ()) -> Tensor:
    """a @ b; lead: the leading axes of the result."""
    xp = a.chain.xp

    def kernel(a: Any, b: Any, out: Any) -> None:
        xp.matmul(a, b, out=out)

    def only(begin: int, end: int) -> Kernel:
        def kernel(a: Any, b: Any, out: Any) -> None:
            xp.matmul(a[begin:end], b, out=out[begin:end])

        return kernel

    return a.chain.emit(kernel, (a, b), (*lead, a.shape[-2], b.shape[-1]), rows=None if lead else only)


def _product_in_blocks(a: Tensor, b: Tensor) -> Tensor:
    """(n, k) @ (k, m), as a sum of products with the blocks of b, so that each of them waits for its block alone."""
    chain, shape = a.chain, (a.shape[0], b.shape[1])
    matmul, plus = chain.xp.matmul, chain.xp.add

    def add_product(y: Any, a: Any, b: Any, out: Any, space: Any) -> None:
        matmul(a, b, out=space)
        plus(y, space, out)

    (_, end), *others = parameter_blocks((b.shape[0], b.shape[1]))
    y = _product(_columns(a, 0, end), _rows(b, 0, end))
    for begin, end in others:
        inputs = (y, _columns(a, begin, end), _rows(b, begin, end))
        y = chain.emit(add_product, inputs, shape, reuse=(0,), scratch=[(shape, chain.dtype)])
    return y


def _as_it_lies(x: Tensor) -> bool:
    """Whether `x` is a parameter, whose rows lie in the order in which they arrive."""
    return x.dense and x.root.tracked and not x.root.computed


def _columns(x: Tensor, begin: int, end: int) -> Tensor:
    return x if end - begin == x.shape[1] else x.chain.view(x, lambda x: x[:, begin:end], (x.shape[0], end - begin))


def _rows(x: Tensor, begin: int, end: int) -> Tensor:
    return x if end - begin == x.shape[0] else x.chain.view(x, lambda x: x[begin:end], (end - begin, x.shape[1]))


def _like(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a @ b, the cotangent of x. Where x is a turned view (as W.T), the turned product: it lies as x's base does."""
    if x.undo is not None and not x.dense:
        return _turned(matmul(_turned(b), _turned(a)))
    return matmul(a, b)


def _turned(x: Tensor) -> Tensor:
    """`x` with its last two axes swapped."""
    return transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))
