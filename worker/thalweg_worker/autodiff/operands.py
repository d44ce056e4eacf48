"""What an operation does with what it is given: numbers and arrays become constants, integers become floats."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from thalweg_worker.autodiff.chain import Chain
from thalweg_worker.autodiff.namespace import is_array
from thalweg_worker.autodiff.tensor import Operand, Tensor


def tensors(name: str, *values: Operand) -> tuple[Tensor, ...]:
    """`values` as tensors of one chain; floating arrays and numbers take the chain's dtype.

    Raises TypeError where none of them is a tensor or one is something else than a tensor, an array or a number, and
    ValueError where they come from different recordings.
    """
    chain = next((value.chain for value in values if isinstance(value, Tensor)), None)
    if chain is None:
        found = ", ".join(type(value).__name__ for value in values)
        raise TypeError(f"{name}: expected at least one tensor, found {found}; use NumPy for what is constant")
    return tuple(_tensor(name, chain, value) for value in values)


def floats(name: str, *values: Operand) -> tuple[Tensor, ...]:
    """`values` as tensors of the chain's floating dtype."""
    return tuple(cast(x, x.chain.dtype) for x in tensors(name, *values))


def _tensor(name: str, chain: Chain, value: Operand) -> Tensor:
    if isinstance(value, Tensor):
        if value.chain is not chain:
            raise ValueError(f"{name}: a tensor of another recording was kept; tensors live as long as one call")
        return value
    if is_array(value) or isinstance(value, (numbers.Real, np.generic)):
        kind = np.dtype(getattr(value, "dtype", type(value))).kind
        if kind in "fiub":
            return chain.constant(value, chain.dtype if kind == "f" else None)
    raise TypeError(f"{name}: expected a tensor, an array of numbers or a number, found {type(value).__name__}")


def cast(x: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """`x` in another dtype; the cotangent flows back in x's own."""
    if x.dtype == dtype:
        return x
    copyto = x.chain.xp.copyto
    y = x.chain.emit(lambda x, out: copyto(out, x, casting="unsafe"), (x,), x.shape, dtype)
    return y.linked((x, lambda g: cast(g, x.dtype)))


def copy(x: Tensor) -> Tensor:
    """`x` in memory of its own."""
    copyto = x.chain.xp.copyto
    y = x.chain.emit(lambda x, out: copyto(out, x), (x,), x.shape, x.dtype)
    return y.linked((x, lambda g: g))


def zeros_like(x: Tensor) -> Tensor:
    """Zeros in the shape and dtype of `x`."""
    return x.chain.emit(lambda out: out.fill(0), (), x.shape, x.dtype)


def detached(x: Tensor) -> Tensor:
    """`x` without its past: no cotangent flows back through what is made of it.

    An operation with a hand-written vector-Jacobian product computes on this, and links its result to `x` itself.
    """
    return x.chain.view(x, lambda array: array, x.shape, dense=x.dense)


def broadcast_shape(name: str, *shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape to which NumPy's rule broadcasts `shapes`; ValueError where it does not."""
    try:
        return np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        found = " and ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(f"{name}: expected shapes that broadcast together, found {found}") from None


def axes(name: str, x: Tensor, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    """`axis` as a sorted tuple of axes of `x` counted from 0; ValueError for one that `x` does not have."""
    wanted = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    if any(not -x.ndim <= a < x.ndim for a in wanted):
        raise ValueError(f"{name}: expected axes of a tensor of shape {x.shape}, found {axis}")
    return tuple(sorted({a % x.ndim for a in wanted}))


def elementwise(name: str, *xs: Tensor, dtype: Any = None) -> Tensor:
    """The ufunc `name` of the namespace over `xs`; the result may take over the memory of any of them."""
    shape = broadcast_shape(name, *(x.shape for x in xs))
    ufunc = getattr(xs[0].chain.xp, name)
    return xs[0].chain.emit(ufunc, xs, shape, dtype or xs[0].dtype, reuse=range(len(xs)))
