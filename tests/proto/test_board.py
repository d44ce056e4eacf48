from __future__ import annotations

import math
import os

import pytest

from thalweg_proto.board import HISTORY, Board, Outcome, board_bytes
from thalweg_proto.shared_memory import CHUNK, MemoryPlan, create_segment

PLAN = MemoryPlan(size=3 * CHUNK - 16, microbatches=4, slots=0)


@pytest.fixture
def boards():
    """One board, mapped by two."""
    fd = create_segment(board_bytes(PLAN, seats=2))
    pair = Board(PLAN, 2, fd), Board(PLAN, 2, fd)
    os.close(fd)
    return pair


def test_what_one_writes_the_others_read(boards):
    """Every field, each with a value of its own, so that no two lie in the same place."""
    one, other = boards
    one.seat([1], at_s=9.0)
    one.deal([2, 0, 3])
    one.losses[3], one.finite[1], one.busy_since[1], one.squares[2] = 0.25, 0, 3.5, 7.0
    one.done[2], one.left[0], one.piece_s[1] = 5, 6, 2.25
    one.summed(0.5)
    one.measured(1.5)
    one.publish(6, Outcome.DONE, evaluate=True, at_s=12.5)
    one.ask_to_stop()
    assert other.losses.tolist() == [0, 0, 0, 0.25]
    assert other.finite.tolist() == [1, 0]
    assert other.busy_since.tolist() == [0, 3.5]
    assert other.squares.tolist() == [0, 0, 7.0]
    assert (other.members, other.dealt, other.order.tolist()) == ((1,), 3, [2, 0, 3, 0])
    assert (other.done.tolist(), other.left.tolist(), other.piece_s.tolist()) == ([0, 0, 5, 0], [6, 0], [0, 2.25])
    assert other.history(6).tolist() == [[0.5, 1.5, 12.5]]
    assert (other.loss, other.gradient_norm, other.version, other.published_s) == (0.5, 1.5, 6, 12.5)
    assert (other.outcome, other.evaluate, other.stop_asked) == (Outcome.DONE, True, True)


def test_a_new_sum_forgets_the_norm(boards):
    """A norm is that of its own step, or not known."""
    boards[0].measured(1.5)
    boards[0].summed(0.5)
    assert math.isnan(boards[1].gradient_norm)


def test_a_halt_leaves_the_version(boards):
    """The newest version stays what it is; only the outcome changes."""
    boards[0].publish(6, Outcome.TRAIN, evaluate=False, at_s=1.0)
    boards[0].halt()
    assert (boards[1].version, boards[1].outcome) == (6, Outcome.NOT_FINITE)


def test_versions_are_remembered_for_a_while(boards):
    """How each of the newest came about, in their order."""
    one, other = boards
    for version in range(1, HISTORY + 5):
        one.summed(float(version))
        one.publish(version, Outcome.TRAIN, evaluate=False, at_s=2.0 * version)
    first = HISTORY - 3
    assert other.history(first)[:, 0].tolist() == list(range(first, HISTORY + 5))
    assert len(other.history(5)) == HISTORY
    assert len(other.history(HISTORY + 5)) == 0


def test_a_step_counts_as_pushed_until_it_is_published(boards):
    """After that the next one is yet to be."""
    one, other = boards
    assert not other.pushed
    one.summed(0.5)
    assert other.pushed
    one.publish(1, Outcome.TRAIN, evaluate=False, at_s=1.0)
    assert not other.pushed


def test_who_has_work_to_do_has_had_it_since_it_began_or_the_others_let_it(boards):
    """Two meet. Who waits has none; when the rendezvous is opened both have, also the one that does not wake up."""
    one, other = boards
    one.seat([0, 1], at_s=1.0)
    assert other.working_since() == [1.0, 1.0]
    one.busy_since[0] = 2.0
    one.arrived[0] = one.next_rendezvous
    assert other.working_since() == [0.0, 1.0]
    one.open(3.0)  # by rank 1, the last
    assert other.working_since() == [3.0, 3.0]
    one.busy_since[1] = 4.0
    one.arrived[1] = one.next_rendezvous
    assert other.working_since() == [3.0, 0.0]
    one.busy_since[0] = 0.0  # it is done
    assert other.working_since() == [0.0, 0.0]
