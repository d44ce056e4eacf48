"""Arrays for frameworks that know no read-only memory."""

from __future__ import annotations

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
