"""What a step would take with other numbers of workers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.experiments.simulation import Point, Simulation, _makespan


def point(workers, *, microbatch=10.0, sd=0.0, update=0.0, rest=0.0, microbatches=8):
    return Point(workers, microbatches, microbatch, sd, update, rest)


@pytest.mark.parametrize(("workers", "step_ms"), [(1, 80), (2, 40), (3, 30), (4, 20), (5, 20), (8, 10), (16, 10)])
def test_eight_microbatches_of_ten_milliseconds(workers, step_ms):
    """By hand: three workers have 3, 3 and 2 of them; more than eight have nothing to do."""
    predicted = Simulation([point(1)], barrier=True, cores=None).predict(workers, 8)
    assert predicted.step_ms == pytest.approx(step_ms)


@given(st.lists(st.lists(st.floats(0.1, 10), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(1, 7))
def test_the_makespan_is_that_of_a_dumb_count(times, workers):
    def dumb(row):
        until = [0.0] * workers
        for t in row:
            next_ = until.index(min(until))
            until[next_] += t
        return max(until)

    assert _makespan(np.array(times), workers) == pytest.approx([dumb(row) for row in times])


def test_it_finds_the_model_that_made_the_measurements():
    """update = 1 + 4 / N, rest = 0.5 + 0.2 N; the waiting for 3 workers' uneven microbatches counts once."""

    def measured(n):
        waiting = {1: 0.0, 2: 0.0, 3: 30 - 80 / 3}[n]
        return point(n, update=1 + 4 / n, rest=0.5 + 0.2 * n + waiting)

    simulation = Simulation([measured(1), measured(2), measured(3)], barrier=True, cores=None)
    for n in (4, 8):
        predicted = simulation.predict(n, 8)
        assert predicted.step_ms == pytest.approx(80 / n + 1 + 4 / n + 0.5 + 0.2 * n)
        assert predicted.loss_ms == pytest.approx(
            {"uneven": 0, "sharing": 0, "update": 1 + 4 / n, "rest": 0.5 + 0.2 * n}, abs=1e-6
        )
    assert simulation.predict(8, 8).bound_by == "rest"
    assert simulation.predict(2, 8).bound_by == "update"


def test_cores_are_shared():
    """Two of them: a second worker makes a microbatch a tenth slower, and four take turns."""
    simulation = Simulation([point(1), point(2, microbatch=11.0)], barrier=True, cores=2)
    assert simulation.predict(2, 8).step_ms == pytest.approx(44)
    assert simulation.predict(4, 8).step_ms == pytest.approx(44)
    assert simulation.predict(4, 8).bound_by == "sharing"


def test_times_that_vary_make_the_step_wait_for_the_slowest():
    """The oracle draws the steps one by one."""
    simulation = Simulation([point(1, sd=5.0)], barrier=True, cores=None)
    generator = np.random.default_rng(1)
    variance = np.log(1 + 0.5**2)
    drawn = generator.lognormal(np.log(10) - variance / 2, np.sqrt(variance), (20_000, 8))
    assert simulation.predict(8, 8).step_ms == pytest.approx(drawn.max(axis=1).mean(), rel=0.03)


def test_without_a_barrier_each_goes_around_by_itself():
    """Four workers, 8 microbatches: each goes around twice, 10 ms and 2 ms for the exchange."""
    simulation = Simulation([point(1, sd=5.0, rest=2.0)], barrier=False, cores=None)
    assert simulation.predict(4, 8).step_ms == pytest.approx(24)


def test_of_one_number_of_workers_the_update_is_taken_to_be_shared_and_the_rest_to_be_constant():
    simulation = Simulation([point(2, update=3.0, rest=1.0)], barrier=True, cores=None)
    assert simulation.predict(4, 8).loss_ms == pytest.approx(
        {"uneven": 0, "sharing": 0, "update": 1.5, "rest": 1.0}, abs=1e-6
    )
