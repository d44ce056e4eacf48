"""What happened during a run, counted off the hot path.

Rules:
  - The step only appends to a deque. Sums, histograms and quantiles are made from many records at once, by whoever
    reads (a scrape, the progress line), or every `RECORDS_MAX` records where nobody does.
  - Memory does not grow with the number of steps: durations go into histograms of fixed bounds.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.consistency import Verdict
from thalweg_proto.messages import PUSH_DTYPE

PHASES = ("sample", "compute", "push", "wait")
RECORDS_MAX = 2048
BUCKET_BOUNDS_S = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip


class Durations:
    """A histogram of durations: Prometheus buckets, sum and count, and quantiles to 1 %.

    counts: how many fell at or below each bound of BUCKET_BOUNDS_S and above the one before; last: above all
    """

    # Bins that grow by 1 %, from 1 us to over an hour: quantiles without keeping the durations.
    _FINE_S: ClassVar[NDArray[np.float64]] = 1e-6 * 1.01 ** np.arange(2220, dtype=np.float64)

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(len(BUCKET_BOUNDS_S) + 1, dtype=np.int64)
        self.count = 0
        self.sum_s = 0.0
        self.max_s = 0.0
        self._fine: NDArray[np.int64] = np.zeros(len(self._FINE_S) + 1, dtype=np.int64)

    def add(self, seconds: NDArray[np.float64]) -> None:
        """Counts durations, shape (n,)."""
        if len(seconds) == 0:
            return
        self.count += len(seconds)
        self.sum_s += float(seconds.sum())
        self.max_s = max(self.max_s, float(seconds.max()))
        np.add.at(self.counts, np.searchsorted(BUCKET_BOUNDS_S, seconds), 1)
        np.add.at(self._fine, np.searchsorted(self._FINE_S, seconds), 1)

    def quantile_s(self, q: float) -> float:
        """The duration that a share `q` of all does not exceed, to 1 %; 0 where there is none."""
        if self.count == 0:
            return 0.0
        bin_ = int(np.searchsorted(np.cumsum(self._fine), q * self.count))
        return min(float(self._FINE_S[min(bin_, len(self._FINE_S) - 1)]), self.max_s)


@dataclass
class Telemetry:
    """The counts of one server. `judged`, `heard` and `stepped` belong to the serving thread; reading is for any.

    bytes_pushed, bytes_published: what one push and one new version move, in bytes
    """

    workers: int
    batch_size: int
    bytes_pushed: int
    bytes_published: int
    steps: int = 0
    loss: float = float("nan")
    learning_rate: float = float("nan")
    gradient_norm: float = float("nan")
    joined: int = 0
    evaluation_loss: float = float("nan")
    evaluation_accuracy: float = float("nan")
    phases: dict[str, Durations] = field(default_factory=lambda: {phase: Durations() for phase in PHASES})
    step_durations: Durations = field(default_factory=Durations)
    apply_durations: Durations = field(default_factory=Durations)

    def __post_init__(self) -> None:
        self._pushes: deque[bytes] = deque()
        self._not_accepted: Counter[Verdict] = Counter()
        self._pushed = 0
        self._steps: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()
        # A worker's step comes with a push for each of its microbatches: what is in of its newest step, by rank.
        self._open: dict[int, tuple[int, NDArray[np.float64]]] = {}

    def judged(self, verdict: Verdict) -> None:
        """A push came to `verdict`."""
        self._pushed += 1
        if verdict is not Verdict.ACCEPTED:
            self._not_accepted[verdict] += 1

    def heard(self, record: bytes) -> None:
        """Pushes came in; `record` is the datagram as it was received."""
        self._pushes.append(record)
        if len(self._pushes) >= RECORDS_MAX:
            self.drain()

    def pushes(self, verdict: Verdict) -> int:
        """How many pushes came to `verdict`."""
        if verdict is Verdict.ACCEPTED:
            return self._pushed - sum(self._not_accepted.values())
        return self._not_accepted[verdict]

    def stepped(self, duration_s: float, apply_s: float, loss: float, learning_rate: float) -> None:
        """A step was applied and published: it took `duration_s`, of that `apply_s` to sum and update."""
        self.steps += 1
        self.loss = loss
        self.learning_rate = learning_rate
        self._steps.append((duration_s, apply_s))

    def drain(self) -> None:
        """Brings histograms up to date; anyone who reads them calls this first."""
        with self._lock:
            pushes = [self._pushes.popleft() for _ in range(len(self._pushes))]
            steps = [self._steps.popleft() for _ in range(len(self._steps))]
            if steps:
                durations = np.array(steps)
                self.step_durations.add(durations[:, 0])
                self.apply_durations.add(durations[:, 1])
            if pushes:
                self._add_phases(np.frombuffer(b"".join(pushes), dtype=PUSH_DTYPE))

    def _add_phases(self, pushes: NDArray[np.void]) -> None:
        """Adds up the phases over the microbatches of each worker's step; the newest step of each stays open."""
        for rank in np.unique(pushes["rank"]):
            mine = pushes[pushes["rank"] == rank]
            seconds = np.stack([mine[f"{phase}_s"] for phase in PHASES])
            starts = np.flatnonzero(np.diff(mine["step"], prepend=mine["step"][0] + 1))
            sums = np.add.reduceat(seconds, starts, axis=1)
            open_step, so_far = self._open.get(int(rank), (None, np.zeros((len(PHASES), 0))))
            if open_step == mine["step"][0]:
                sums[:, 0] += so_far[:, 0]
            elif open_step is not None:
                sums = np.concatenate([so_far, sums], axis=1)
            self._open[int(rank)] = (int(mine["step"][-1]), sums[:, -1:])
            for phase, column in zip(PHASES, sums[:, :-1], strict=True):
                self.phases[phase].add(column)

    def phase_means_ms(self) -> dict[str, float]:
        """Mean time of each phase in a worker's step, in milliseconds."""
        self.drain()
        return {
            name: 1e3 * durations.sum_s / durations.count if durations.count else 0.0
            for name, durations in self.phases.items()
        }

    def step_ms(self) -> dict[str, float]:
        """p50, p95 and max of the duration of a step, in milliseconds."""
        self.drain()
        steps = self.step_durations
        return {
            "p50": 1e3 * steps.quantile_s(0.5),
            "p95": 1e3 * steps.quantile_s(0.95),
            "max": 1e3 * steps.max_s,
        }
