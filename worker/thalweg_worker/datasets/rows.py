"""Which rows of a file a data set has: the held-out ones, the others, or all.

A permutation keyed by the job's seed puts the rows in an order: its first positions are held out, the rest is for
training. It is computed, not stored, so that it costs no memory at any number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import Problem
from thalweg_worker.permutation import Permutation, splitmix64, word

HELD_OUT = 1  # the number of splitmix64 that keys the split; the sampler's epochs take number 0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of `size` that stand at the positions [begin, end) of the permutation.

    key: of the permutation; None where the rows keep their order
    """

    key: int | None
    size: int
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def at(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of the file, int64 of any shape in and out; raises IndexError beyond [0, len(self))."""
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"indices must lie in [0, {len(self)})")
        positions = indices + self.begin
        return positions if self.key is None else Permutation(self.key, self.size)(positions)

    def mask(self, begin: int, end: int) -> NDArray[np.bool_]:
        """For the rows [begin, end) of the file: whether they are among these."""
        rows = np.arange(begin, end, dtype=np.int64)
        positions = rows if self.key is None else Permutation(self.key, self.size).inverse(rows)
        return (self.begin <= positions) & (positions < self.end)


def all_rows(size: int) -> Rows:
    """Every row, in the file's order."""
    return Rows(key=None, size=size, begin=0, end=size)


def split(size: int, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Training rows and held-out rows: round(fraction * size) are held out."""
    key = int(splitmix64(word(seed), word(HELD_OUT))[0])
    held_out = round(fraction * size)
    return (
        Rows(key=key, size=size, begin=held_out, end=size),
        Rows(key=key, size=size, begin=0, end=held_out),
    )


def rows_of(size: int, fraction: float, seed: int) -> tuple[Rows, Rows | None, list[Problem]]:
    """The rows to train on and those held out, None for a fraction of 0; all train where the split is wrong."""
    if fraction == 0:
        return all_rows(size), None, []
    if problems := check_split(size, fraction):
        return all_rows(size), None, problems
    return *split(size, fraction, seed), []


def check_split(size: int, fraction: float) -> list[Problem]:
    """What is wrong with holding out a fraction > 0 of `size` rows."""
    held_out = round(fraction * size)
    if 0 < held_out < size:
        return []
    left = "none for training" if held_out else "none held out"
    return [Problem("data.eval", "a fraction that leaves rows on both sides", f"{fraction:g} of {size} rows: {left}")]
