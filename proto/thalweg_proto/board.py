"""The board: small numbers that the workers of one host and its server write up for each other.

Rules:
  - A field that belongs to a worker, a microbatch or a chunk is written by the one who has it in hand, before the next
    rendezvous, and read by all after it.
  - The head is written by the last to arrive at a rendezvous, before the others go on; `stop_asked` and `copied` by the
    server alone.
  - So no field is ever written and read at the same time, and none needs a lock.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.shared_memory import MemoryPlan

_WORD: Final = 8  # bytes of each field
_VERSION, _OUTCOME, _EVALUATE, _STOP_ASKED, _COPIED, _LOSS, _GRADIENT_NORM, _PUBLISHED_S, _HEAD = range(9)


class Outcome(IntEnum):
    """What the newest version is for."""

    TRAIN = 0  # compute the gradients of the step that starts from it
    DONE = 1  # it is the last one
    STOPPED = 2  # the run was asked to stop
    NOT_FINITE = 3  # the step that should have followed it came to NaN or infinity


class Board:
    """One host's board.

    losses:  (V,) mean loss of each microbatch of the step
    finite:  (workers,) 1 where a worker's share of the next version is finite, 0 where it is not
    busy_since: (workers,) when each began the piece of work that it is at (time.perf_counter); 0: it waits for others
    squares: (chunks,) sum of the squares of the summed gradient, chunk by chunk, where the norm is wanted
    """

    def __init__(self, plan: MemoryPlan, workers: int, fd: int) -> None:
        """Maps the board behind `fd`, which may be closed at once."""
        words = memoryview(mmap.mmap(fd, board_bytes(plan, workers)))
        ends = np.cumsum([_HEAD, plan.microbatches, workers, workers, plan.chunks]) * _WORD
        self._whole = words[: ends[0]].cast("q")
        self._numbers = words[: ends[0]].cast("d")
        # memoryviews: one element is read or written in a tenth of the time that NumPy takes.
        self.losses = words[ends[0] : ends[1]].cast("d")
        self.finite = words[ends[1] : ends[2]].cast("q")
        self.busy_since = words[ends[2] : ends[3]].cast("d")
        self.squares: NDArray[np.float64] = np.frombuffer(words[ends[3] : ends[4]], dtype=np.float64)

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
    def stop_asked(self) -> bool:
        """Whether the run shall end with the next version."""
        return bool(self._whole[_STOP_ASKED])

    @property
    def copied(self) -> int:
        """The newest version of which the server has a copy, or wants none."""
        return self._whole[_COPIED]

    def copy_made(self, version: int) -> None:
        self._whole[_COPIED] = version

    def ask_to_stop(self) -> None:
        self._whole[_STOP_ASKED] = 1

    def summed(self, loss: float) -> None:
        """The losses of a step were summed; its gradient norm is not known yet."""
        self._numbers[_LOSS] = loss
        self._numbers[_GRADIENT_NORM] = math.nan

    def measured(self, gradient_norm: float) -> None:
        """The norm of the step's gradient was taken."""
        self._numbers[_GRADIENT_NORM] = gradient_norm

    def publish(
        self, version: int, outcome: Outcome, *, evaluate: bool, at_s: float, middle: Callable[[], object] | None = None
    ) -> None:
        """`version` is whole from now on; `middle` is called when it is, and nobody knows yet what for."""
        self._whole[_VERSION] = version
        if middle is not None:
            middle()
        self._whole[_EVALUATE] = evaluate
        self._numbers[_PUBLISHED_S] = at_s
        self._whole[_OUTCOME] = outcome

    def halt(self) -> None:
        """The step came to something that is not finite: the newest version stays what it is."""
        self._whole[_OUTCOME] = Outcome.NOT_FINITE


def board_bytes(plan: MemoryPlan, workers: int) -> int:
    """Bytes of a board."""
    return (_HEAD + plan.microbatches + 2 * workers + plan.chunks) * _WORD
