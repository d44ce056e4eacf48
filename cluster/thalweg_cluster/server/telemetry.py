"""What happened during a run, from what the workers tell of their steps, many at a time.

Rules:
  - Nothing here is on the hot path: the records of many steps come in together and are added up with NumPy.
  - Memory does not grow with the number of steps: durations go into histograms of fixed bounds.
  - A step counts once, with the first worker that tells of it; its phases count for each worker.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

PHASES = ("sample", "compute", "push", "wait")
BUCKET_BOUNDS_S = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
_BOUNDS_S: NDArray[np.float64] = np.array(BUCKET_BOUNDS_S)
_FINE_S: NDArray[np.float64] = 1e-6 * 1.01 ** np.arange(2220, dtype=np.float64)  # from 1 us to over an hour


class Durations:
    """A histogram of durations: Prometheus buckets, sum and count.

    counts: how many fell at or below each bound of BUCKET_BOUNDS_S and above the one before; last: above all
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(len(BUCKET_BOUNDS_S) + 1, dtype=np.int64)
        self.count = 0
        self.sum_s = 0.0
        self.max_s = 0.0

    def add(self, seconds: NDArray[np.float64]) -> None:
        """Counts durations, shape (n,), n >= 1."""
        self.count += len(seconds)
        self.sum_s += float(seconds.sum())
        self.max_s = max(self.max_s, float(seconds.max()))
        self.counts += np.bincount(np.searchsorted(_BOUNDS_S, seconds), minlength=len(self.counts))

    @property
    def mean_ms(self) -> float:
        """The mean in milliseconds; 0 where there is none."""
        return 1e3 * self.sum_s / self.count if self.count else 0.0


class QuantileDurations(Durations):
    """Durations whose quantiles are known to 1 %, without keeping them: in bins that grow by 1 %."""

    def __init__(self) -> None:
        super().__init__()
        self._fine: NDArray[np.int64] = np.zeros(len(_FINE_S) + 1, dtype=np.int64)

    def add(self, seconds: NDArray[np.float64]) -> None:
        super().add(seconds)
        self._fine += np.bincount(np.searchsorted(_FINE_S, seconds), minlength=len(self._fine))

    def quantile_s(self, q: float) -> float:
        """The duration that a share `q` of all does not exceed, to 1 %; 0 where there is none."""
        if self.count == 0:
            return 0.0
        bin_ = int(np.searchsorted(np.cumsum(self._fine), q * self.count))
        return min(float(_FINE_S[min(bin_, len(_FINE_S) - 1)]), self.max_s)


@dataclass
class Telemetry:
    """The counts of one server. One thread writes; reading is for any, under `lock` where figures belong together.

    bytes_pushed, bytes_published: what one push and one new version move, in bytes
    published_s:                   when the newest counted version was published (perf_counter)
    """

    workers: int
    batch_size: int
    bytes_pushed: int
    bytes_published: int
    published_s: float = 0.0
    steps: int = 0
    pushes: int = 0
    loss: float = float("nan")
    learning_rate: float = float("nan")
    gradient_norm: float = float("nan")
    joined: int = 0
    evaluation_loss: float = float("nan")
    evaluation_accuracy: float = float("nan")
    phases: dict[str, Durations] = field(default_factory=lambda: {phase: Durations() for phase in PHASES})
    step_durations: QuantileDurations = field(default_factory=QuantileDurations)
    apply_durations: Durations = field(default_factory=Durations)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def heard(self, records: NDArray[np.void]) -> NDArray[np.void]:
        """Counts what one worker tells of consecutive steps; returns the records of steps that nobody told of before.

        records: STEP_DTYPE, by step
        """
        with self.lock:
            self.pushes += int(records["microbatches"].sum())
            for phase, durations in self.phases.items():
                durations.add(records[f"{phase}_s"])
            self.apply_durations.add(records["apply_s"])
            new = records[records["step"] >= self.steps]
            if len(new):
                published_s = new["published_s"]
                self.step_durations.add(np.diff(published_s, prepend=self.published_s))
                self.steps += len(new)
                self.published_s, self.loss = float(published_s[-1]), float(new["loss"][-1])
                norms = new["gradient_norm"][~np.isnan(new["gradient_norm"])]
                if len(norms):
                    self.gradient_norm = float(norms[-1])
        return new

    def phase_means_ms(self) -> dict[str, float]:
        """Mean time of each phase in a worker's step, in milliseconds."""
        return {name: durations.mean_ms for name, durations in self.phases.items()}

    def step_ms(self) -> dict[str, float]:
        """p50, p95 and max of the duration of a step, in milliseconds."""
        steps = self.step_durations
        return {
            "p50": 1e3 * steps.quantile_s(0.5),
            "p95": 1e3 * steps.quantile_s(0.95),
            "max": 1e3 * steps.max_s,
        }
