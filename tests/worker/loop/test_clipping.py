from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.shared_memory import CHUNK
from thalweg_worker.loop.clipping import shorten


def normal(size: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal(size, dtype=np.float32)


@given(st.sampled_from([1, 7, CHUNK, CHUNK + 1, 3 * CHUNK + 5]), st.floats(1e-3, 1e3))
def test_a_gradient_is_shortened_as_numpy_would(size, longest):
    """g * longest / (|g| + 1e-6) where |g| is longer, with |g| in float64; else every bit stays."""
    gradient = normal(size)
    before = gradient.copy()
    norm = np.linalg.norm(before.astype(np.float64))
    shorten(gradient, longest)
    if norm > longest * 1.001:
        np.testing.assert_allclose(gradient, before * (longest / (norm + 1e-6)), rtol=1e-5)
        assert np.linalg.norm(gradient) == pytest.approx(longest, rel=1e-4)
    elif norm < longest * 0.999:
        np.testing.assert_array_equal(gradient, before)


def test_0_leaves_a_gradient_as_it_is():
    """Clipping is off."""
    gradient = normal(10)
    before = gradient.copy()
    shorten(gradient, 0.0)
    np.testing.assert_array_equal(gradient, before)


def test_a_gradient_of_zeros_stays():
    """Nothing is divided by its norm."""
    gradient = np.zeros(5, np.float32)
    shorten(gradient, 1.0)
    assert gradient.tolist() == [0.0] * 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_stays_so(bad):
    """And nothing else of it changes: the update finds it, and halts."""
    gradient = normal(CHUNK + 3)
    gradient[CHUNK + 1] = bad
    before = gradient.copy()
    with np.errstate(all="ignore"):
        shorten(gradient, 1.0)
    np.testing.assert_array_equal(gradient, before)


@pytest.mark.parametrize("value", [1e20, 1e36])
def test_a_gradient_whose_squares_overflow_float32_is_shortened(value):
    """It is finite, and its norm is known in float64."""
    gradient = np.full(CHUNK + 3, value, np.float32)
    with np.errstate(over="ignore"):
        shorten(gradient, 2.0)
    assert gradient == pytest.approx(np.full(CHUNK + 3, 2.0 / np.sqrt(CHUNK + 3)), rel=1e-5)


def test_a_gradient_is_shortened_where_it_lies():
    """A part of a longer array is changed, and nothing beside it."""
    array = np.full(6, 3.0, np.float32)
    shorten(array[1:5], 3.0)
    assert array == pytest.approx([3.0, 1.5, 1.5, 1.5, 1.5, 3.0], rel=1e-5)


@pytest.mark.parametrize("longest", [0.5, 100.0])
def test_what_is_averaged_is_neither_counted_nor_shortened(longest):
    """The rest is shortened as if it were not there."""
    gradient = normal(20)
    rest = np.delete(gradient, [*range(3), *range(10, 12)])
    statistics = gradient[[*range(3), *range(10, 12)]].copy()
    shorten(rest, longest)
    shorten(gradient, longest, [(0, 3), (10, 12)])
    np.testing.assert_allclose(np.delete(gradient, [*range(3), *range(10, 12)]), rest, rtol=1e-6)
    np.testing.assert_array_equal(gradient[[*range(3), *range(10, 12)]], statistics)
