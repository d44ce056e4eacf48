from __future__ import annotations

import math
import os
import threading
import tracemalloc

import numpy as np
import pytest

from thalweg_cluster.rules import make_rule
from thalweg_cluster.update import BLOCK, UpdatePass, all_finite, norm, sum_of_squares
from thalweg_proto.shared_memory import CHUNK, MemoryPlan, Vectors, create_segment

SIZE = 3 * BLOCK + 48  # several blocks, the last one not full


@pytest.fixture(autouse=True)
def _threads_for_small_shares(monkeypatch):
    """As many threads as are asked for, also where one would be quicker."""
    monkeypatch.setattr("thalweg_cluster.update.ALONE", 0)


class Shard:
    """A flat vector with its gradients and state, and the passes of one or more workers over it."""

    def __init__(self, microbatches=3, size=SIZE, rule="momentum", cuts=(), threads=1):
        rng = np.random.default_rng(0)
        self.rule = make_rule(rule, {"momentum": 0.9} if rule == "momentum" else {})
        plan = MemoryPlan(size=size, microbatches=microbatches, slots=len(self.rule.slots))
        fd = create_segment(plan.vector_bytes, plan.spare_bytes)
        self.vectors = Vectors(plan, fd)
        os.close(fd)
        self.vectors.gradient(-1, 0)[...] = rng.standard_normal(size, dtype=np.float32)
        self.given = rng.standard_normal((microbatches, size), dtype=np.float32)
        for state, slot in zip(self.vectors.state(0), self.rule.slots, strict=True):
            state.fill(slot.initial_value)
        self.squares = np.zeros(plan.chunks)
        bounds = [0, *cuts, plan.chunks]
        self.passes = [
            UpdatePass(
                plan, self.vectors, self.rule, chunks=range(*bounds[i : i + 2]), squares=self.squares, threads=threads
            )
            for i in range(len(bounds) - 1)
        ]

    def push(self, step: int) -> None:
        for gradient, given in zip(self.vectors.gradients(step), self.given, strict=True):
            gradient[...] = given

    def steps(self, count: int, factor=None, **options) -> bool:
        """Whether all was finite."""
        finite = True
        for step in range(count):
            self.push(step)
            if factor is not None:
                for share in self.passes:
                    share.measure(step)
                options |= {"summed": True, "factor": factor}
            for share in self.passes:
                finite = share.apply(step, 0.1, **options) and finite
        return finite

    def close(self):
        for share in self.passes:
            share.close()


def test_one_pass_is_sum_then_rule():
    """Against plain NumPy expressions over the whole vector, for four steps: each row has been a version once."""
    shard = Shard(microbatches=4)
    expected, velocity = shard.vectors.version(0).copy(), np.zeros(SIZE, np.float32)
    g = shard.given
    summed = (g[0] + g[1]) + (g[2] + g[3])
    for _ in range(4):
        velocity = velocity * np.float32(0.9) + summed
        expected = expected - velocity * np.float32(0.1)
    assert shard.steps(4)
    np.testing.assert_array_equal(shard.vectors.version(4), expected)
    np.testing.assert_array_equal(shard.vectors.state(4)[0], velocity)


@pytest.mark.parametrize("rule", ["momentum", "adam"])
@pytest.mark.parametrize("factor", [None, 0.5])
def test_neither_threads_nor_shares_change_the_bits(rule, factor):
    """1, 2 and 3 threads, and shares cut at any chunk: equal parameters, and an equal norm."""
    found = []
    for options in ({}, {"threads": 2}, {"threads": 3}, {"cuts": (1,)}, {"cuts": (5, 5, 20), "threads": 2}):
        shard = Shard(rule=rule, **options)
        shard.steps(3, factor=factor, note_squares=factor is None)
        found.append((norm(shard.squares), shard.vectors.version(3).tobytes()))
        shard.close()
    assert len(set(found)) == 1


def test_the_norm_is_that_of_the_sum():
    """Taken on the way, or before a pass that clips: the square root of the sum of squares, to float32."""
    g = Shard().given
    exact = math.sqrt(float(np.sum(((g[0] + g[1]) + g[2]).astype(float) ** 2)))
    for options in ({"note_squares": True}, {"factor": 0.25}):
        shard = Shard()
        shard.steps(1, **options)
        assert norm(shard.squares) == pytest.approx(exact, rel=1e-5)


def test_a_factor_shortens_the_gradient():
    """The step of a quarter of the gradient is a quarter of the step."""
    whole, quarter = Shard(rule="sgd"), Shard(rule="sgd")
    whole.steps(1)
    quarter.steps(1, factor=0.25)
    moved, shortened = (s.vectors.version(1) - s.vectors.version(0) for s in (whole, quarter))
    np.testing.assert_allclose(shortened, moved / 4, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("index", [0, BLOCK, SIZE - 1])
def test_one_number_that_is_not_finite_is_found(rule, bad, index):
    """In the first, a middle or the last block, for each rule, also where the sum is taken first."""
    for factor in (None, 1.0):
        shard = Shard(rule=rule)
        shard.given[1, index] = bad
        assert not shard.steps(1, factor=factor)


def test_the_old_versions_are_left_alone():
    """Version t stays whole while t + 1 is made and t + 2 is being computed."""
    shard = Shard()
    shard.steps(1)
    before = [shard.vectors.version(t).copy() for t in (0, 1)]
    shard.push(1)
    np.testing.assert_array_equal(shard.vectors.version(0), before[0])
    shard.passes[0].apply(1, 0.1)
    np.testing.assert_array_equal(shard.vectors.version(1), before[1])


def test_nothing_is_allocated_after_the_first_step():
    """No more than a few kilobytes at any time, also with the norm and clipping."""
    for options in ({"note_squares": True}, {"factor": 0.5}):
        shard = Shard()
        shard.steps(2, **options)
        tracemalloc.start()
        shard.steps(2, **options)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8192


def test_large_finite_numbers_are_finite():
    """A sum of squares that overflows is no proof; the block is looked at."""
    with np.errstate(over="ignore", invalid="ignore"):
        assert all_finite(np.full(100, 1e30, np.float32))
        assert not all_finite(np.array([1.0, math.inf], np.float32))
        assert not all_finite(np.array([1.0, math.nan], np.float32))


def test_a_sum_of_squares_that_float32_cannot_hold_is_taken_in_float64():
    """Else a gradient of 1e30 would be clipped by a norm of infinity, that is not at all."""
    with np.errstate(over="ignore"):
        assert sum_of_squares(np.full(CHUNK, 1e30, np.float32)) == pytest.approx(CHUNK * 1e60, rel=1e-6)
        assert math.isnan(sum_of_squares(np.array([1.0, math.nan], np.float32)))


def test_threads_end_with_the_pass():
    """close() leaves none behind."""
    before = threading.active_count()
    shard = Shard(threads=2)
    assert threading.active_count() == before + 1
    shard.close()
    assert threading.active_count() == before


def test_an_error_in_a_thread_is_raised():
    """A rule that fails in the second thread fails the pass."""
    shard = Shard(threads=2)

    class Broken:
        def block_update(self, step, learning_rate):
            def update(*arrays):
                if threading.current_thread() is not threading.main_thread():
                    raise RuntimeError("broken")

            return update

    shard.passes[0]._rule = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        shard.steps(1)
    shard.close()
