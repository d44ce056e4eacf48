"""For whom the workers of a step wait: seconds without anything to compute, by the worker that was last to have it.

In a step in which all wait for each other, worker w is busy for b_w seconds, drawing samples and computing. Until the
slowest one is done, the others have sum over w of (max(b) - b_w) seconds together in which they can do nothing; they
are put down to that one. What they wait beyond that, for the update and for being woken, is nobody's.

Rules:
  - Who was so slow that its microbatch was given to another one, too, tells nothing of that step; for how long the
    others waited for it by then is told by who gave it away.
  - Who computed nothing in a step waited for nobody: it leaves its microbatches to the others, since it is slow.
  - Workers tell of many steps at a time, each of its own; a step is settled when as many as there are have told of it.
  - What is remembered is bounded: a step of which somebody does not tell in time is nobody's, too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KEPT = 8192
"""Steps that may be told of by some and not by others. At 0.3 ms a step that is 2.5 s, and they tell every 100 ms."""


class Waiting:
    """for_s: seconds that others waited for each worker, by rank

    members: how many tell of a step
    """

    def __init__(self, workers: int) -> None:
        self.for_s: NDArray[np.float64] = np.zeros(workers)
        self.members = workers
        self._step: NDArray[np.int64] = np.full(KEPT, -1, dtype=np.int64)  # whose place each is now
        self._told: NDArray[np.int64] = np.zeros(KEPT, dtype=np.int64)
        self._part: NDArray[np.int64] = np.zeros(KEPT, dtype=np.int64)  # how many computed something in it
        self._sum_s: NDArray[np.float64] = np.zeros(KEPT)
        self._longest_s: NDArray[np.float64] = np.zeros(KEPT)
        self._slowest: NDArray[np.int64] = np.zeros(KEPT, dtype=np.int64)

    def held_up(self, rank: int, seconds: float) -> None:
        """The others waited so long, all together, for a worker whose microbatch was given to another one then."""
        self.for_s[rank] += seconds

    def add(
        self, rank: int, steps: NDArray[np.uint64], microbatches: NDArray[np.uint32], busy_s: NDArray[np.float64]
    ) -> None:
        """Worker `rank` computed so many microbatches in these steps, and was busy with them for so long; shape (n,)
        each, steps ascend."""
        step = steps.astype(np.int64)[-KEPT:]
        part = (microbatches > 0)[-KEPT:]
        busy_s = np.where(part, busy_s[-KEPT:], 0.0)
        at = step % KEPT
        new = self._step[at] < step
        if (fresh := at[new]).size:
            self._step[fresh] = step[new]
            self._told[fresh] = 0
            self._part[fresh] = 0
            self._sum_s[fresh] = 0.0
            self._longest_s[fresh] = -1.0
        late = self._step[at] > step
        if late.any():
            at, part, busy_s = at[~late], part[~late], busy_s[~late]
        self._told[at] += 1
        self._part[at] += part
        self._sum_s[at] += busy_s
        longer = busy_s > self._longest_s[at]
        self._longest_s[at[longer]] = busy_s[longer]
        self._slowest[at[longer]] = rank
        whole = at[self._told[at] == self.members]
        if whole.size:
            lost_s = self._part[whole] * self._longest_s[whole] - self._sum_s[whole]
            self.for_s += np.bincount(self._slowest[whole], weights=lost_s, minlength=len(self.for_s))
