"""Scaling of features: x is replaced by (x - offset) * factor.

| scale    | offset | factor                | a feature that never changes |
|----------|--------|-----------------------|------------------------------|
| standard | mean   | 1 / deviation         | factor 1                     |
| 0-1      | min    | 1 / (max - min)       | factor 1                     |

The deviation is that of the population: the root of the mean square distance from the mean.

Flat samples (N, d) have one offset and factor for each feature; images (N, h, w) one of each for all pixels; images
with channels (N, h, w, c), and whatever has more axes, one of each for each index of the last axis.

The statistics are those of the training rows, in float64, from one pass over the file in chunks of fixed size, so that
they are the same each time and memory is bounded. The pass also meets every number, and finds those that are not
finite or that float32 cannot hold. Sources: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances" (1979) for the merging of chunks; the shift by the first row makes the deviation of a
constant feature exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import Problem
from thalweg_worker.datasets.rows import Rows
from thalweg_worker.datasets.source import Source, float32_holds
from thalweg_worker.datasets.stored import Array

CHUNK_ELEMENTS = 1 << 18  # 2 MiB of float64: stays in a core's cache over the passes of one chunk
CHUNK_ROWS_MIN = 16  # of wide samples, so that merging chunks costs less than reading them
FLOAT32_MAX = float(np.finfo(np.float32).max)

Moments = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """offset, factor: float64, of the shape () or (c,) or (d,), to be broadcast over a sample."""

    offset: Moments
    factor: Moments

    def conversion(self, dtype: np.dtype[Any]) -> Callable[[Array, Array], None]:
        """`convert(x, out)` writes (x - offset) * factor to `out`; x is (n, ...) of `dtype`, out float32 of its shape.

        Types that float32 holds exactly are computed in float32; wider ones are subtracted in float64, so that a
        large offset (a time in seconds) costs no digits.
        """
        offset, factor = self.offset.astype(np.float32), self.factor.astype(np.float32)

        def narrow(x: Array, out: Array) -> None:
            np.copyto(out, x)
            np.subtract(out, offset, out=out)
            np.multiply(out, factor, out=out)

        def wide(x: Array, out: Array) -> None:
            np.subtract(x, self.offset, out=out, dtype=np.float64, casting="same_kind")
            np.multiply(out, factor, out=out)

        return narrow if np.can_cast(dtype, np.float32) else wide


def input_dtype(
    dtype: np.dtype[Any], scale: Literal["none", "standard", "0-1"] | None
) -> Literal["float32", "int64"] | None:
    """Whole numbers of 4 or 8 bytes that are not to be scaled are tokens; all others become float32.

    scale: None where it is not known; None is returned where it matters
    """
    if dtype.kind not in "iu" or dtype.itemsize < 4:
        return "float32"
    return None if scale is None else "int64" if scale == "none" else "float32"


def measure(
    source: Source, rows: Rows, scale: Literal["none", "standard", "0-1"]
) -> tuple[Scaling | None, list[Problem]]:
    """The scaling by the given rows (None for "none"), and the numbers anywhere in the file that are of no use."""
    x = source.x.array
    statistics = {"none": None, "standard": _Deviation(), "0-1": _Range()}[scale]
    for begin, chunk in _chunks(x):
        if problem := _unusable(source, begin, chunk, x.shape[1:]):
            return None, [problem]
        if statistics is not None:
            mask = rows.mask(begin, begin + len(chunk))
            chosen = chunk if mask.all() else chunk[mask]
            if len(chosen):
                statistics.add(chosen)
    return (None if statistics is None else statistics.scaling(x.shape[1:])), []


class _Deviation:
    """Mean and mean square distance of each column, chunk after chunk, both relative to the first row."""

    def __init__(self) -> None:
        self.count = 0
        self.first = self.mean = self.squares = np.zeros(0)

    def add(self, chunk: Array) -> None:
        """chunk: (n, d), n >= 1."""
        if self.count == 0:
            self.first = chunk[0].astype(np.float64)
            self.mean = np.zeros_like(self.first)
            self.squares = np.zeros_like(self.first)
        shifted = np.subtract(chunk, self.first, dtype=np.float64)
        mean = shifted.mean(axis=0)
        shifted -= mean
        distance = mean - self.mean
        count = self.count + len(chunk)
        self.squares += np.einsum("ij,ij->j", shifted, shifted)
        self.squares += distance * distance * (self.count * len(chunk) / count)
        self.mean += distance * (len(chunk) / count)
        self.count = count

    def scaling(self, sample_shape: tuple[int, ...]) -> Scaling:
        """Groups of columns are merged like chunks of equal size: by the mean of the means."""
        means = _by_group(self.first + self.mean, sample_shape)
        variances = _by_group(self.squares / self.count, sample_shape)
        offset = means[0] + (means - means[0]).mean(axis=0)  # of equal means exactly their value
        deviation = np.sqrt((variances + (means - offset) ** 2).mean(axis=0))
        return Scaling(offset=offset, factor=1 / np.where(deviation > 0, deviation, 1.0))


class _Range:
    """The least and the largest value of each column."""

    def __init__(self) -> None:
        self.least = self.largest = np.zeros(0)

    def add(self, chunk: Array) -> None:
        """chunk: (n, d), n >= 1."""
        least, largest = chunk.min(axis=0).astype(np.float64), chunk.max(axis=0).astype(np.float64)
        first = self.least.size == 0
        self.least = least if first else np.minimum(self.least, least)
        self.largest = largest if first else np.maximum(self.largest, largest)

    def scaling(self, sample_shape: tuple[int, ...]) -> Scaling:
        least = _by_group(self.least, sample_shape).min(axis=0)
        width = _by_group(self.largest, sample_shape).max(axis=0) - least
        return Scaling(offset=least, factor=1 / np.where(width > 0, width, 1.0))


def _by_group(columns: Moments, sample_shape: tuple[int, ...]) -> Moments:
    """(d,) as (members, *shape of the scaling): columns along the first axis share one offset and factor."""
    if len(sample_shape) == 1:
        return columns[np.newaxis]
    return columns if len(sample_shape) == 2 else columns.reshape(-1, sample_shape[-1])


def _chunks(x: Array) -> Iterator[tuple[int, Array]]:
    """The rows in order as (begin, (n, d)), in bounded memory."""
    columns = x[:1].size
    rows = max(CHUNK_ROWS_MIN, CHUNK_ELEMENTS // columns)
    for begin in range(0, len(x), rows):
        yield begin, x[begin : begin + rows].reshape(-1, columns)


def _unusable(source: Source, begin: int, chunk: Array, sample_shape: tuple[int, ...]) -> Problem | None:
    """The first number of the chunk that is NaN, infinite or beyond float32."""
    if chunk.dtype.kind != "f":
        return None
    flat = chunk.reshape(-1)
    # One pass at the speed of memory: a sum of squares this small holds no number that is too large, and a NaN makes
    # the comparison false. Only a chunk that fails is looked at number by number. (float16 has no quick dot.)
    with np.errstate(all="ignore"):
        if flat.itemsize >= 4 and float(np.dot(flat, flat)) < FLOAT32_MAX:
            return None
    usable = float32_holds(flat)
    if usable.all():
        return None
    row, column = divmod(int(np.argmin(usable)), chunk.shape[1])
    value = chunk[row, column]
    if source.columns is not None:
        place = f'column "{source.columns[column]}"'
    elif len(sample_shape) == 1:
        place = f"column {column}"
    else:
        place = f"position {tuple(int(index) for index in np.unravel_index(column, sample_shape))}"
    expected = "numbers within float32's range" if np.isfinite(value) else "finite numbers"
    return Problem(source.field, expected, f"{value} in row {begin + row}, {place}")
