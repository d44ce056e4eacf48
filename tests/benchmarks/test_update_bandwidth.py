"""Sum of 2 gradients, momentum, write and the look for what is not finite, against a plain copy of memory.

    pytest -m bench -s tests/benchmarks/test_update_bandwidth.py

25 million parameters, one thread. The pass is the production one, on shared memory. It counts 6 x 4 bytes a parameter:
two gradients, parameters and velocity read, parameters and velocity written. `np.copyto` counts what it reads and
writes. Rounds alternate between the two, and the median of the rounds' ratios counts.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest

from thalweg_cluster.rules import make_rule
from thalweg_cluster.update import UpdatePass
from thalweg_proto.shared_memory import MemoryPlan, Vectors, create_segment

SIZE = 25_000_000
ROUNDS = 15
LEAST = 1.1


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def compare(rounds: int = ROUNDS) -> tuple[list[float], list[float]]:
    """Bytes a second of each round: of the pass, and of the copy."""
    rule = make_rule("momentum", {"momentum": 0.9})
    plan = MemoryPlan(size=SIZE, microbatches=2, slots=1)
    fd = create_segment(plan.vector_bytes)
    vectors = Vectors(plan, fd)
    os.close(fd)
    for step in range(3):
        for gradient in vectors.gradients(step):
            gradient.fill(1e-3)
    update = UpdatePass(plan, vectors, rule, chunks=range(plan.chunks), squares=np.zeros(plan.chunks))
    source, target = np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32)
    passes, copies = [], []
    for step in range(rounds + 1):
        copied_s = seconds(lambda: np.copyto(target, source))
        passed_s = seconds(lambda at=step: update.apply(at, 1e-3))  # type: ignore[misc]  # mypy cannot infer defaults
        if step:  # the first round is for warmth
            passes.append(6 * 4 * SIZE / passed_s)
            copies.append(2 * 4 * SIZE / copied_s)
    return passes, copies


@pytest.mark.bench
def test_the_pass_moves_at_least_as_much_as_a_copy():
    """1.1 times the bytes a second that np.copyto moves."""
    passes, copies = compare()
    ratio = statistics.median(a / b for a, b in zip(passes, copies, strict=True))
    gigabytes = [statistics.median(figures) / 1e9 for figures in (passes, copies)]
    print(f"\npass {gigabytes[0]:.1f} GB/s, np.copyto {gigabytes[1]:.1f} GB/s, ratio {ratio:.2f} (at least {LEAST})")
    assert ratio >= LEAST
