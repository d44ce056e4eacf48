from __future__ import annotations

import math

import pytest

from thalweg_cluster.server.speculation import LEAST_S, LOOK_S, TIMES, TIMES_MAX, Speculation

PACES = [1.0, 1.0, 1.2]
SLOW_S = TIMES * 1.0


def test_who_is_in_a_microbatch_for_longer_than_three_times_the_typical_time_is_slow():
    """Worker 1 began at 10 s, and the others wait; not yet at 3 s, and from then on."""
    speculation = Speculation()
    since, in_hand = {0: 0.0, 1: 10.0, 2: 0.0}, {1: 1}
    assert speculation.stragglers(since, in_hand, PACES, now=10.0 + SLOW_S) == set()
    assert speculation.stragglers(since, in_hand, PACES, now=10.01 + SLOW_S) == {1}


@pytest.mark.parametrize(
    ("since", "in_hand"),
    [
        ({0: 10.0, 1: 10.0}, {0: 1, 1: 1}),  # nobody is idle
        ({0: 0.0, 1: 10.0, 2: 19.5}, {1: 1, 2: 1}),  # another one is still at its own, and may help when it is done
        ({0: 0.0, 1: 10.0}, {1: 0}),  # it is at something else
        ({0: 0.0, 1: 10.0}, {1: 4}),  # four at once take longer
        ({0: 0.0, 1: 0.0}, {}),  # all wait
    ],
)
def test_nothing_is_copied_where_that_would_not_help(since, in_hand):
    """Ten seconds after the begin, where a microbatch takes one."""
    assert Speculation().stragglers(since, in_hand, PACES, now=20.0) == set()


@pytest.mark.parametrize("paces", [[], [0.0, 0.0], [0.0, math.inf]])
def test_nothing_is_copied_before_it_is_known_what_a_microbatch_takes(paces):
    """The first one may have to compile something."""
    assert Speculation().stragglers({0: 0.0, 1: 1.0}, {1: 1}, paces, now=1e6) == set()
    assert Speculation().look_s(paces) == LOOK_S


def test_the_patience_is_bounded_below_and_looks_are_as_frequent():
    """A microbatch of 1 ms: 0.1 s, since a copy has its price."""
    assert Speculation().patience_s([1e-3]) == Speculation().look_s([1e-3]) == LEAST_S


def test_the_patience_doubles_with_copies_that_lose_and_halves_with_those_that_win():
    """Where some microbatches always take long, copies become rare; the counts say what became of them."""
    speculation = Speculation()
    for _ in range(10):
        speculation.gave(1)
        speculation.ended(won=False)
    assert speculation.patience_s([1.0]) == TIMES_MAX
    speculation.gave(10)
    for _ in range(10):
        speculation.ended(won=True)
    assert speculation.patience_s([1.0]) == TIMES
    assert (speculation.given, speculation.won) == (20, 10)
