from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.launch.room import Growth, fitting


@pytest.mark.parametrize(("free", "expected"), [(0.0, 2), (2.9, 2), (3.0, 3), (7.5, 5)])
def test_a_run_takes_what_is_free_between_its_least_and_its_most(free, expected):
    """By hand, for 2 to 5 workers."""
    assert fitting(2, 5, free) == expected


@given(st.integers(1, 50), st.integers(0, 50), st.floats(0, 200))
def test_it_never_takes_less_than_its_least_nor_more_than_its_most(least, more, free):
    """And never more than what is free, but for the least."""
    workers = fitting(least, least + more, free)
    assert least <= workers <= least + more
    assert workers == least or workers <= free


def test_growth_is_looked_for_every_few_seconds_and_only_where_it_is_wanted():
    """A run that has its most never asks what is free."""
    asked = []

    def free() -> float:
        asked.append(1)
        return 1.0

    growing, grown = Growth(2, 3, every_s=0.0), Growth(3, 3, every_s=0.0)
    assert growing.possible(free, now=1e12)
    assert not grown.possible(free, now=1e12)
    rare = Growth(2, 3, every_s=5.0)
    assert not rare.possible(free, now=0.0)
    assert len(asked) == 1
    assert not Growth(2, 3, every_s=0.0).possible(lambda: 0.5, now=1e12)
