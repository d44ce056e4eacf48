"""Means and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.experiments.intervals import mean_of

POSITIVE = st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=40)


def test_by_hand():
    """The logarithms are 0, 1, 2: mean 1, deviation 1; t(2) is 4.303, and the square root of 3 is 1.732."""
    value, low, high = mean_of([1.0, math.e, math.e**2])
    assert value == pytest.approx(math.e)
    assert math.log(high) == pytest.approx(1 + 4.303 / math.sqrt(3))
    assert math.log(low) == pytest.approx(1 - 4.303 / math.sqrt(3))


def test_what_was_measured_once_has_no_interval():
    assert mean_of([5.0]) == (pytest.approx(5.0), None, None)


@given(POSITIVE, st.floats(1e-3, 1e3))
def test_it_scales_with_the_unit(values, factor):
    scaled, here = mean_of([value * factor for value in values]), mean_of(values).times(factor)
    assert scaled == pytest.approx(here, rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 31])
def test_19_of_20_intervals_hold_the_true_value(n):
    generator = np.random.default_rng(7)
    drawn = np.exp(generator.normal(math.log(100), 0.2, (4000, n)))
    held = [low <= 100 <= high for _, low, high in map(mean_of, drawn.tolist())]
    assert 0.935 < np.mean(held) < 0.965
