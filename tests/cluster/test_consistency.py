from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.consistency import Sync, Verdict
from thalweg_proto.errors import ProtocolError
from thalweg_proto.messages import Push


def push(generation: int, step: int, microbatch: int, loss: float = 0.0) -> Push:
    return Push(0, generation, step, microbatch, loss, 0.0, 0.0, 0.0, 0.0)


def test_a_step_with_two_microbatches_as_a_transcript():
    """Duplicates are acknowledged and not counted, late and fenced pushes change nothing."""
    policy = Sync(2)
    said = [policy.on_push(push(1, 0, m)) for m in (1, 1)]
    assert (said, policy.complete) == ([Verdict.ACCEPTED, Verdict.DUPLICATE], False)
    assert policy.on_push(push(1, 0, 0)) is Verdict.ACCEPTED
    assert policy.complete
    policy.advance()
    assert (policy.step, policy.complete) == (1, False)
    assert policy.on_push(push(1, 0, 0)) is Verdict.STALE
    assert policy.on_push(push(0, 1, 0)) is Verdict.FENCED
    assert policy.losses == {}


@pytest.mark.parametrize("wrong", [push(2, 0, 0), push(1, 1, 0), push(1, 0, 2)])
def test_a_push_that_nobody_asked_for_is_the_peers_mistake(wrong):
    """A generation, step or microbatch that does not exist yet raises, with what was expected and found."""
    with pytest.raises(ProtocolError, match=r"expected a push of generation 1, step 0 .* found generation"):
        Sync(2).on_push(wrong)


@given(st.integers(1, 8).flatmap(lambda v: st.tuples(st.just(v), st.lists(st.integers(0, v - 1), max_size=40))))
def test_a_step_is_complete_when_each_microbatch_came_and_keeps_the_first_loss(case):
    """Whatever the order and the repeats: complete = the set is full, and a repeat does not replace a loss."""
    microbatches, arrivals = case
    policy = Sync(microbatches)
    first: dict[int, float] = {}
    for time, m in enumerate(arrivals):
        first.setdefault(m, float(time))
        policy.on_push(push(1, 0, m, loss=float(time)))
    assert policy.losses == first
    assert policy.complete == (set(arrivals) == set(range(microbatches)))
