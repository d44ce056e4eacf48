from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.board import Board, board_bytes
from thalweg_proto.deal import Hands, create_hands, deal
from thalweg_proto.shared_memory import MemoryPlan, create_segment


class Table:
    """Hands in this process; each process that takes from them has an end of its own."""

    def __init__(self, microbatches: int, seats: int) -> None:
        plan = MemoryPlan(size=16, microbatches=microbatches, slots=0)
        segment = create_segment(board_bytes(plan, seats))
        self.board = Board(plan, seats, segment)
        os.close(segment)
        self.fds = create_hands(seats)
        self.alarm, self.raise_alarm = os.pipe()
        self.ends: list[Hands] = []

    def end(self) -> Hands:
        self.ends.append(Hands([os.dup(fd) for fd in self.fds], self.board, self.alarm))
        return self.ends[-1]

    def close(self) -> None:
        for end in self.ends:
            end.close()
        for fd in (*self.fds, self.alarm, self.raise_alarm):
            os.close(fd)


@pytest.fixture
def table():
    made = []

    def make(**of) -> Table:
        made.append(Table(**of))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_hand_is_taken_from_both_ends(table):
    """Seven microbatches for ranks 0 and 2 of 3: 0, 1, 2 and 3 ... 6; rank 1 gets none."""
    here = table(microbatches=7, seats=3)
    deal(here.fds, here.board, [0, 2])
    end = here.end()
    assert here.board.left.tolist() == [3, 0, 4]
    assert [end.take_first(2), end.take_last(2), end.take_first(2, 9)] == [[3], [6], [4, 5]]
    assert (end.take_first(2), end.take_last(2), end.take_first(1)) == ([], [], [])
    assert here.board.left.tolist() == [3, 0, 0]


def test_some_may_be_dealt_and_then_all_again(table):
    """What is missing after a loss, in its order; then the next step's."""
    here = table(microbatches=5, seats=2)
    deal(here.fds, here.board, [0, 1])
    deal(here.fds, here.board, [1], [0, 3, 4])
    here.board.seat([1], at_s=0.0)
    end = here.end()
    assert [end.take_first(1, 2), end.take_first(1, 2), end.take_first(1, 2)] == [[0, 3], [4], []]
    assert end.take_first(0) == []
    end.deal()
    assert end.take_first(1, 9) == [0, 1, 2, 3, 4]


@given(
    microbatches=st.integers(1, 40),
    seats=st.integers(1, 6),
    moves=st.lists(st.tuples(st.booleans(), st.integers(0, 5))),
)
def test_each_is_taken_once_by_whoever_takes_it(microbatches, seats, moves):
    """Against a list for each member, popped at either end."""
    here = Table(microbatches, seats)
    members = list(range(0, seats, 2))
    deal(here.fds, here.board, members)
    end = here.end()
    cuts = [place * microbatches // len(members) for place in range(len(members) + 1)]
    oracle = {rank: list(range(cuts[i], cuts[i + 1])) for i, rank in enumerate(members)}
    for last, rank in moves:
        hand = oracle.get(rank, [])
        expected = [hand.pop() if last else hand.pop(0)] if hand else []
        if rank < seats:
            assert (end.take_last if last else end.take_first)(rank) == expected
    here.close()


def test_four_take_at_the_same_time_and_nothing_is_taken_twice(table):
    """Threads on hands that are contended."""
    here = table(microbatches=4000, seats=2)
    deal(here.fds, here.board, [0, 1])
    taken: list[list[int]] = [[] for _ in range(4)]

    def take(mine: list[int], end: Hands, rank: int, *, last: bool) -> None:
        while some := (end.take_last(rank) if last else end.take_first(rank, 3)):
            mine.extend(some)

    threads = [
        threading.Thread(target=take, args=(mine, here.end(), i % 2), kwargs={"last": i > 1})
        for i, mine in enumerate(taken)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(m for mine in taken for m in mine) == list(range(4000))


def test_who_dies_with_a_hand_does_not_hold_up_the_others_beyond_the_alarm(table):
    """The hand is empty, and stays so; the alarm ends the waiting, and a new deal mends it."""
    here = table(microbatches=4, seats=1)
    deal(here.fds, here.board, [0])
    os.eventfd_read(here.fds[0])  # and dies
    os.write(here.raise_alarm, b"!")
    end = here.end()
    assert end.take_first(0) == []
    deal(here.fds, here.board, [0], [2, 3])
    assert end.take_first(0) == [2]
