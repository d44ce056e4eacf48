"""Where the time of each worker's steps went lately."""

from __future__ import annotations

import pytest

from thalweg_cluster.service.page.workers import WINDOW_S, by_worker, window


def so_far(time_s: float, *workers: dict, sits_out=()) -> dict:
    zeros = {
        "rank": 0, "steps": 0, "microbatches": 0, "sample_s": 0.0, "compute_s": 0.0, "push_s": 0.0, "wait_s": 0.0,
        "waited_for_s": 0.0,
    }  # fmt: skip
    rows = [zeros | {"rank": rank} | worker for rank, worker in enumerate(workers)]
    columns = {name: [row[name] for row in rows] for name in zeros}
    return {"time_s": time_s, "workers": columns, "sits_out": list(sits_out)}


def test_only_what_went_on_in_between_counts():
    """By hand: 10 steps, 2 microbatches each, of 2 + 4 ms."""
    before = so_far(1.0, {"steps": 5, "microbatches": 10, "compute_s": 9.0, "waited_for_s": 1.0})
    after = {"steps": 15, "microbatches": 30, "compute_s": 9.08, "sample_s": 0.04, "push_s": 0.01, "wait_s": 0.02}
    [worker] = by_worker(before, so_far(11.0, after | {"waited_for_s": 1.5}))
    expected = {
        "rank": 0, "steps": 10, "microbatches": 20, "sample_ms": 4.0, "compute_ms": 8.0, "push_ms": 1.0, "wait_ms": 2.0,
        "microbatch_ms": 6.0, "waited_for_s": 0.5, "slowness": None, "sits_out": False, "straggler": False,
    }  # fmt: skip
    assert worker == pytest.approx(expected)


def test_a_straggler_takes_much_longer_than_the_others_do():
    """1 and 3 ms beside one of 10 ms, which is 5 times their mean; one that sits out is one, too, and has no pace."""

    def taking(ms):
        return {"steps": 1, "microbatches": 1, "compute_s": 1e-3 * ms}

    workers = by_worker(None, so_far(1.0, taking(1), taking(3), taking(10), {"steps": 1}, sits_out=[3]))
    assert [worker["slowness"] for worker in workers[:3]] == pytest.approx([1 / 6.5, 3 / 5.5, 5.0])
    assert workers[3]["slowness"] is None
    assert [worker["straggler"] for worker in workers] == [False, False, True, True]
    assert [worker["sits_out"] for worker in workers] == [False, False, False, True]


def test_who_took_the_place_of_another_counts_from_its_begin():
    """Its counts are smaller; so they do of one that was not there before."""
    before = so_far(1.0, {"steps": 100, "microbatches": 100, "compute_s": 50.0})
    first, second = by_worker(before, so_far(5.0, {"steps": 2, "compute_s": 0.004}, {"steps": 1, "wait_s": 0.007}))
    assert (first["steps"], first["compute_ms"]) == (2, pytest.approx(2.0))
    assert (second["steps"], second["wait_ms"]) == (1, pytest.approx(7.0))


def test_the_window_is_no_longer_than_it_has_to_be_and_of_one_attempt():
    """The newest that is long enough ago; else the oldest; alone it begins with the attempt."""
    told = [so_far(t) for t in (1.0, 2.0, 3.0, 2.5 + WINDOW_S)]
    assert window(told) == (told[1], told[3])
    assert window(told[:3]) == (told[0], told[2])
    assert window(told[:1]) == (None, told[0])
    again = [so_far(90.0), so_far(0.5), so_far(2.0)]
    assert window(again) == (again[1], again[2])
    assert window(again[:2]) == (None, again[1])
