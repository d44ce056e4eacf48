"""Amdahl's law and the universal scalability law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from thalweg_cluster.experiments.laws import Law, fit_amdahl, fit_usl

WORKERS = [1, 2, 4, 8, 16]


def test_amdahl_by_hand():
    """A tenth is serial: two workers are 1 / (0.1 + 0.9 / 2) = 1.818 times as fast, any number less than 10 times."""
    law = fit_amdahl([1, 2], [100.0, 181.8181818])
    assert (law.rate, law.sigma, law.kappa) == (pytest.approx(100), pytest.approx(0.1), 0.0)
    assert law.limit == pytest.approx(10)
    assert law.peak is None
    assert law.workers_at(0.5) == 11  # 1 + 0.1 (N - 1) = 2


@given(st.floats(1, 1e6), st.floats(0, 0.9), st.floats(0, 0.2))
def test_what_follows_the_law_is_fitted_exactly(rate, sigma, kappa):
    law = Law(rate, sigma, kappa)
    found = fit_usl(WORKERS, [law.throughput(n) for n in WORKERS])
    assert found.rate == pytest.approx(rate, rel=1e-6)
    assert (found.sigma, found.kappa) == (pytest.approx(sigma, abs=1e-6), pytest.approx(kappa, abs=1e-6))


@given(st.lists(st.floats(10, 1e4), min_size=5, max_size=5))
def test_no_law_nearby_fits_better(speeds):
    """The relative error of N / X, which is minimised, grows in each allowed direction."""
    found = fit_usl(WORKERS, speeds)
    assume(found is not None)
    n, target = np.array(WORKERS), np.array(WORKERS) / np.array(speeds)

    def error(a, b, c):
        return np.linalg.norm((a + b * (n - 1) + c * n * (n - 1)) / target - 1)

    best = np.array([1, found.sigma, found.kappa]) / found.rate
    for i in range(3):
        for sign in (1, -1):
            near = best.copy()
            near[i] = max(near[i] + sign * 1e-3 * max(best), 0)
            assert error(*near) >= error(*best) - 1e-9


def test_coherence_has_a_peak():
    law = Law(100.0, 0.0, 0.01)
    assert law.peak == pytest.approx(10)
    assert law.throughput(10) > law.throughput(9)
    assert law.throughput(10) > law.throughput(11)
    assert law.limit == pytest.approx(law.throughput(10) / 100)


@given(st.floats(0, 1), st.floats(0, 0.1), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_knee_is_where_the_efficiency_falls_below(sigma, kappa, efficiency):
    law = Law(1.0, sigma, kappa)
    knee = law.workers_at(efficiency)
    if knee is None or knee > 1e6:
        return
    assert knee == 1 or law.throughput(knee) / knee >= efficiency - 1e-6
    assert law.throughput(knee + 1) / (knee + 1) <= efficiency + 1e-6


def test_too_few_numbers_of_workers_fit_no_law():
    assert fit_amdahl([2], [100.0]) is None
    assert fit_usl([1, 2], [100.0, 190.0]) is None


def test_perfect_scaling_has_no_limit():
    law = fit_usl([1, 2, 4], [10.0, 20.0, 40.0])
    assert (law.sigma, law.kappa) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))


def test_more_than_ideal_is_taken_as_ideal():
    """Caches may make two workers more than twice as fast; a negative part is none."""
    law = fit_amdahl([1, 2], [100.0, 210.0])
    assert law.sigma == 0
    assert law.limit is None
