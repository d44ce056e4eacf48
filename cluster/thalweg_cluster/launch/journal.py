"""What happened in a run, kept for those who follow it.

Rules:
  - The coordinator writes; any number of followers read, each from where it is, as often as it likes.
  - What is kept is bounded: who falls behind, or comes late, misses the oldest rows, which are in metrics.jsonl.
  - A follower that knows another coordinator's journal, or none, hears the lines of this one, and how far the run is.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, replace
from threading import Condition
from typing import Any

from thalweg_cluster.server.spec import Snapshot
from thalweg_proto.errors import ThalwegError

KEPT = 1000
"""Entries."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended: the contents of summary.json, or the error where it came to none."""

    summary: dict[str, Any] | None = None
    error: ThalwegError | None = None


@dataclass(frozen=True, kw_only=True)
class News:
    """What a follower has not heard yet.

    journal, heard: to ask with the next time
    entries:        lines, in Rich's markup, and snapshots with the rows since the one before; in order
    latest:         how far the run is, without rows; None where it has not begun
    steps, workers: of the job; 0 where they are not known yet
    ended:          None where it goes on
    """

    journal: str
    heard: int
    entries: tuple[str | Snapshot, ...]
    latest: Snapshot | None
    steps: int
    workers: int
    ended: Ended | None


class Journal:
    """Of one coordinator's process. Any thread may call."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(8)
        self._changed = Condition()
        self._count = 0  # of changes so far; each entry has the number of its own
        self._entries: deque[tuple[int, str | Snapshot]] = deque(maxlen=KEPT)
        self._latest: Snapshot | None = None
        self._steps = self._workers = 0
        self._ended: Ended | None = None

    def about(self, steps: int, workers: int) -> None:
        """The job is known: so many steps, so many workers."""
        with self._changed:
            self._steps, self._workers = steps, workers

    def say(self, line: str) -> None:
        """`line`: in Rich's markup."""
        self._change(line)

    def show(self, snapshot: Snapshot) -> None:
        """How far the run is."""
        with self._changed:
            self._latest = replace(snapshot, rows=())
        self._change(snapshot if snapshot.rows else None)

    def end(self, ended: Ended) -> None:
        """Nothing follows."""
        with self._changed:
            self._ended = ended
        self._change(None)

    def _change(self, entry: str | Snapshot | None) -> None:
        with self._changed:
            self._count += 1
            if entry is not None:
                self._entries.append((self._count, entry))
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        return self._ended is not None

    def news(self, journal: str, heard: int, timeout_s: float) -> News:
        """Waits until there is something new, or until `timeout_s` is over.

        journal, heard: of the News before; "" and 0 for a follower's first
        """
        with self._changed:
            if known := journal == self._name:
                self._changed.wait_for(lambda: self._count > heard or self._ended is not None, timeout_s)
            return News(
                journal=self._name,
                heard=self._count,
                entries=tuple(
                    entry for number, entry in self._entries if (number > heard if known else isinstance(entry, str))
                ),
                latest=self._latest,
                steps=self._steps,
                workers=self._workers,
                ended=self._ended,
            )
