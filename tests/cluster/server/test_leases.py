from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.server.leases import Leases


def test_who_is_at_one_piece_for_longer_than_it_may_hangs():
    """Who waits does not, however long."""
    leases = Leases(2.0)
    leases.took(0.001)
    hanging = leases.hanging({0: 0.0, 1: 97.9, 2: 98.1, 3: 100.0}, now=100.0)
    assert hanging == {
        1: "it hung, and was killed: it was at one piece of work for 2.1 s, where 2.0 s are allowed",
    }


def test_slow_work_has_a_longer_lease():
    """Ten times the longest piece so far, never less than the job's lease, and ten times that before one is known."""
    leases = Leases(2.0)
    assert leases.lease_s == 20.0
    leases.took(0.1)
    assert leases.lease_s == 2.0
    leases.took(5.0)
    leases.took(0.1)
    assert leases.lease_s == 50.0


@given(st.lists(st.floats(0, 100)), st.floats(0.1, 100))
def test_a_worker_as_slow_as_any_before_never_hangs(pieces, lease_s):
    """Nor one that is ten times slower than that."""
    leases = Leases(lease_s)
    for seconds in pieces:
        leases.took(seconds)
    if pieces:
        assert leases.hanging({0: 1000.0}, now=1000.0 + 9.99 * max(pieces)) == {}
