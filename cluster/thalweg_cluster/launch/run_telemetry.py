"""What the coordinator of a run counts: what died, how often it began anew, how long it took to recover.

A run recovers from the moment at which a loss is noticed until all its workers are there again and a step was made
since. Pure: it is told what the time is. One thread tells, others read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.exposition import Histogram, family
from thalweg_cluster.launch.failures import Loss
from thalweg_cluster.monitoring import catalogue as c
from thalweg_worker.engines import Card

NAME_MAX = 100
"""Characters of a device's name in a label."""
KINDS = ("worker", "server", "coordinator")
BOUNDS_S = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class RunTelemetry:
    """Of one coordinator's process.

    restarts: by what died; attempts: so often servers and workers were started; cards: the GPU of each worker that has
    one, by rank
    """

    def __init__(self) -> None:
        self.restarts = dict.fromkeys(KINDS, 0)
        self.attempts = 0
        self.cards: dict[int, Card] = {}
        self._recovered: NDArray[np.int64] = np.zeros(len(BOUNDS_S) + 1, dtype=np.int64)
        self._recovered_s = 0.0
        self._since_s: float | None = None  # when the loss was noticed from which the run recovers
        self._step: int | None = None  # how far it was when it was seen first after that
        self._lock = Lock()

    def lost(self, losses: Iterable[Loss], now_s: float) -> None:
        """These died, and others take their places; a second loss before the run has recovered prolongs it."""
        with self._lock:
            for loss in losses:
                self.restarts[loss.kind] += 1
            self._step = None
            if self._since_s is None:
                self._since_s = now_s

    def before(self, losses: Iterable[Loss], attempts: int) -> None:
        """What the coordinators before this one counted."""
        with self._lock:
            self.attempts = attempts
            for loss in losses:
                self.restarts[loss.kind] += 1

    def begins(self) -> None:
        """Servers and workers are started, all of them."""
        with self._lock:
            self.attempts += 1
            self.cards = {}
            self._step = None

    def has_cards(self, cards: Mapping[int, Card]) -> None:
        """These workers, by rank, compute on these GPUs."""
        with self._lock:
            self.cards |= cards

    def seen(self, step: int, joined: int, workers: int, now_s: float) -> None:
        """So many steps are done, and so many of the workers are there."""
        with self._lock:
            if self._since_s is None:
                return
            if self._step is None:
                self._step = step
            if joined == workers and step > self._step:
                seconds, self._since_s = now_s - self._since_s, None
                self._recovered[int(np.searchsorted(BOUNDS_S, seconds))] += 1
                self._recovered_s += seconds

    def families(self, now_s: float) -> Iterator[list[str]]:
        """The lines of all metrics of a coordinator."""
        with self._lock:
            yield family(c.RESTARTS, *(((kind,), count) for kind, count in self.restarts.items()))
            yield family(c.ATTEMPTS, self.attempts)
            yield family(c.RECOVERY_SECONDS, Histogram(BOUNDS_S, self._recovered, self._recovered_s))
            cards = sorted(self.cards.items())
            yield family(c.DEVICE, *(((str(rank), card.name[:NAME_MAX]), 1) for rank, card in cards))
            yield family(c.DEVICE_MEMORY, *(((str(rank),), card.memory_bytes) for rank, card in cards))
            yield family(c.RECOVERING, 0.0 if self._since_s is None else now_s - self._since_s)
