from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.replicating import SHARE, ReplicaClock


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
