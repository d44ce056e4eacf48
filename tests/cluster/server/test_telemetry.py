from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.consistency import Verdict
from thalweg_cluster.server.telemetry import BUCKET_BOUNDS_S, RECORDS_MAX, Durations, Telemetry
from thalweg_proto.messages import Push, pack_push


def telemetry() -> Telemetry:
    return Telemetry(workers=2, batch_size=64, bytes_pushed=400, bytes_published=400)


@given(st.lists(st.floats(1e-6, 3000), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_agree_with_sorting_to_one_percent(seconds, q):
    """The histogram's quantile is within its bin of the one that sorting all durations gives."""
    durations = Durations()
    durations.add(np.array(seconds))
    exact = sorted(seconds)[max(0, int(np.ceil(q * len(seconds) - 1e-9)) - 1)]
    assert durations.quantile_s(q) == pytest.approx(exact, rel=0.011)


@given(st.lists(st.floats(1e-6, 3000), min_size=1, max_size=100))
def test_buckets_count_what_lies_at_or_below_their_bounds(seconds):
    """Cumulated counts equal a plain count, as Prometheus defines buckets."""
    durations = Durations()
    durations.add(np.array(seconds))
    cumulative = np.cumsum(durations.counts)
    assert [int(c) for c in cumulative] == [
        *(sum(s <= bound for s in seconds) for bound in BUCKET_BOUNDS_S),
        len(seconds),
    ]


def test_phases_of_a_step_are_the_sum_over_the_microbatches_of_a_worker():
    """Two microbatches of one step count as one step of the worker; a step is closed by the next one's first push."""
    t = telemetry()
    for step in range(3):
        for m in range(2):
            t.judged(Verdict.ACCEPTED)
            t.heard(pack_push(Push(0, 1, step, m, 0.0, 0.001, 0.002, 0.0, 0.003)))
    assert t.phases["sample"].count == 0  # nothing is computed until somebody reads
    means = t.phase_means_ms()
    assert t.phases["sample"].count == 2
    assert means == pytest.approx({"sample": 2.0, "compute": 4.0, "push": 0.0, "wait": 6.0})


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=30),
    st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_phases_do_not_depend_on_when_they_are_read(worker_steps, reads):
    """Reading in the middle of a worker's step gives the same sums in the end as a plain loop over all pushes."""
    t = telemetry()
    expected: dict[int, list[float]] = {}
    steps = {0: 0, 1: 0, 2: 0}
    for (rank, microbatches), read in zip(worker_steps, reads, strict=False):
        for m in range(microbatches):
            t.judged(Verdict.ACCEPTED)
            t.heard(pack_push(Push(rank, 1, steps[rank], m, 0.0, 0.5, 0.0, 0.0, 0.0)))
            if read and m == 0:
                t.drain()
        steps[rank] += 1
        expected.setdefault(rank, []).append(0.5 * microbatches)
    t.drain()
    closed = [seconds for of_rank in expected.values() for seconds in of_rank[:-1]]
    assert t.phases["sample"].count == len(closed)
    assert t.phases["sample"].sum_s == pytest.approx(sum(closed))


def test_memory_stays_bounded_where_nobody_reads():
    """The records are folded into the histograms by the step itself, once there are many."""
    t = telemetry()
    for step in range(2 * RECORDS_MAX):
        t.judged(Verdict.ACCEPTED)
        t.heard(pack_push(Push(0, 1, step, 0, 0.0, 0.0, 0.0, 0.0, 0.0)))
        t.stepped(0.001, 0.0001, 0.5, 0.1)
    assert len(t._pushes) < RECORDS_MAX
    assert len(t._steps) <= RECORDS_MAX
    assert t.pushes(Verdict.ACCEPTED) == 2 * RECORDS_MAX


def test_step_times_are_given_in_milliseconds():
    """Ten steps of 1 ms and one of 5 ms."""
    t = telemetry()
    for duration in [0.001] * 10 + [0.005]:
        t.stepped(duration, 0.0, 0.5, 0.1)
    assert t.step_ms() == pytest.approx({"p50": 1.0, "p95": 5.0, "max": 5.0}, rel=0.011)
