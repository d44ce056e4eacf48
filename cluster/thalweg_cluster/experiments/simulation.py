"""What a step would take with other numbers of workers: simulated, from the measured parts of steps. Pure.

A step is made of

    compute    each microbatch takes a random time (log-normal, with the measured mean and deviation); who is done takes
               the next one, and the step waits for the last. Workers that share a host slow each other down: memory by
               a measured part for each further worker, and cores as soon as there are fewer of them than workers.
    update     u0 + u1 / N: the workers of the host share the sum and the rule
    rest       r0 + r1 * N: waking up and answering each worker; the wire

where the simulated waiting for the last microbatch is taken out of the measured rest first, so that it counts once.
Without a barrier (ssp, async) a worker waits for nobody: it goes around once for each microbatch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 400
"""Steps that are simulated; the mean of their ends is known to a fortieth of their deviation."""
SEED = 20
LIMITS = {
    "uneven": "microbatches that are not dealt out evenly, and the slowest of them",
    "sharing": "workers that share cores and memory bandwidth",
    "update": "sum and update",
    "rest": "the exchange between workers and servers",
}
"""What can keep a cluster from being N times as fast as one worker."""


@dataclass(frozen=True)
class Point:
    """What was measured with `workers` workers; the times in milliseconds.

    microbatches: of a step
    microbatch_ms, microbatch_sd_ms: of drawing samples, forward and backward, for one of them
    update_ms, rest_ms: of a mean step: sum and update; what is neither compute nor that
    """

    workers: int
    microbatches: int
    microbatch_ms: float
    microbatch_sd_ms: float
    update_ms: float
    rest_ms: float


@dataclass(frozen=True)
class Predicted:
    """A step with `workers` workers; `loss_ms`: by what it is longer than a step of ideal scaling (LIMITS)."""

    workers: int
    step_ms: float
    loss_ms: Mapping[str, float]

    @property
    def bound_by(self) -> str:
        """The largest loss."""
        return max(self.loss_ms, key=lambda name: self.loss_ms[name])


class Simulation:
    """Calibrated with the points of one series."""

    def __init__(self, points: Sequence[Point], *, barrier: bool, cores: int | None) -> None:
        """
        points:  measured with one or more numbers of workers
        barrier: whether a step ends for all workers at once
        cores:   that the workers share; None: they use none (an engine that only sleeps)
        """
        self._barrier, self._cores = barrier, cores
        first = min(points, key=lambda point: point.workers)
        self._alone_ms = first.microbatch_ms / self._crowding(first.workers)
        self._spread = first.microbatch_sd_ms / first.microbatch_ms if first.microbatch_ms else 0.0
        self._share = 0.0 if cores is None else self._fit_sharing(points)
        n = np.array([point.workers for point in points], dtype=np.float64)
        self._update = _fit(1 / n, [point.update_ms for point in points], alone="slope")
        waits = [
            max(point.rest_ms - self._waiting_ms(point.workers, point.microbatches), 0.0)
            / self._crowding(point.workers)
            for point in points
        ]
        self._rest = _fit(n, waits, alone="constant")

    def predict(self, workers: int, microbatches: int) -> Predicted:
        """A step of so many microbatches; without a barrier, the time in which all workers together do as many."""
        ideal = microbatches * self._alone_ms / workers
        shared = ideal * self._slowdown(workers)
        rounds = 1.0 if self._barrier else microbatches / workers
        loss = {
            "uneven": self._waiting_ms(workers, microbatches),
            "sharing": shared - ideal,
            "update": (self._update[0] + self._update[1] / workers) * rounds,
            "rest": (self._rest[0] + self._rest[1] * workers) * self._crowding(workers) * rounds,
        }
        return Predicted(workers, ideal + sum(loss.values()), loss)

    def _crowding(self, workers: int) -> float:
        """By what factor everything takes longer where cores are short."""
        return 1.0 if self._cores is None else max(1.0, workers / self._cores)

    def _slowdown(self, workers: int) -> float:
        """By what factor a microbatch takes longer than that of a worker alone."""
        side_by_side = workers if self._cores is None else min(workers, self._cores)
        return (1 + self._share * (side_by_side - 1)) * self._crowding(workers)

    def _fit_sharing(self, points: Sequence[Point]) -> float:
        """By what part a further worker slows the others, where each has a core."""
        assert self._cores is not None
        base = min(points, key=lambda point: point.workers)
        slower = [
            (point.microbatch_ms / base.microbatch_ms - 1) / (point.workers - base.workers)
            for point in points
            if base.workers < point.workers <= self._cores and base.microbatch_ms
        ]
        return max(0.0, float(np.mean(slower))) if slower else 0.0

    def _waiting_ms(self, workers: int, microbatches: int) -> float:
        """How much later the last worker is done than all of them on average."""
        mean_ms = self._alone_ms * self._slowdown(workers)
        if not self._barrier or not mean_ms:
            return 0.0
        times = _draw(mean_ms, self._spread * mean_ms, microbatches)
        return float((_makespan(times, workers) - times.sum(axis=1) / workers).mean())


def _draw(mean_ms: float, sd_ms: float, microbatches: int) -> NDArray[np.float64]:
    """Log-normal times, shape (DRAWS, microbatches), with this mean and standard deviation."""
    variance = math.log1p((sd_ms / mean_ms) ** 2)
    generator = np.random.default_rng(SEED)
    return generator.lognormal(math.log(mean_ms) - variance / 2, math.sqrt(variance), (DRAWS, microbatches))


def _makespan(times: NDArray[np.float64], workers: int) -> NDArray[np.float64]:
    """When the last of the workers is done, where who is done takes the next; times (n, m), result (n,)."""
    busy_until = np.zeros((len(times), workers))
    each = np.arange(len(times))
    for column in times.T:
        busy_until[each, busy_until.argmin(axis=1)] += column
    ends: NDArray[np.float64] = busy_until.max(axis=1)
    return ends


def _fit(term: NDArray[np.float64], values: Sequence[float], *, alone: str) -> tuple[float, float]:
    """Non-negative a, b with a + b * term near the values, both of shape (n,).

    alone: what one number of workers tells: "slope" (a is 0) or "constant" (b is 0)
    """
    y = np.array(values, dtype=np.float64)
    slope = float((y @ term) / (term @ term))
    if len(np.unique(term)) == 1:
        return (0.0, slope) if alone == "slope" else (float(y.mean()), 0.0)
    b, a = (float(c) for c in np.polyfit(term, y, 1))
    if b < 0:
        return float(y.mean()), 0.0
    return (0.0, slope) if a < 0 else (a, b)
