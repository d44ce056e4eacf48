from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.resources import Resources, counted, gpus_for, on_gpus


@pytest.mark.parametrize(
    ("gpus", "share", "workers"), [(2, 1.0, 2), (1, 0.1, 10), (1, 0.3333, 3), (2, 0.6, 2), (1.5, 0.5, 3), (0.4, 0.5, 0)]
)
def test_a_share_lies_on_one_gpu(gpus, share, workers):
    """By hand; 0.1 ten times is one, whatever binary fractions make of it."""
    assert on_gpus(gpus, share) == workers


@given(st.integers(0, 16), st.integers(1, 10_000))
def test_law_of_shares(gpus, units):
    """As many to each GPU as exact arithmetic finds, in the ten-thousandths that Ray counts."""
    assert on_gpus(gpus, units / 10_000) == gpus * int(1 / Fraction(units, 10_000))


def test_without_gpus_a_worker_is_a_cpu():
    """A part of one is none."""
    assert Resources(3.9).workers(0.0) == 3
    assert Resources.of({"CPU": 4.0, "memory": 1.0}) == Resources(4.0, 0.0)


def test_counts_are_words():
    """One is not many."""
    assert [counted(n, "GPU") for n in (0, 0.5, 1, 2)] == ["0 GPUs", "0.5 GPUs", "1 GPU", "2 GPUs"]
    assert gpus_for(3, 0.1) == 0.3
