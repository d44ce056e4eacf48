"""Other shapes for the same elements: reshape, transpose, concatenate, pad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from thalweg_worker.autodiff import indexing, operands
from thalweg_worker.autodiff.tensor import VJP, Operand, Tensor


def reshape(x: Operand, shape: int | Sequence[int]) -> Tensor:
    """The elements of `x` in C order with another shape, in which one length may be -1. A view where x is dense."""
    (x,) = operands.tensors("reshape", x)
    new = _complete(x, (shape,) if isinstance(shape, int) else tuple(shape))
    if new == x.shape:
        return x
    if not x.dense:
        return reshape(operands.copy(x), new)
    old = x.shape
    y = x.chain.view(x, lambda a: a.reshape(new), new, dense=True, undo=lambda a: a.reshape(old))
    return y.linked((x, lambda g: reshape(g, old)))


def _complete(x: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    known = math.prod(length for length in shape if length != -1)
    if shape.count(-1) == 1 and known:
        shape = tuple(x.size // known if length == -1 else length for length in shape)
    if math.prod(shape) != x.size or any(length < 0 for length in shape):
        raise ValueError(f"reshape: expected a shape of {x.size} elements, as {x.shape} has, found {shape}")
    return shape


def transpose(x: Operand, axes: Sequence[int] | None = None) -> Tensor:
    """A view of `x` with its axes in the order `axes`, by default reversed."""
    (x,) = operands.tensors("transpose", x)
    order = tuple(reversed(range(x.ndim))) if axes is None else tuple(axes)
    if sorted(a % x.ndim if -x.ndim <= a < x.ndim else -1 for a in order) != list(range(x.ndim)):
        raise ValueError(f"transpose: expected an order of the {x.ndim} axes of shape {x.shape}, found {order}")
    order = tuple(a % x.ndim for a in order)
    back = tuple(order.index(a) for a in range(x.ndim))
    if order == back == tuple(range(x.ndim)):
        return x
    shape = tuple(x.shape[a] for a in order)
    y = x.chain.view(x, lambda a: a.transpose(order), shape, undo=lambda a: a.transpose(back))
    return y.linked((x, lambda g: transpose(g, back)))


def concatenate(xs: Sequence[Operand], axis: int = 0) -> Tensor:
    """`xs` joined along an existing axis; their other lengths are equal."""
    parts = operands.floats("concatenate", *xs)
    first = parts[0]
    (along,) = operands.axes("concatenate", first, axis)
    if any(_across(part, along) != _across(first, along) for part in parts):
        found = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"concatenate: expected shapes that differ only in axis {axis}, found {found}")
    ends = list(accumulate(part.shape[along] for part in parts))
    shape = (*first.shape[:along], ends[-1], *first.shape[along + 1 :])
    join = first.chain.xp.concatenate

    def kernel(*arrays: Any) -> None:
        join(arrays[:-1], along, arrays[-1])

    def share(begin: int, end: int) -> VJP:
        key = (*(slice(None),) * along, slice(begin, end))
        return lambda g: indexing.index(g, key)

    y = first.chain.emit(kernel, parts, shape)
    return y.linked(*((part, share(end - part.shape[along], end)) for part, end in zip(parts, ends, strict=True)))


def _across(x: Tensor, along: int) -> tuple[int, ...]:
    return (x.ndim, *x.shape[:along], *x.shape[along + 1 :])


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """`x` in a border of zeros, `widths` (before, after) on each axis."""
    if not any(before or after for before, after in widths):
        return x
    shape = tuple(before + length + after for length, (before, after) in zip(x.shape, widths, strict=True))
    inner = tuple(slice(before, before + length) for length, (before, _) in zip(x.shape, widths, strict=True))

    def kernel(x: Any, out: Any) -> None:
        out.fill(0)
        out[inner] = x

    y = x.chain.emit(kernel, (x,), shape)
    return y.linked((x, lambda g: indexing.index(g, inner)))
