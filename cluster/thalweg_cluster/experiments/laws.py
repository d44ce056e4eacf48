"""Two laws of scaling, fitted to measured throughput. Pure.

With N workers the throughput is

    X(N) = lambda * N / (1 + sigma * (N - 1) + kappa * N * (N - 1))

    lambda: what one worker does
    sigma:  the part of the work that only one can do at a time, which all others wait for (contention)
    kappa:  what each pair of workers costs (coherence): with it the throughput falls beyond a peak

This is the universal scalability law (Gunther, "Guerrilla Capacity Planning", 2007, chapter 4). With kappa = 0 it is
Amdahl's law (Amdahl, AFIPS 1967) with the serial fraction sigma, and throughput stays below lambda / sigma.

N / X(N) is linear in 1 / lambda, sigma / lambda and kappa / lambda, so the fit is a linear least-squares problem with
coefficients that are not negative, solved by trying each subset of them: there are at most seven.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Law:
    """A fitted law; `rate`: lambda, samples/s of one worker."""

    rate: float
    sigma: float
    kappa: float

    def throughput(self, workers: float) -> float:
        """samples/s of so many workers."""
        n = workers
        return self.rate * n / (1 + self.sigma * (n - 1) + self.kappa * n * (n - 1))

    @property
    def peak(self) -> float | None:
        """The number of workers from which on more of them are slower; None: there is none."""
        if self.kappa <= 0:
            return None
        return math.sqrt(max(1 - self.sigma, 0.0) / self.kappa)

    @property
    def limit(self) -> float | None:
        """The speed-up over one worker that is never exceeded; None: there is none."""
        if (peak := self.peak) is not None:
            return self.throughput(max(peak, 1.0)) / self.rate
        return 1 / self.sigma if self.sigma > 0 else None

    def workers_at(self, efficiency: float) -> int | None:
        """The most workers with at least this efficiency, at least 1; None where any number has it.

        1 + sigma (N - 1) + kappa N (N - 1) <= 1 / efficiency, a quadratic inequality in N.
        """
        if not (self.sigma or self.kappa):
            return None
        excess, linear = 1 / efficiency - 1, self.sigma - self.kappa
        root = math.sqrt(linear**2 + 4 * self.kappa * (self.sigma + excess))
        # Of the two forms of the solution the one that subtracts nothing.
        n = 2 * (self.sigma + excess) / (linear + root) if linear > 0 else (root - linear) / (2 * self.kappa)
        if not math.isfinite(n):
            return None
        return max(1, math.floor(n + 1e-6))


def fit_amdahl(workers: Sequence[int], throughput: Sequence[float]) -> Law | None:
    """Of samples/s by number of workers; None where these are fewer than two, or nothing like the law."""
    return _fit(workers, throughput, terms=2)


def fit_usl(workers: Sequence[int], throughput: Sequence[float]) -> Law | None:
    """Of samples/s by number of workers; None where these are fewer than three, or nothing like the law."""
    return _fit(workers, throughput, terms=3)


def _fit(workers: Sequence[int], throughput: Sequence[float], terms: int) -> Law | None:
    if len(set(workers)) < terms:
        return None
    n, x = np.array(workers, dtype=np.float64), np.array(throughput, dtype=np.float64)
    target = n / x
    # Divided by the target: relative errors count alike, whatever the number of workers.
    columns = np.stack([np.ones_like(n), n - 1, n * (n - 1)][:terms], axis=1) / target[:, None]
    coefficients = _non_negative(columns, np.ones_like(n))
    if coefficients[0] <= 0:
        return None
    of_one, *rest = (float(c) for c in coefficients)
    sigma, kappa = (*(c / of_one for c in rest), 0.0)[:2]
    return Law(1 / of_one, sigma, kappa)


def _non_negative(columns: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x >= 0, shape (k,), with the least |columns x - target|; columns of shape (n, k), k small."""
    k = columns.shape[1]
    best, least = np.zeros(k), math.inf
    for size in range(1, k + 1):
        for subset in map(list, combinations(range(k), size)):
            x = np.zeros(k)
            x[subset] = np.linalg.lstsq(columns[:, subset], target, rcond=None)[0]
            error = float(np.linalg.norm(columns @ x - target))
            if (x >= 0).all() and error < least - 1e-15:
                best, least = x, error
    return best
