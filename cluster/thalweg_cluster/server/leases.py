"""How long a worker may be at one piece of work before it counts as hanging. Pure: times go in, ranks come out.

A piece is a microbatch, a share of an update, or a chunk of the held-out set; with local steps a round. It may take
TIMES as long as the longest one so far, and at least the job's lease; before one is known, TIMES the lease. Times are
those of the monotonic clock: whoever sets the wall clock moves no lease.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

TIMES = 10


class Leases:
    """Of the workers of one host."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._longest_s: float | None = None

    def heard(self, records: NDArray[np.void]) -> None:
        """What a worker told of its steps (STEP_DTYPE): each of its microbatches took so long."""
        some = records[records["microbatches"] > 0]
        if len(some):
            self.took(float(((some["sample_s"] + some["compute_s"]) / some["microbatches"]).max()))

    def took(self, seconds: float) -> None:
        """A piece of work took so long."""
        self._longest_s = max(seconds, self._longest_s or 0.0)

    @property
    def lease_s(self) -> float:
        """How long the next one may take."""
        if self._longest_s is None:
            return TIMES * self._lease_s
        return max(self._lease_s, TIMES * self._longest_s)

    def hanging(self, busy_since: Mapping[int, float], now: float) -> dict[int, str]:
        """Who hangs, and why that is said, by rank; given since when each is at its piece, 0: it waits for others."""
        return {
            rank: f"it hung, and was killed: it was at one piece of work for {now - since:.1f} s, where "
            f"{self.lease_s:.1f} s are allowed"
            for rank, since in busy_since.items()
            if since and now - since > self.lease_s
        }
