"""Where the time of a step went."""

from __future__ import annotations

import pytest

from thalweg_cluster.experiments.parts import PARTS, Split, split_of


def worker(rank, *, sample=0.0, compute=0.0, push=0.0, wait=0.0, apply=0.0, microbatches=4, steps=10):
    return {
        "rank": rank, "steps": steps, "microbatches": microbatches * steps, "sample_ms": sample,
        "compute_ms": compute, "push_ms": push, "wait_ms": wait, "apply_ms": apply,
        "microbatch_ms": (sample + compute) / microbatches if microbatches else 0.0, "microbatch_sd_ms": 0.0,
    }  # fmt: skip


# A step of 20 ms: worker 1 computes for 16, worker 0 for 8, and each sums and updates for 1.
TWO = [
    worker(0, sample=1, compute=7, push=0.5, wait=11.5, apply=1),
    worker(1, sample=1, compute=15, push=0.5, wait=3.5, apply=1),
]


def test_by_hand():
    split = split_of(TWO, sync=True, hosts=1)
    assert split.ms == {"compute": 12, "slowest": 4, "update": 1, "wire": 0, "exchange": 3}
    assert split.slowest_worker == 1


def test_between_hosts_the_rest_is_the_wire():
    assert split_of(TWO, sync=True, hosts=2).ms == {"compute": 12, "slowest": 4, "update": 1, "wire": 3, "exchange": 0}


def test_without_a_barrier_nobody_waits_for_the_slowest():
    split = split_of(TWO, sync=False, hosts=1)
    assert (split.ms["slowest"], split.ms["exchange"], split.slowest_worker) == (0, 7, 1)


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("sync", [True, False])
def test_the_parts_add_up_to_the_step(sync, hosts):
    assert split_of(TWO, sync=sync, hosts=hosts).step_ms == pytest.approx(20)


def test_who_takes_the_longest_for_a_microbatch_is_the_slowest_though_others_did_more():
    """Others take microbatches from a slow worker: it computes no longer than they do, and is slow all the same."""
    taken = [worker(0, compute=12, wait=1, microbatches=6), worker(1, compute=11, wait=2, microbatches=2)]
    assert split_of(taken, sync=True, hosts=1).slowest_worker == 1


def test_one_worker_is_not_the_slowest_of_anybody():
    assert split_of(TWO[:1], sync=True, hosts=1).slowest_worker is None


def test_no_steps_no_split():
    assert split_of([worker(0, steps=0)], sync=True, hosts=1) is None
    assert split_of([], sync=True, hosts=1) is None


def test_repeats_are_averaged():
    a = Split(dict.fromkeys(PARTS, 1.0), 0)
    b = Split(dict.fromkeys(PARTS, 3.0), 1)
    mean = Split.mean([a, b, Split(dict.fromkeys(PARTS, 2.0), 1)])
    assert (mean.step_ms, mean.slowest_worker) == (10.0, 1)
