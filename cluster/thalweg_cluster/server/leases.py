"""How long a worker may be at one piece of work before it counts as hanging. Pure: times go in, ranks come out.

A piece is a microbatch, a share of an update, or a chunk of the held-out set. It may take TIMES as long as the longest
one so far, and at least the job's lease; before one is known, TIMES the lease. Times are those of the monotonic clock:
whoever sets the wall clock moves no lease.
"""

from __future__ import annotations

from collections.abc import Sequence

TIMES = 10


class Leases:
    """Of the workers of one host."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._longest_s: float | None = None

    def took(self, seconds: float) -> None:
        """A piece of work took so long."""
        self._longest_s = max(seconds, self._longest_s or 0.0)

    @property
    def lease_s(self) -> float:
        """How long the next one may take."""
        if self._longest_s is None:
            return TIMES * self._lease_s
        return max(self._lease_s, TIMES * self._longest_s)

    def overdue(self, busy_since: Sequence[float], now: float) -> list[int]:
        """The ranks that hang, given since when each is at its piece; 0: it waits for others."""
        return [rank for rank, since in enumerate(busy_since) if since and now - since > self.lease_s]
