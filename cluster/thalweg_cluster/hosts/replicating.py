"""When the next replica is to be made. Pure: it is told what the time is.

A replica takes of a step's time what its copy takes, and of the wire and the processors what its bytes take, for as
long as it is under way: at most all of them. So the next one waits until that was at most a fiftieth of the time.
"""

from __future__ import annotations

import math

SHARE = 0.02
"""Of the time in which a replica may be under way."""
NOTICE = 4
"""Versions between that of the lead and the one that is replicated. No host can be more than one ahead of the lead; the
rest is for the word to reach it. Who hears too late leaves the replica out."""


class ReplicaClock:
    """Of one run, on the lead; one replica at a time."""

    def __init__(self, every_s: float) -> None:
        """`every_s`: seconds at least from one replica to the next; 0: there are none."""
        self._every_s = every_s
        self._next_s = math.inf
        self._began_s: float | None = None

    def start(self, now_s: float) -> None:
        """The run begins."""
        if self._every_s:
            self._next_s = now_s + self._every_s

    def due(self, now_s: float) -> bool:
        """Whether a replica is to be begun now."""
        return self._began_s is None and now_s >= self._next_s

    def begun(self, now_s: float) -> None:
        """All hosts are told of one."""
        self._began_s = now_s

    def copied(self, now_s: float) -> None:
        """The lead has copied what it has: what was before was no more than waiting for the version."""
        if self._began_s is not None:
            self._began_s = now_s

    def ended(self, now_s: float) -> None:
        """It is there, or came to nothing."""
        assert self._began_s is not None  # who has not begun cannot end
        took_s = now_s - self._began_s
        self._next_s = self._began_s + max(self._every_s, took_s / SHARE)
        self._began_s = None
