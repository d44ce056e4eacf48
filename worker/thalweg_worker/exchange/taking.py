"""When a worker computes what was dealt to another, and when it leaves its own to others. Pure.

A step takes as long as its slowest worker, unless the others do that one's work. What is computed where changes no bit
of the result, so these rules are free to guess. They guess from how long each worker took lately for a microbatch: the
shortest of the newest few, since any of them may have been disturbed. They may be wrong: whoever arrives last at the
end of a step computes what nobody took.

Rules:
  - Workers that are about equally quick keep to their own microbatches: their samples are drawn ahead, and their
    buffers lie in the cache of their core.
  - Who is done helps another where that one would take much longer for the rest than it takes itself for one.
  - Who is much slower than the others sits a step out, where they would be done with its part in less than half of the
    time that it takes for one microbatch. It tries again after a step, then after 2, 4, ... 64: it may have recovered.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

MUCH = 2.0
NEW_S = 2e-4
"""What another's microbatch costs beyond one's own: its samples are not worked out yet."""
TAKEN_S = 1e-3
"""For about so long a worker takes microbatches at once from its own: taking has its cost, too."""
OUT_MAX = 64
"""Steps that a slow worker sits out at most before it tries again."""
OUT_S = math.inf
"""As how long a microbatch counts for a worker that sits the step out."""
NEWEST = 4


class Pace:
    """How long a worker takes for a microbatch."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=NEWEST)

    def took(self, seconds: float) -> float:
        """Its newest one took so long; returns its pace, in seconds."""
        self._newest.append(seconds)
        return min(self._newest)


def at_once(own_s: float) -> int:
    """How many of its own microbatches a worker takes at once; `own_s`: its pace, 0: not known."""
    return max(1, int(TAKEN_S / own_s)) if own_s > 0 else 1


def helps(left: int, piece_s: float, own_s: float) -> bool:
    """Whether a worker that is done takes a microbatch of another.

    left:  how many that one has not begun
    piece_s, own_s: the pace of that one, and of the worker itself; 0: not known
    """
    return left > 0 and own_s > 0 and left * piece_s > MUCH * own_s + NEW_S


def sits_out(own_s: float, others_s: Sequence[float], left: int) -> bool:
    """Whether a worker leaves its microbatches to the others.

    own_s, others_s: the pace of each; 0: not known
    left: microbatches of the step that nobody has begun
    """
    speed = sum(1 / each for each in others_s) if all(others_s) else 0.0
    # Each of the others may be in the middle of one of its own.
    return speed > 0 and own_s > MUCH * (left + len(others_s)) / speed


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
