"""Geometric means of a few repeated measurements, with 95 % confidence intervals. Pure.

Student's t (Gosset, 1908): of n values with standard deviation s the mean lies within t(n - 1) * s / sqrt(n). It is
taken of logarithms, since speeds and their ratios are positive, and vary by a part of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

# The quantile 0.975 of Student's distribution, by degrees of freedom from 1 to 30; beyond, 2 is right to 2 %.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_BEYOND = 2.0


class Interval(NamedTuple):
    """A value, and where it lies with 95 % confidence; `low` and `high` are None where it was measured once."""

    value: float
    low: float | None = None
    high: float | None = None

    def times(self, factor: float) -> Interval:
        """Of the value times a factor above 0."""
        low, high = self.low, self.high
        return Interval(
            self.value * factor, None if low is None else low * factor, None if high is None else high * factor
        )


def mean_of(values: Sequence[float]) -> Interval:
    """The geometric mean of n >= 1 values above 0."""
    logarithms = [math.log(value) for value in values]
    middle = mean(logarithms)
    if len(values) == 1:
        return Interval(math.exp(middle))
    t = _T[len(values) - 2] if len(values) - 2 < len(_T) else _BEYOND
    half = t * stdev(logarithms) / math.sqrt(len(values))
    return Interval(*(math.exp(value) for value in (middle, middle - half, middle + half)))
