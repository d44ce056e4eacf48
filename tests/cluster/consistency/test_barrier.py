from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.consistency import Barrier, Verdict


def test_a_step_ends_with_its_last_gradient():
    """Three parts in any order; then the next step is open, with nobody in it."""
    barrier = Barrier(3)
    assert [barrier.arrived(0, part) for part in (2, 0)] == [Verdict.ACCEPTED] * 2
    assert (barrier.full, barrier.members) == (False, [0, 2])
    assert barrier.arrived(0, 1) is Verdict.ACCEPTED
    assert (barrier.full, barrier.step) == (True, 0)
    assert barrier.end() == [0, 1, 2]
    assert (barrier.full, barrier.step, barrier.members) == (False, 1, [])


def test_with_a_backup_worker_the_slowest_is_not_waited_for():
    """Two of three make the step; the third is late, before the step has ended as well as after."""
    barrier = Barrier(3, backup=1)
    assert [barrier.arrived(0, part) for part in (2, 1)] == [Verdict.ACCEPTED] * 2
    assert barrier.full
    assert barrier.arrived(0, 0) is Verdict.LATE
    assert barrier.end() == [1, 2]
    assert barrier.arrived(0, 0) is Verdict.LATE
    assert barrier.members == []


def test_a_gradient_that_comes_twice_counts_once():
    """In a step that waits, and in one that is full."""
    barrier = Barrier(2)
    assert [barrier.arrived(0, 1), barrier.arrived(0, 1)] == [Verdict.ACCEPTED, Verdict.DUPLICATE]
    assert barrier.members == [1]
    assert [barrier.arrived(0, 0), barrier.arrived(0, 1)] == [Verdict.ACCEPTED, Verdict.DUPLICATE]
    assert barrier.end() == [0, 1]


def test_what_cannot_be_is_an_error():
    """A gradient for a step that nobody can have begun, the end of a step that is not full, nobody to wait for."""
    barrier = Barrier(2)
    with pytest.raises(ValueError, match="a gradient for step 1, but step 0 has not ended"):
        barrier.arrived(1, 0)
    barrier.arrived(0, 0)
    with pytest.raises(ValueError, match="step 0 has 1 of 2 gradients"):
        barrier.end()
    for backup in (-1, 2):
        with pytest.raises(ValueError, match=rf"expected 0 <= backup < parts \(2\); found {backup}"):
            Barrier(2, backup)


@given(st.integers(1, 6).flatmap(lambda parts: st.tuples(st.just(parts), st.integers(0, parts - 1))), st.data())
def test_whatever_arrives_in_whatever_order(sizes, data):
    """A list of what came says the same: the members are the first to come, once each, and nobody else."""
    parts, backup = sizes
    barrier, step, came = Barrier(parts, backup), 0, []
    arrivals = st.tuples(st.integers(0, 2), st.integers(0, parts - 1))
    for back, part in data.draw(st.lists(arrivals, max_size=40)):
        verdict = barrier.arrived(max(0, step - back), part)
        if back and step:
            expected = Verdict.LATE
        elif part in came:
            expected = Verdict.DUPLICATE
        elif len(came) == parts - backup:
            expected = Verdict.LATE
        else:
            expected = Verdict.ACCEPTED
            came.append(part)
        assert verdict is expected
        assert (barrier.step, barrier.members) == (step, sorted(came))
        assert barrier.full == (len(came) == parts - backup)
        if barrier.full and data.draw(st.booleans()):
            assert barrier.end() == sorted(came)
            step, came = step + 1, []


@given(st.integers(1, 5).flatmap(lambda parts: st.lists(st.permutations(range(parts)), min_size=1, max_size=4)))
def test_without_backup_workers_every_gradient_is_in_its_step(orders):
    """Nothing is late, nothing is left out: what is summed is the same, whoever is slow."""
    barrier = Barrier(len(orders[0]))
    for step, order in enumerate(orders):
        assert {barrier.arrived(step, part) for part in order} == {Verdict.ACCEPTED}
        assert barrier.end() == sorted(order)
