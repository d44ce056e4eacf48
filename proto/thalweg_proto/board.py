"""The board: small numbers that the workers of one host and its server write up for each other.

Rules:
  - A field that belongs to a worker, a microbatch or a chunk is written by the one who has it in hand, before the next
    rendezvous, and read by all after it. `busy_since`, `piece_s` and `left` may be read by anybody at any time: they
    are hints, and nothing is wrong where one is out of date.
  - The head is written by the last to arrive at a rendezvous, before the others go on; `stop_asked` and `copied` by the
    server alone. Between two memberships, when nobody meets, the server writes what it wants.
  - One who is left out of a membership (permits.py) writes nothing here until it meets again.
  - So no other field is ever written and read at the same time, and none needs a lock.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.shared_memory import MemoryPlan

_WORD: Final = 8  # bytes of each field
_RANK_BITS: Final = 16
(
    _VERSION,
    _OUTCOME,
    _EVALUATE,
    _STOP_ASKED,
    _COPIED,
    _PUSHED,
    _MEMBERS,
    _DEALT,
    _SKIPPED,
    _IN_A_ROW,
    _OPENED,
    _OPENED_S,
) = range(12)
_LOSS, _GRADIENT_NORM, _PUBLISHED_S, _HEAD = range(12, 16)
HISTORY: Final = 1024
"""Of so many versions it is known how they came about."""


class Outcome(IntEnum):
    """What the newest version is for."""

    TRAIN = 0  # compute the gradients of the step that starts from it
    DONE = 1  # it is the last one
    STOPPED = 2  # the run was asked to stop
    NOT_FINITE = 3  # the step that should have followed it came to NaN or infinity


class Board:
    """One host's board, with a seat for each worker that may take part, by rank.

    losses:  (V,) mean loss of each microbatch of the step
    done:    (V,) the step after the newest one for which the microbatch's gradient was computed; 0: none was
    order:   (V,) the microbatches that are dealt out (deal.py), the first `dealt` of it
    begun:   (V,) which worker began each last, and in which step (`begins`)
    left:    (seats,) how many microbatches each has yet to begin, of those it was dealt
    finite:  (seats,) 1 where a worker's share of the next version is finite, 0 where it is not
    busy_since: (seats,) when each began its newest piece of work (time.perf_counter); 0: it has none
    arrived: (seats,) the rendezvous that each waits at, or waited at last, counted from 1
    piece_s: (seats,) how long each takes for a microbatch, in seconds (thalweg_worker/exchange/taking.py)
    squares: (chunks,) sum of the squares of the summed gradient, chunk by chunk, where the norm is wanted
    """

    def __init__(self, plan: MemoryPlan, seats: int, fd: int) -> None:
        """Maps the board behind `fd`, which may be closed at once."""
        words = memoryview(mmap.mmap(fd, board_bytes(plan, seats)))
        parts = _parts(plan, seats)
        ends = np.cumsum(parts) * _WORD
        self._whole = words[: ends[0]].cast("q")
        self._numbers = words[: ends[0]].cast("d")
        # memoryviews: one element is read or written in a tenth of the time that NumPy takes.
        fields = [words[begin:end] for begin, end in pairwise(ends)]
        self.losses = fields[0].cast("d")
        self.done = fields[1].cast("q")
        self.order = fields[2].cast("q")
        self.begun = fields[3].cast("q")
        self._members = fields[4].cast("q")
        self.left = fields[5].cast("q")
        self.finite = fields[6].cast("q")
        self.busy_since = fields[7].cast("d")
        self.piece_s = fields[8].cast("d")
        self.arrived = fields[9].cast("q")
        self._history = fields[10].cast("d")
        self.squares: NDArray[np.float64] = np.frombuffer(fields[11], dtype=np.float64)
        self._moved = fields[12].cast("q")  # of each row, by how much its place is not its number: all zero at first

    @property
    def version(self) -> int:
        """The newest whole version."""
        return self._whole[_VERSION]

    @property
    def outcome(self) -> Outcome:
        return Outcome(self._whole[_OUTCOME])

    @property
    def evaluate(self) -> bool:
        """Whether the held-out set is to be evaluated with the newest version."""
        return bool(self._whole[_EVALUATE])

    @property
    def loss(self) -> float:
        """Mean loss over the batch of the step that made the newest version."""
        return self._numbers[_LOSS]

    @property
    def gradient_norm(self) -> float:
        """Euclidean norm of that step's gradient before clipping; NaN where it was not taken."""
        return self._numbers[_GRADIENT_NORM]

    @property
    def published_s(self) -> float:
        """When the newest version was published, on the monotonic clock (time.perf_counter), which is one a host."""
        return self._numbers[_PUBLISHED_S]

    @property
    def skipped(self) -> int:
        """How many steps of this run left the parameters as they were."""
        return self._whole[_SKIPPED]

    @property
    def skipped_in_a_row(self) -> int:
        """How many of them are the newest ones, without another between."""
        return self._whole[_IN_A_ROW]

    @property
    def stop_asked(self) -> bool:
        """Whether the run shall end with the next version."""
        return bool(self._whole[_STOP_ASKED])

    @property
    def copied(self) -> int:
        """The newest version of which the server has a copy, or wants none."""
        return self._whole[_COPIED]

    @property
    def members(self) -> tuple[int, ...]:
        """The ranks of those who meet, by place."""
        return tuple(self._members[: self._whole[_MEMBERS]])

    def seat(self, members: Sequence[int], at_s: float) -> None:
        """These meet from now on, `at_s` (time.perf_counter), whatever others did before."""
        for rank in range(len(self.finite)):
            self.finite[rank], self.busy_since[rank], self.arrived[rank] = 1, 0.0, 0
        for place, rank in enumerate(members):
            self._members[place], self.busy_since[rank] = rank, at_s
        self._whole[_MEMBERS], self._whole[_OPENED], self._numbers[_OPENED_S] = len(members), 0, at_s

    @property
    def places(self) -> list[int]:
        """Where in memory each row of the vectors is, for those who meet (Vectors.places)."""
        return [row + moved for row, moved in enumerate(self._moved)]

    def move(self, places: Sequence[int]) -> None:
        """They are there from the next membership on."""
        for row, place in enumerate(places):
            self._moved[row] = place - row

    def in_hand(self, rank: int) -> list[int]:
        """The microbatches of the step that a worker has begun, and not done."""
        step = self.version
        mark = _begun(rank, step)
        return [m for m, begun in enumerate(self.begun) if begun == mark and self.done[m] <= step]

    def begins(self, rank: int, microbatches: Sequence[int]) -> None:
        """A worker begins these in the step that starts from the newest version."""
        mark = _begun(rank, self.version)
        for m in microbatches:
            self.begun[m] = mark

    @property
    def next_rendezvous(self) -> int:
        """Number of the one that is to be opened next: it stays that as long as one who met has not arrived there."""
        return self._whole[_OPENED] + 1

    def open(self, at_s: float) -> None:
        """The next rendezvous is about to be opened: from now on all who waited have work to do."""
        self._numbers[_OPENED_S] = at_s
        self._whole[_OPENED] += 1

    def working_since(self) -> list[float]:
        """By rank, since when each is at its piece of work; 0: it has none, or waits for others."""
        opened, opened_s = self._whole[_OPENED], self._numbers[_OPENED_S]
        return [
            0.0 if since == 0 or arrived > opened else max(since, opened_s)
            for since, arrived in zip(self.busy_since, self.arrived, strict=True)
        ]

    @property
    def dealt(self) -> int:
        """How many microbatches were dealt out."""
        return self._whole[_DEALT]

    def deal(self, microbatches: Sequence[int]) -> None:
        """These are dealt out."""
        for position, m in enumerate(microbatches):
            self.order[position] = m
        self._whole[_DEALT] = len(microbatches)

    @property
    def pushed(self) -> bool:
        """Whether all gradients of the step were there once: the update may have come over some of them since."""
        return self._whole[_PUSHED] == self.version + 1

    def copy_made(self, version: int) -> None:
        self._whole[_COPIED] = version

    def ask_to_stop(self) -> None:
        self._whole[_STOP_ASKED] = 1

    def summed(self, loss: float) -> None:
        """All gradients of a step are there, and its losses were summed; its gradient norm is not known yet."""
        self._whole[_PUSHED] = self.version + 1
        self._numbers[_LOSS] = loss
        self._numbers[_GRADIENT_NORM] = math.nan

    def measured(self, gradient_norm: float) -> None:
        """The norm of the step's gradient was taken."""
        self._numbers[_GRADIENT_NORM] = gradient_norm

    def publish(
        self,
        version: int,
        outcome: Outcome,
        *,
        evaluate: bool,
        at_s: float,
        skipped: bool = False,
        middle: Callable[[], object] | None = None,
    ) -> None:
        """`version` is whole from now on.

        skipped: it is the one before
        middle:  called when it is whole, and nobody knows yet what for

        Where the writer dies in the middle, `mend` puts right what it had not written yet.
        """
        entry = 3 * (version % HISTORY)
        self._history[entry : entry + 3] = self._numbers[_LOSS:_HEAD]
        self._numbers[_PUBLISHED_S] = self._history[entry + 2] = at_s
        self._whole[_SKIPPED] += skipped
        self._whole[_IN_A_ROW] = self._whole[_IN_A_ROW] + 1 if skipped else 0
        self._whole[_VERSION] = version
        if middle is not None:
            middle()
        self.mend(outcome, evaluate=evaluate)

    def mend(self, outcome: Outcome, *, evaluate: bool) -> None:
        """What the newest version is for."""
        self._whole[_EVALUATE] = evaluate
        self._whole[_OUTCOME] = outcome

    def history(self, first: int) -> NDArray[np.float64]:
        """(n, 3): loss, gradient_norm and published_s of the versions from `first` to the newest, at most HISTORY."""
        return np.asarray(self._history).reshape(HISTORY, 3)[np.arange(first, self.version + 1) % HISTORY]

    def halt(self) -> None:
        """The step came to something that is not finite: the newest version stays what it is."""
        self.mend(Outcome.NOT_FINITE, evaluate=False)


def _begun(rank: int, step: int) -> int:
    return (step + 1) << _RANK_BITS | rank


def _parts(plan: MemoryPlan, seats: int) -> list[int]:
    """Words of the head and of each field after it."""
    return [_HEAD, *[plan.microbatches] * 4, *[seats] * 6, 3 * HISTORY, plan.chunks, plan.rows]


def board_bytes(plan: MemoryPlan, seats: int) -> int:
    """Bytes of a board."""
    return sum(_parts(plan, seats)) * _WORD
