"""When a worker computes what was dealt to another, and when it leaves its own to others. Pure.

A step takes as long as its slowest worker, unless the others do that one's work. What is computed where changes no bit
of the result, so these rules are free to guess. They guess from how long each worker took for its newest microbatch.
They may be wrong: whoever arrives last at the end of a step computes what nobody took.

Rules:
  - Workers that are about equally quick keep to their own microbatches: their samples are drawn ahead, and their
    buffers lie in the cache of their core.
  - Who is done helps another where that one would take more than twice as long for the rest as it takes itself for one.
  - Who is much slower than the others sits a step out, where they would be done with its part in less than half of the
    time that it takes for one microbatch. It tries again after a step, then after 2, 4, ... 64: it may have recovered.
"""

from __future__ import annotations

from collections.abc import Sequence

MUCH = 2.0
OUT_MAX = 64
"""Steps that a slow worker sits out at most before it tries again."""


def helps(left: int, piece_s: float, own_s: float, *, idle: bool) -> bool:
    """Whether a worker that is done takes a microbatch of another.

    left:  how many that one has not begun
    piece_s, own_s: how long that one, and the worker itself, took for their newest microbatch; 0: not known
    idle:  that one waits for others: it will not compute them itself
    """
    if not left:
        return False
    return idle or (own_s > 0 and (left + 1) * piece_s > MUCH * own_s)


def sits_out(own_s: float, others_s: Sequence[float], left: int) -> bool:
    """Whether a worker leaves its microbatches to the others.

    own_s, others_s: how long each took for its newest microbatch; 0: not known
    left: microbatches of the step that nobody has begun
    """
    if not others_s or not all(others_s):
        return False
    # Each of the others may be in the middle of one of its own.
    theirs_s = (left + len(others_s)) / sum(1 / each for each in others_s)
    return own_s > MUCH * theirs_s


class SittingOut:
    """How many steps a slow worker sits out: twice as many each time that it was found slow again."""

    def __init__(self) -> None:
        self._next = 1
        self._out = 0
        self._tries = False

    def this_step(self, slow: bool) -> bool:
        """Whether it sits out the step that begins; `slow`: as its newest microbatch went."""
        if self._out:
            self._out -= 1
            return True
        if self._tries:  # what is known of it is from before
            self._tries = False
            return False
        if not slow:
            self._next = 1
            return False
        self._out, self._next, self._tries = self._next - 1, min(2 * self._next, OUT_MAX), True
        return True
