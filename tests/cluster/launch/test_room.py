from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.launch.room import Growth, fitting, no_room
from thalweg_cluster.resources import Resources


@pytest.mark.parametrize(("free", "expected"), [(0.0, 2), (2.9, 2), (3.0, 3), (7.5, 5)])
def test_a_run_takes_what_is_free_between_its_least_and_its_most(free, expected):
    """By hand, for 2 to 5 workers."""
    assert fitting(2, 5, Resources(free), 0.0) == expected


@given(st.integers(1, 50), st.integers(0, 50), st.floats(0, 200))
def test_it_never_takes_less_than_its_least_nor_more_than_its_most(least, more, free):
    """And never more than what is free, but for the least."""
    workers = fitting(least, least + more, Resources(free), 0.0)
    assert least <= workers <= least + more
    assert workers == least or workers <= free


def test_growth_is_looked_for_every_few_seconds_and_only_where_it_is_wanted():
    """A run that has its most never asks what is free."""
    asked = []

    def free() -> Resources:
        asked.append(1)
        return Resources(1.0)

    growing, grown = Growth(2, 3, every_s=0.0), Growth(3, 3, every_s=0.0)
    assert growing.possible(free, now=1e12)
    assert not grown.possible(free, now=1e12)
    rare = Growth(2, 3, every_s=5.0)
    assert not rare.possible(free, now=0.0)
    assert len(asked) == 1
    assert not Growth(2, 3, every_s=0.0).possible(lambda: Resources(0.5), now=1e12)


def test_a_worker_with_a_gpu_needs_both():
    """CPUs that are free help nobody who waits for a GPU."""
    assert fitting(1, 5, Resources(4.0, 1.0), 0.5) == 2
    assert fitting(1, 5, Resources(1.0, 4.0), 0.5) == 1
    growth = Growth(2, 3, gpus_per_worker=0.5, every_s=0.0)
    assert not growth.possible(lambda: Resources(8.0, 0.4), now=1e12)
    assert growth.possible(lambda: Resources(8.0, 0.5), now=1e12)


def test_that_there_is_no_room_names_what_a_worker_needs():
    """CPUs, and GPUs where it is about those."""
    text = no_room(3, 0.5, Resources(8, 2), Resources(6, 0.5), 60.0)
    assert "expected 3 free CPUs, one and 0.5 of a GPU for each worker; found 6 free of the cluster's 8, 0.5" in text
    assert "0.5 of its 2 GPUs. Wait" in text
    assert "GPU" not in no_room(3, 0.0, Resources(8, 2), Resources(2, 2), 60.0)
