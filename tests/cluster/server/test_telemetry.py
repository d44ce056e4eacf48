from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.consistency import Verdict
from thalweg_cluster.server.telemetry import BUCKET_BOUNDS_S, Durations, QuantileDurations, Telemetry
from thalweg_proto.messages import StepRecord, pack_step, unpack_from_worker


def telemetry() -> Telemetry:
    return Telemetry(workers=2, batch_size=64, bytes_pushed=400, bytes_published=400)


@given(st.lists(st.floats(1e-6, 3000), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_agree_with_sorting_to_one_percent(seconds, q):
    """The histogram's quantile is within its bin of the one that sorting all durations gives."""
    durations = QuantileDurations()
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


def records(*steps: int, rank: int = 0, published_s: float = 0.0, **changed: float) -> np.ndarray:
    """What a worker tells of `steps`, one millisecond each from `published_s` on."""
    given = {"loss": 0.5, "gradient_norm": math.nan, "sample_s": 0.0, "compute_s": 0.0, "push_s": 0.0, "wait_s": 0.0}
    told = [
        StepRecord(
            **{"rank": rank, "microbatches": 2, "step": step, "apply_s": 0.0, **given, **changed},
            published_s=published_s + 0.001 * (i + 1),
        )
        for i, step in enumerate(steps)
    ]
    return unpack_from_worker(b"".join(map(pack_step, told)))


def test_phases_count_for_each_worker():
    """Two workers tell of three steps each: six worker's steps."""
    t = telemetry()
    t.heard(records(0, 1, 2, sample_s=0.001, wait_s=0.003))
    t.heard(records(0, 1, 2, rank=1, sample_s=0.002))
    assert t.phases["sample"].count == 6
    assert t.phase_means_ms() == pytest.approx({"sample": 1.5, "compute": 0.0, "push": 0.0, "wait": 1.5})


def test_the_times_of_each_worker_leave_the_warm_up_out():
    """By hand: 10 steps of another worker's pace are left out, and of 3 and 1 ms for 2 microbatches each, one takes 1
    ms; the deviation of a step's mean is 0.5 ms, that of a microbatch the square root of 2 times as much."""
    t = telemetry()
    t.heard(records(*range(10), rank=1, compute_s=9.0))
    t.heard(records(10, 12, rank=1, compute_s=0.002, sample_s=0.001, apply_s=0.0005, wait_s=0.002))
    t.heard(records(11, 13, rank=1, compute_s=0.001))
    t.heard(records(10, rank=0, compute_s=0.004, microbatches=0))
    idle, busy = t.by_worker()
    assert busy == pytest.approx(
        {
            "rank": 1, "steps": 4, "microbatches": 8, "sample_ms": 0.5, "compute_ms": 1.5, "push_ms": 0, "wait_ms": 1,
            "apply_ms": 0.25, "microbatch_ms": 1.0, "microbatch_sd_ms": 0.5 * 2**0.5,
        }
    )  # fmt: skip
    assert (idle["rank"], idle["compute_ms"], idle["microbatches"], idle["microbatch_ms"]) == (0, 4.0, 0, 0.0)


def stepped(t: Telemetry, steps: int, published_s: list[float], gradient_norm: float = math.nan) -> None:
    n = len(published_s)
    t.stepped(steps, np.full(n, 0.5), np.full(n, gradient_norm), np.array(published_s))


def test_step_times_are_from_one_publish_to_the_next():
    """Steps of 1 ms, and 4 ms more before the fourth, told in two parts."""
    t = telemetry()
    t.published_s = 10.0
    stepped(t, 3, [10.001, 10.002, 10.003])
    stepped(t, 5, [10.008, 10.009])
    assert (t.steps, t.step_durations.count) == (5, 5)
    assert t.step_ms() == pytest.approx({"p50": 1.0, "p95": 5.0, "max": 5.0}, rel=0.011)


def test_local_steps_share_the_time_of_their_round():
    """Four local steps of one round of 8 ms took 2 ms each."""
    t = telemetry()
    stepped(t, 4, [0.008])
    assert (t.steps, t.step_durations.count) == (4, 4)
    assert t.step_ms()["max"] == pytest.approx(2.0)


def test_the_newest_known_norm_stays():
    """Most steps take none."""
    t = telemetry()
    stepped(t, 1, [0.1], gradient_norm=2.0)
    stepped(t, 3, [0.2, 0.3])
    assert t.gradient_norm == 2.0


def test_pushes_count_by_what_became_of_them():
    """Staleness is that of pushes that were applied."""
    t = telemetry()
    t.pushed(Verdict.ACCEPTED, 3)
    t.pushed(Verdict.ACCEPTED, 0, pushes=2)
    t.pushed(Verdict.LATE, 9)
    assert (t.pushes[Verdict.ACCEPTED], t.pushes[Verdict.LATE], t.pushes[Verdict.DUPLICATE]) == (3, 1, 0)
    assert t.staleness.summary() == {"mean": 1.0, "max": 3}
    assert t.staleness.counts.tolist() == [2, 0, 0, 1, 0, 0, 0, 0, 0]
