from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.server.waiting import KEPT, Waiting

ONE = np.ones(1, np.uint32)


def steps(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


def test_what_the_others_wait_is_put_down_to_the_slowest():
    """3 workers, busy for 1, 2 and 4 s: the first waits for 3 s, the second for 2, both for worker 2."""
    waiting = Waiting(3)
    for rank, busy_s in enumerate((1.0, 2.0, 4.0)):
        assert waiting.for_s.tolist() == [0, 0, 0]  # not before all have told
        waiting.add(rank, steps(5), ONE, np.array([busy_s]))
    assert waiting.for_s.tolist() == [0, 0, 5]


@given(st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), min_size=1, max_size=30), st.data())
def test_batches_make_no_difference(busy, data):
    """However many steps each worker tells of at a time, it comes to what adding up step by step gives."""
    busy = np.array(busy)
    waiting, told = Waiting(3), [0, 0, 0]
    while min(told) < len(busy):
        rank = data.draw(st.sampled_from([rank for rank in range(3) if told[rank] < len(busy)]))
        end = data.draw(st.integers(told[rank] + 1, len(busy)))
        waiting.add(
            rank,
            np.arange(told[rank], end, dtype=np.uint64),
            np.ones(end - told[rank], np.uint32),
            busy[told[rank] : end, rank],
        )
        told[rank] = end
    longest = busy.max(axis=1)
    lost = (longest[:, None] - busy).sum(axis=1)
    assert waiting.for_s.sum() == pytest.approx(lost.sum())
    for rank in range(3):  # where two are equally slow, it is put down to one of them
        alone = (busy[:, rank] == longest) & ((busy == longest[:, None]).sum(axis=1) == 1)
        assert waiting.for_s[rank] >= lost[alone].sum() - 1e-6


def test_a_step_of_which_nobody_hears_in_time_is_forgotten():
    """Memory is bounded: a step that comes so much later takes its place, and what comes late is let go."""
    waiting = Waiting(2)
    waiting.add(0, steps(1), ONE, np.array([1.0]))
    waiting.add(0, steps(1 + KEPT), ONE, np.array([1.0]))
    waiting.add(1, steps(1), ONE, np.array([9.0]))
    assert waiting.for_s.tolist() == [0, 0]
    waiting.add(1, steps(1 + KEPT), ONE, np.array([3.0]))
    assert waiting.for_s.tolist() == [0, 2]


def test_who_sits_a_step_out_waits_for_nobody():
    """Worker 2 leaves its microbatches to the others, and draws samples ahead meanwhile."""
    waiting = Waiting(3)
    for rank, microbatches, busy_s in ((0, 2, 1.0), (1, 2, 3.0), (2, 0, 0.5)):
        waiting.add(rank, steps(1), np.array([microbatches], np.uint32), np.array([busy_s]))
    assert waiting.for_s.tolist() == [0, 2, 0]


def test_those_who_are_left_settle_a_step():
    """With one of three gone, two are all."""
    waiting = Waiting(3)
    waiting.members = 2
    waiting.add(0, steps(1), ONE, np.array([1.0]))
    waiting.add(2, steps(1), ONE, np.array([2.0]))
    assert waiting.for_s.tolist() == [0, 0, 1]
