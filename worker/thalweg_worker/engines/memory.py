"""Memory, as the engines of other frameworks need it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray


def unguarded(array: NDArray[Any]) -> NDArray[Any]:
    """`array` without the mark that it is read-only, on the same memory. Whoever gets it must not write to it."""
    if array.flags.writeable:
        return array
    return np.asarray(_Memory(array))


class _Memory:
    def __init__(self, array: NDArray[Any]) -> None:
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self._owner = array  # for as long as somebody has what was made of this


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h>


def keep_freed_memory() -> None:
    """From now on what this process frees stays its own, for what it allocates next.

    A backward pass that allocates its gradients anew gets and frees the same sizes in each step. By default the GNU C
    library gives each large one back to the system, which has to zero its pages again in the next step: a fifth of the
    time of a network with gradients of 64 MB. Where malloc is another's, nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # from the heap, however large
        mallopt(M_TRIM_THRESHOLD, -1)  # which never shrinks
