"""Where CuPy is not NumPy: all that the operations do differently for the two stands here.

An operation gets its functions from `chain.xp`, the module of the parameters' arrays, and gives them `out`. CuPy is
never imported unless arrays of it come in.

On a GPU two promises are weaker: `scatter_add` adds with atomics, so repeated indices are summed in no fixed order, and
indices are not checked (looking at them would wait for the GPU); CuPy wraps those that are out of range.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np


def is_array_type(kind: type) -> bool:
    """Whether `kind` is NumPy's or CuPy's type of arrays, or derived from one."""
    return issubclass(kind, np.ndarray) or _is_cupy(kind)


def is_array(value: object) -> bool:
    return is_array_type(type(value))


def namespace_of(array: Any) -> ModuleType:
    """The module, numpy or cupy, that `array` belongs to."""
    return importlib.import_module("cupy") if _is_cupy(type(array)) else np


def _is_cupy(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] == "cupy" for base in kind.__mro__)


def to_device(xp: ModuleType, array: Any) -> Any:
    """`array` where CuPy can compute on it; keys (uint64) stay, since the host reads them."""
    return array if array.dtype == np.uint64 else xp.asarray(array)


def arena(xp: ModuleType, nbytes: int) -> Any:
    """`nbytes` of memory, uint8, that begin on a multiple of 64 bytes: a cache line, and the widest vector register."""
    if xp is not np:
        return xp.empty(nbytes, np.uint8)  # CuPy aligns to 512
    memory = np.empty(nbytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + nbytes]


def check_indices(xp: ModuleType, name: str, indices: Any, lowest: int, limit: int) -> None:
    """IndexError where an index is outside [lowest, limit). NumPy only, see the top."""
    if xp is np and indices.size:
        least, most = int(np.minimum.reduce(indices, None)), int(np.maximum.reduce(indices, None))
        if least < lowest or most >= limit:
            found = least if least < lowest else most
            raise IndexError(f"{name}: expected indices in [{lowest}, {limit}), found {found}")


def take(xp: ModuleType, array: Any, indices: Any, out: Any) -> None:
    """out = array[indices] along the first axis; negative indices count from the end."""
    if xp is np:
        array.take(indices, 0, out, "wrap")  # mode "raise" would go through a buffer
    else:
        array.take(indices, 0, out)


def scatter_add(xp: ModuleType, flat: Any, indices: Any, values: Any) -> None:
    """flat[indices] += values with repeated indices summed; all of one axis, which is NumPy's fast path."""
    if xp is np:
        np.add.at(flat, indices, values)
    else:
        importlib.import_module("cupyx").scatter_add(flat, indices, values)


def as_strided(xp: ModuleType, array: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    return xp.lib.stride_tricks.as_strided(array, shape, strides)


def uniform(xp: ModuleType, key: tuple[int, int], counter: tuple[int, int, int, int], out: Any) -> None:
    """Fill `out` (float32) with numbers in [0, 1) of the Philox stream (key, counter).

    The numbers are drawn on the host for CuPy too, so that a mask is the same whatever computes it.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    philox = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))
    generator = np.random.Generator(philox)
    if xp is np:
        generator.random(out=out, dtype=np.float32)
    else:
        out.set(generator.random(out.shape, dtype=np.float32))
