from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.replicating import NOTICE, SHARE, ReplicaClock, again_s_max


def test_a_replica_is_due_every_so_often():
    """Counted from the beginning of the one before; never while one is under way."""
    clock = ReplicaClock(5.0)
    assert not clock.due(1e9), "before the run has begun"
    clock.start(100.0)
    assert [clock.due(now_s) for now_s in (104.9, 105.0)] == [False, True]
    clock.begun(105.0)
    assert not clock.due(1e9)
    clock.ended(105.01)
    assert [clock.due(now_s) for now_s in (109.9, 110.0)] == [False, True]


def test_one_that_takes_long_puts_the_next_one_off():
    """Half a second is 2 % of 25 seconds."""
    clock = ReplicaClock(5.0)
    clock.start(0.0)
    clock.begun(5.0)
    clock.ended(5.5)
    assert [clock.due(now_s) for now_s in (29.9, 30.0)] == [False, True]


def test_to_wait_for_a_version_is_not_to_replicate_it():
    """A replica begins when the lead has its copy, if it knows when that was."""
    clock = ReplicaClock(5.0)
    clock.start(0.0)
    clock.copied(1.0)
    clock.begun(5.0)
    clock.copied(35.0)
    clock.ended(35.125)
    assert [clock.due(now_s) for now_s in (41.2, 41.25)] == [False, True]


def test_zero_is_never():
    clock = ReplicaClock(0.0)
    clock.start(0.0)
    assert not clock.due(1e9)


@given(st.floats(0.01, 100), st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_a_replica_is_under_way_for_at_most_its_share_of_the_time(every_s, takes_s):
    """However long each takes: up to the beginning of the next one."""
    clock = ReplicaClock(every_s)
    clock.start(0.0)
    now_s = every_s
    under_way_s = 0.0
    for took_s in takes_s:
        assert clock.due(now_s)
        clock.begun(now_s)
        clock.ended(now_s + took_s)
        under_way_s += took_s
        now_s += max(every_s, took_s / SHARE) * (1 + 1e-9)
        assert under_way_s <= SHARE * now_s


def test_how_much_is_computed_again_by_hand():
    """Replicas of 0.1 s each 5 s, steps of 20 ms, a look each second: 5 + 1 + 5 x 0.02 + 0.1. One that takes half a
    second puts the next one off to 25 s."""
    assert again_s_max(5.0, 0.1, 0.02, 1.0) == pytest.approx(6.2)
    assert again_s_max(5.0, 0.5, 0.0, 0.0) == 25.5


def replayed(every_s: float, takes_s: list[float], step_s: float, look_s: float) -> float:
    """The most that would be computed again, whenever the server died: a run in which all happens as late as it may."""
    clock = ReplicaClock(every_s)
    clock.start(0.0)
    now_s, kept_s, most_s = 0.0, 0.0, 0.0  # kept_s: when the version was there that the newest whole replica is of
    for took_s in takes_s:
        while not clock.due(now_s):
            now_s += look_s
        clock.begun(now_s)
        step = int(now_s / step_s)
        copied_s = (step + NOTICE) * step_s  # that is when the version begins to be there, which the hosts were told of
        copied_s = max(copied_s, now_s)
        clock.copied(copied_s)
        now_s = copied_s + took_s
        most_s = max(most_s, now_s - kept_s)  # it dies right before this one is whole
        clock.ended(now_s)
        kept_s = copied_s
    return most_s


@given(
    st.floats(0.1, 10),
    st.lists(st.floats(0.001, 2), min_size=1, max_size=20),
    st.floats(0.001, 30),
    st.floats(0.01, 2),
)
def test_no_more_is_computed_again_than_is_said(every_s, takes_s, step_s, look_s):
    """Whenever a server dies, against a run that is played through; also with steps that take longer than replicas
    are apart."""
    bound_s = again_s_max(every_s, max(takes_s), step_s, look_s)
    assert replayed(every_s, takes_s, step_s, look_s) <= bound_s * (1 + 1e-9)
