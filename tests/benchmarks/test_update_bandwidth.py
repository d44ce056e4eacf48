"""Sum of 2 gradients, momentum, write and the look for what is not finite, against a plain copy of memory.

    pytest -m bench -s tests/benchmarks/test_update_bandwidth.py

25 million parameters, one thread. The pass is the production one, on shared memory. It counts 6 x 4 bytes a parameter:
two gradients, parameters and velocity read, parameters and velocity written. `np.copyto` counts what it reads and
writes. Rounds alternate between the two, and the median of the rounds' ratios counts. They take turns on a few sets of
buffers: how fast memory is depends on which pages of the machine one gets.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from thalweg_cluster.rules import make_rule
from thalweg_cluster.update import UpdatePass
from thalweg_proto.shared_memory import MemoryPlan, Vectors, create_segment

SIZE = 25_000_000
SETS, ROUNDS = 4, 6
LEAST = 1.1


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class Memory:
    """One set of buffers for both."""

    def __init__(self) -> None:
        rule = make_rule("momentum", {"momentum": 0.9})
        plan = MemoryPlan(size=SIZE, microbatches=2, slots=1)
        fd = create_segment(plan.vector_bytes, plan.spare_bytes)
        vectors = Vectors(plan, fd)
        os.close(fd)
        for row in (
            *vectors.gradients(-1),
            *vectors.gradients(0),
            *vectors.gradients(1),
            *vectors.state(0),
            *vectors.state(1),
        ):
            row.fill(1e-3)
        self.update = UpdatePass(plan, vectors, rule, chunks=range(plan.chunks), squares=np.zeros(plan.chunks))
        self.source, self.target = np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32)

    def copy(self) -> None:
        np.copyto(self.target, self.source)

    def update_at(self, step: int) -> None:
        self.update.apply(step, 1e-3)


def compare() -> list[tuple[float, float]]:
    """Bytes a second of the pass and of the copy, in each round on each set of buffers."""
    sets, found = [Memory() for _ in range(SETS)], []
    for step in range(ROUNDS + 1):
        for memory in sets:
            copied_s, passed_s = seconds(memory.copy), seconds(partial(memory.update_at, step))
            if step:  # the first round is for warmth
                found.append((6 * 4 * SIZE / passed_s, 2 * 4 * SIZE / copied_s))
    return found


@pytest.mark.bench
def test_the_pass_moves_at_least_as_much_as_a_copy():
    """1.1 times the bytes a second that np.copyto moves."""
    found = compare()
    ratio = statistics.median(passed / copied for passed, copied in found)
    passed, copied = (statistics.median(column) / 1e9 for column in zip(*found, strict=True))
    print(f"\npass {passed:.1f} GB/s, np.copyto {copied:.1f} GB/s, ratio {ratio:.2f} (at least {LEAST})")
    assert ratio >= LEAST
