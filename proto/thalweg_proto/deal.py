"""Who computes which microbatch of a step on one host: each member's hand, and what others take out of it.

Before a step its microbatches are dealt out, each member a run of them. It takes them from the front of its hand;
others, who are done with theirs, take from its back (thalweg_worker/exchange/taking.py says when). Each is taken once.

Rules:
  - A hand is the number in an eventfd: the positions [begin, end) of `Board.order` that nobody has taken. Who reads it
    has it alone, until he writes what he left: the kernel lets one in at a time, in any process.
  - Who dies with a hand leaves the others waiting for it; the alarm, which the server raises then, ends that. The hands
    are dealt anew after it.
  - `Board.left` says how much is in each hand, so that nobody asks the kernel for what is not there.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Sequence

from thalweg_proto.board import Board
from thalweg_proto.shares import share

_BITS = 31


def create_hands(seats: int) -> list[int]:
    """New hands, empty: eventfds, by rank."""
    return [os.eventfd(_packed(0, 0), os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(seats)]


def deal(fds: Sequence[int], board: Board, members: Sequence[int], microbatches: Sequence[int] | None = None) -> None:
    """Deals out `microbatches`, by default all; while nobody takes any.

    fds:     of the hands, by rank
    members: ranks, by place
    """
    everything = range(len(board.order))
    pieces = everything if microbatches is None else microbatches
    if microbatches is not None or board.dealt != len(pieces):
        board.deal(pieces)
    for rank in range(len(fds)) if microbatches is not None else ():
        _put(fds, board, rank, range(0))  # also those who meet no more
    for place, rank in enumerate(members):
        _put(fds, board, rank, share(len(pieces), place, len(members)))


def _put(fds: Sequence[int], board: Board, rank: int, hand: range) -> None:
    with contextlib.suppress(BlockingIOError):  # one who died has it
        os.eventfd_read(fds[rank])
    board.left[rank] = len(hand)
    os.eventfd_write(fds[rank], _packed(hand.start, hand.stop))


class Hands:
    """One process' view of the hands of all, by rank."""

    def __init__(self, fds: Sequence[int], board: Board, alarm: int) -> None:
        """Takes over `fds`.

        alarm: a file descriptor that becomes readable where waiting has no point any more
        """
        self._fds = tuple(fds)
        self._board = board
        self._alarm = alarm

    def deal(self) -> None:
        """Deals out all microbatches to those who meet."""
        deal(self._fds, self._board, self._board.members)

    def take_first(self, rank: int, count: int = 1) -> list[int]:
        """Microbatches from the front of a hand, up to `count`; none where it is empty, or the alarm was raised."""
        packed = self._read(self._fds[rank]) if self._board.left[rank] else None
        if packed is None:
            return []
        begin, end = _unpacked(packed)
        cut = min(begin + count, end)
        self._leave(rank, cut, end)
        return self._board.order[begin:cut].tolist()

    def take_last(self, rank: int) -> list[int]:
        """The microbatch at the back of a hand; none where it is empty, or the alarm was raised."""
        packed = self._read(self._fds[rank]) if self._board.left[rank] else None
        if packed is None:
            return []
        begin, end = _unpacked(packed)
        cut = max(begin, end - 1)
        self._leave(rank, begin, cut)
        return self._board.order[cut:end].tolist()

    def _leave(self, rank: int, begin: int, end: int) -> None:
        self._board.left[rank] = end - begin
        os.eventfd_write(self._fds[rank], _packed(begin, end))

    def _read(self, fd: int) -> int | None:
        try:
            return os.eventfd_read(fd)
        except BlockingIOError:  # somebody else has it just now
            return self._wait(fd)

    def _wait(self, fd: int) -> int | None:
        poll = select.poll()
        for each in (fd, self._alarm):
            poll.register(each, select.POLLIN)
        while any(ready == fd for ready, _ in poll.poll()):
            with contextlib.suppress(BlockingIOError):
                return os.eventfd_read(fd)
        return None

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


def _packed(begin: int, end: int) -> int:
    """As an eventfd holds it: 0 would be nothing."""
    return (begin << _BITS | end) + 1


def _unpacked(packed: int) -> tuple[int, int]:
    return (packed - 1) >> _BITS, (packed - 1) & ((1 << _BITS) - 1)
