"""When a microbatch that a slow worker is in the middle of is given to another one, too. Pure: times go in, ranks come
out.

    all wait for some who compute, each for longer than its patience, and somebody has nothing to do
      -> what these have in hand is given to others: copies; of each the result that is whole first is used

Rules:
  - The patience is TIMES what a microbatch mostly takes: the median of what the workers took for their newest ones. It
    is LEAST_S at least, since a copy has its price, and nothing is copied before a first microbatch is done.
  - Where a slow worker was quicker than its copy, the microbatch itself was long: the patience doubles. It halves again
    with each copy that was quicker.
  - Which result is used changes no bit, so these rules are free to guess.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from statistics import median

import numpy as np
from numpy.typing import NDArray

TIMES = 3.0
TIMES_MAX = 96.0
LEAST_S = 0.1
NEWEST = 4
LOOK_S = 1.0
"""How often to look who is slow, at least."""


class Speculation:
    """Of the workers of one host.

    given, won: how many copies there were, and how many of them were whole first
    """

    def __init__(self) -> None:
        self.given = self.won = 0
        self._times = TIMES
        self._newest: dict[int, deque[float]] = {}  # by rank

    def heard(self, records: NDArray[np.void]) -> None:
        """What a worker told of its steps (STEP_DTYPE): each of its microbatches took so long."""
        some = records[records["microbatches"] > 0]
        if len(some):
            each_s = (some["sample_s"] + some["compute_s"]) / some["microbatches"]
            self._newest.setdefault(int(some["rank"][0]), deque(maxlen=NEWEST)).extend(each_s[-NEWEST:].tolist())

    @property
    def paces_s(self) -> list[float]:
        """How long each worker that was heard of takes for a microbatch: the shortest of its newest ones."""
        return [min(newest) for newest in self._newest.values()]

    def patience_s(self, pace_s: Collection[float]) -> float:
        """How long a worker may be at one microbatch; infinity where it is not known what one takes.

        pace_s: how long each worker takes for one; 0: not known; infinity: it takes part in none
        """
        known = [each for each in pace_s if 0 < each < math.inf]
        return max(LEAST_S, self._times * median(known)) if known else math.inf

    def look_s(self, pace_s: Collection[float]) -> float:
        """How soon to look again."""
        return min(LOOK_S, self.patience_s(pace_s))

    def stragglers(
        self, since: Mapping[int, float], in_hand: Mapping[int, int], pace_s: Collection[float], now: float
    ) -> set[int]:
        """Whose microbatches are to be given to others; nobody's where somebody else still works, or nobody is idle.

        since:   by rank, of all who are there: when each began what it is at; 0: it waits for others
        in_hand: by rank: how many microbatches it is in the middle of
        """
        working = {rank for rank, begin in since.items() if begin}
        if not working or len(working) == len(since):
            return set()
        patience_s = self.patience_s(pace_s)
        slow = {rank for rank in working if now - since[rank] > patience_s * in_hand.get(rank, 0) > 0}
        return slow if slow == working else set()

    def gave(self, copies: int) -> None:
        """So many microbatches were given to others, too."""
        self.given += copies

    def ended(self, *, won: bool) -> None:
        """A copy was whole first, or was not."""
        self.won += won
        self._times = max(TIMES, self._times / 2) if won else min(TIMES_MAX, self._times * 2)
