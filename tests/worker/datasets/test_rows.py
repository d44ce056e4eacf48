"""Which rows are held out follows from the seed, and every row is on one side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_worker.datasets.rows import all_rows, check_split, split


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**63 - 1))
def test_training_and_held_out_rows_partition_the_file(size: int, fraction: float, seed: int) -> None:
    """Each row is in exactly one part, the held-out part has the asked size, and the mask says the same."""
    train, held_out = split(size, fraction, seed)
    parts = [rows.at(np.arange(len(rows), dtype=np.int64)) for rows in (train, held_out)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(size))
    assert len(held_out) == round(fraction * size)
    assert sorted(parts[0].tolist()) == np.flatnonzero(train.mask(0, size)).tolist()
    assert np.array_equal(train.mask(0, size), ~held_out.mask(0, size))


def test_the_split_is_a_function_of_the_seed() -> None:
    """One seed gives one split; another seed another one."""
    assert split(1000, 0.2, 7) == split(1000, 0.2, 7)
    indices = np.arange(200)
    assert not np.array_equal(split(1000, 0.2, 7)[1].at(indices), split(1000, 0.2, 8)[1].at(indices))


def test_a_split_of_a_trillion_rows_costs_nothing() -> None:
    """Rows are computed for the indices asked for."""
    train, _ = split(10**12, 0.2, 0)
    rows = train.at(np.array([0, len(train) - 1]))
    assert (rows < 10**12).all()
    assert train.mask(int(rows[0]), int(rows[0]) + 1).tolist() == [True]


def test_indices_beyond_the_set_are_refused() -> None:
    """Held-out rows cannot be reached through the training set."""
    train, _ = split(10, 0.3, 0)
    for index in (-1, len(train)):
        with pytest.raises(IndexError):
            train.at(np.array([index]))
    assert all_rows(3).at(np.array([2, 0])).tolist() == [2, 0]


@pytest.mark.parametrize(("size", "fraction", "left"), [(1, 0.2, "none held out"), (3, 0.9, "none for training")])
def test_a_fraction_that_leaves_no_rows_is_a_problem(size: int, fraction: float, left: str) -> None:
    """Both parts need a row."""
    assert left in str(check_split(size, fraction)[0])
    assert check_split(10, 0.2) == []
