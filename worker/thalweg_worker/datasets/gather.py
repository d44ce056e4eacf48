"""Rows of an array, converted, into a buffer of the caller's: the only part of the data sets on the hot path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg_worker.datasets.scaling import Scaling
from thalweg_worker.datasets.stored import Array

Convert = Callable[[Array, Array], None]  # write the second array from the first, of the same shape


def sample_conversion(dtype: np.dtype[Any], out: np.dtype[Any], scaling: Scaling | None) -> Convert | None:
    """How samples of `dtype` become those of `out`, float32 or (tokens, unscaled) int64; None: they are such."""
    if scaling is not None:
        return scaling.conversion(dtype)
    return None if dtype == out else cast


def label_conversion(dtype: np.dtype[Any], out: np.dtype[Any], classes: Array | None) -> Convert | None:
    """How labels become class indices, or numbers of `dtype` those of `out`; None: they are such.

    classes: (k,) the sorted distinct labels; None where there is nothing to look up
    """
    if classes is not None:
        return lambda labels, indices: np.copyto(indices, np.searchsorted(classes, labels))
    return None if dtype == out else cast


def cast(source: Array, out: Array) -> None:
    """The conversion that changes nothing but the dtype."""
    np.copyto(out, source, casting="same_kind")


@dataclass(eq=False)
class Gather:
    """`gather(rows, out)` writes `array[rows]`, converted, to `out`.

    array:   (size, ...) C-contiguous; read-only is enough
    convert: None where the rows are copied as they are
    """

    array: Array
    convert: Convert | None
    _bytes: NDArray[np.uint8] = field(init=False, repr=False)
    _scratch: NDArray[np.uint8] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # As bytes: `ndarray.take` would first copy the whole of an array that is not aligned, which a mapped file
        # may be.
        self._bytes = self.array.reshape(len(self.array), -1).view(np.uint8)
        self._scratch = np.empty((0, self._bytes.shape[1]), np.uint8)

    def __call__(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """rows: (n,) int64 within [0, size), which the caller has checked; out: (n, ...) of the shape of a row."""
        if self.convert is None:
            self.array.take(rows, 0, out, "clip")  # with "raise", NumPy writes to a buffer of its own first
            return
        if len(self._scratch) < len(rows):
            self._scratch = np.empty((len(rows), self._bytes.shape[1]), np.uint8)
        scratch = self._scratch[: len(rows)]
        self._bytes.take(rows, 0, scratch, "clip")
        self.convert(scratch.view(self.array.dtype).reshape(out.shape), out)
