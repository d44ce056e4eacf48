"""Indexing, and the embedding look-up.

Integers, slices, `...` and None give a view. Integer arrays give a copy; repeated indices add up in the gradient. An
array (or tensor) alone, as in `x[rows]`, and `embedding` allocate nothing at replay; other mixtures of arrays are
right, and allocate their result each time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from thalweg_worker.autodiff import namespace, operands
from thalweg_worker.autodiff.namespace import is_array
from thalweg_worker.autodiff.tensor import Operand, Tensor


def index(x: Operand, key: Any) -> Tensor:
    """x[key]; IndexError at recording where a number is out of range, at replay where an element of an array is."""
    (x,) = operands.tensors("index", x)
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, (bool, np.bool_)) for part in parts):
        raise TypeError("index: expected integers, found bool; use autodiff.where for masks")
    if not any(isinstance(part, (Tensor, list)) or is_array(part) for part in parts):
        return _view(x, parts)
    parts = tuple(
        _integers("index", x, part) if isinstance(part, (Tensor, list)) or is_array(part) else part for part in parts
    )
    if len(parts) == 1:
        return _rows("index", x, parts[0], -x.shape[0] if x.shape else 0)
    return _gather(x, parts)


def embedding(table: Operand, indices: Operand) -> Tensor:
    """Rows of a table. table: (rows, ...); indices: integers of any shape, in [0, rows), else IndexError at replay."""
    (table,) = operands.tensors("embedding", table)
    return _rows("embedding", table, _integers("embedding", table, indices), 0)


def _integers(name: str, x: Tensor, indices: Any) -> Tensor:
    """`indices` as a tensor of int64, the only dtype that NumPy indexes by without a conversion of its own."""
    if isinstance(indices, list):
        indices = np.asarray(indices)
    _, tensor = operands.tensors(name, x, indices)
    if tensor.dtype.kind not in "iu":
        hint = "; use autodiff.where for masks" if tensor.dtype.kind == "b" else ""
        raise TypeError(f"{name}: expected integer indices, found {tensor.dtype}{hint}")
    return operands.cast(tensor, np.dtype(np.int64))


def _view(x: Tensor, key: tuple[Any, ...]) -> Tensor:
    try:
        shape = _like(x)[key].shape
    except IndexError as error:
        raise IndexError(f"index: {error} (the tensor has shape {x.shape})") from None
    # NumPy copies a single element, unless the key says `...`: an array of no axes that shares the memory of `x`.
    place = key if any(part is ... for part in key) else (*key, ...)
    y = x.chain.view(x, lambda array: array[place], shape)

    def scatter(g: Any, out: Any) -> None:
        out.fill(0)
        out[key] = g

    return y.linked((x, lambda g: x.chain.emit(scatter, (g,), x.shape, x.dtype)))


def _like(x: Tensor) -> Any:
    """An array of the shape of `x` that takes no memory."""
    return np.broadcast_to(np.empty((), np.bool_), x.shape)


def _rows(name: str, x: Tensor, rows: Tensor, lowest: int) -> Tensor:
    if x.ndim == 0:
        raise IndexError(f"{name}: expected a tensor with axes, found shape ()")
    xp, limit, width = x.chain.xp, x.shape[0], math.prod(x.shape[1:])

    def take(x: Any, rows: Any, out: Any) -> None:
        namespace.check_indices(xp, name, rows, lowest, limit)
        namespace.take(xp, x, rows, out)

    y = x.chain.emit(take, (x, rows), (*rows.shape, *x.shape[1:]), x.dtype)
    columns = x.chain.constant(np.arange(width))

    def scatter(g: Any, rows: Any, columns: Any, out: Any, begins: Any, places: Any) -> None:
        out.fill(0)
        xp.multiply(rows.reshape(-1, 1), width, begins)
        xp.add(begins, columns, places)
        namespace.scatter_add(xp, out.reshape(-1), places.reshape(-1), g.reshape(-1))

    spaces = [((rows.size, 1), np.int64), ((rows.size, width), np.int64)]

    def vjp(g: Tensor) -> Tensor:
        g = g if g.dense else operands.copy(g)
        return x.chain.emit(scatter, (g, rows, columns), x.shape, x.dtype, scratch=spaces)

    return y.linked((x, vjp))


def _gather(x: Tensor, key: tuple[Any, ...]) -> Tensor:
    """x[key] where `key` has tensors of integers among other parts."""
    arrays = [part for part in key if isinstance(part, Tensor)]

    def bound(values: tuple[Any, ...]) -> tuple[Any, ...]:
        rest = iter(values)
        return tuple(next(rest) if isinstance(part, Tensor) else part for part in key)

    try:
        shape = _like(x)[bound(tuple(np.zeros(a.shape, np.int64) for a in arrays))].shape
    except IndexError as error:
        raise IndexError(f"index: {error} (the tensor has shape {x.shape})") from None
    xp = x.chain.xp

    def gather(x: Any, *rest: Any) -> None:
        xp.copyto(rest[-1], x[bound(rest[:-1])])

    def scatter(g: Any, *rest: Any) -> None:
        out = rest[-1]
        out.fill(0)
        namespace.scatter_add(xp, out, bound(rest[:-1]), g)

    y = x.chain.emit(gather, (x, *arrays), shape, x.dtype)
    return y.linked((x, lambda g: x.chain.emit(scatter, (g, *arrays), x.shape, x.dtype)))
