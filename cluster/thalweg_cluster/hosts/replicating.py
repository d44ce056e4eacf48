"""When the next replica is to be made. Pure: it is told what the time is.

A replica takes of a step's time what its copy takes, and of the wire and the processors what its bytes take, for as
long as it is under way: at most all of them. So the next one waits until that was at most a fiftieth of the time.

What a lost server costs is bounded by time (`again_s_max`), not by a number of steps. A step that is computed again
takes as long as it took, so time is what is lost, and what replicas cost is time, too: a number of steps would be too
often where they take a millisecond, and hours where they take minutes. Where steps are long the bound is a few of them:
those of NOTICE, and the one that went on.
"""

from __future__ import annotations

import math

SHARE = 0.02
"""Of the time in which a replica may be under way."""
NOTICE = 4
"""Versions between that of the lead and the one that is replicated. No host can be more than one ahead of the lead; the
rest is for the word to reach it. Who hears too late leaves the replica out."""


def again_s_max(every_s: float, took_s: float, step_s: float, look_s: float) -> float:
    """For how long the run has computed, at most, what it computes again where a server dies, in seconds; where no
    replica is left out, and none fails.

    every_s: as for ReplicaClock
    took_s:  how long the newest whole replica was under way, and the one that is lost with the server, at most
    step_s:  how long a version takes at most
    look_s:  how often it is asked whether one is due

    In the worst case it dies when the next replica was all but whole: that began when it was due, was seen, and the
    version was there that all hosts had been told of.
    """
    return max(every_s, took_s / SHARE) + look_s + (NOTICE + 1) * step_s + took_s


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
