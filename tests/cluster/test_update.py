from __future__ import annotations

import math
import threading
import tracemalloc

import numpy as np
import pytest

from thalweg_cluster.rules import make_rule
from thalweg_cluster.update import BLOCK, UpdatePass, all_finite, sum_of_squares

SIZE = 3 * BLOCK + 48  # several blocks, the last one not full


@pytest.fixture(autouse=True)
def _threads_for_small_shards(monkeypatch):
    """As many threads as are asked for, also where one would be quicker."""
    monkeypatch.setattr("thalweg_cluster.update.ALONE", 0)


class Shard:
    """An update pass with buffers of its own."""

    def __init__(self, microbatches=3, size=SIZE, rule="momentum", seed=0, **options):
        rng = np.random.default_rng(seed)
        self.parameters = np.empty((2, size), np.float32)
        self.parameters[0] = rng.standard_normal(size, dtype=np.float32)
        self.gradients = rng.standard_normal((microbatches, size), dtype=np.float32)
        self.rule = make_rule(rule, {"momentum": 0.9} if rule == "momentum" else {})
        self.update = UpdatePass(parameters=self.parameters, gradients=self.gradients, rule=self.rule, **options)

    def steps(self, count: int, **options):
        return [self.update.run(step=step, learning_rate=0.1, **options) for step in range(count)]


def test_one_pass_is_sum_then_rule():
    """Against plain NumPy expressions over the whole vector, for three steps; the gradients are only read."""
    shard = Shard(microbatches=4)
    before = shard.gradients.copy()
    expected, velocity = shard.parameters[0].copy(), np.zeros(SIZE, np.float32)
    g = shard.gradients
    summed = (g[0] + g[1]) + (g[2] + g[3])
    for _ in range(3):
        velocity = velocity * np.float32(0.9) + summed
        expected = expected - velocity * np.float32(0.1)
    assert all(result.finite for result in shard.steps(3))
    np.testing.assert_array_equal(shard.parameters[1], expected)
    np.testing.assert_array_equal(shard.gradients, before)
    shard.update.close()


@pytest.mark.parametrize("rule", ["momentum", "adam"])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_threads_do_not_change_the_bits(rule, clip_norm):
    """1, 2 and 3 threads: equal parameters, and an equal norm."""
    found = []
    for threads in (1, 2, 3):
        shard = Shard(rule=rule, threads=threads, clip_norm=clip_norm)
        norm = shard.steps(3, want_norm=True)[-1].gradient_norm
        found.append((norm, shard.parameters.tobytes()))
        shard.update.close()
    assert found[0] == found[1] == found[2]


def test_clipping_shortens_to_the_norm_as_torch_does():
    """The step is that of the gradient times clip / (norm + 1e-6); a short gradient is left alone."""
    whole, clipped, loose = (Shard(rule="sgd", clip_norm=clip) for clip in (0.0, 2.0, 1e9))
    norm = whole.steps(1, want_norm=True)[0].gradient_norm
    exact = math.sqrt(
        float(np.sum(((whole.gradients[0] + whole.gradients[1]) + whole.gradients[2]).astype(float) ** 2))
    )
    assert norm == pytest.approx(exact, rel=1e-5)
    clipped.steps(1)
    loose.steps(1)
    moved, shortened = (s.parameters[1] - s.parameters[0] for s in (whole, clipped))
    np.testing.assert_allclose(shortened, moved * (2.0 / (exact + 1e-6)), atol=1e-6)
    np.testing.assert_array_equal(loose.parameters, whole.parameters)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("index", [0, BLOCK, SIZE - 1])
def test_one_number_that_is_not_finite_is_found(rule, bad, index):
    """In the first, a middle or the last block, for each rule and with clipping."""
    for clip_norm in (0.0, 1.0):
        shard = Shard(rule=rule, clip_norm=clip_norm)
        shard.gradients[1, index] = bad
        assert not shard.steps(1)[0].finite


def test_the_old_version_is_left_alone():
    """Version t stays whole while t + 1 is written."""
    shard = Shard()
    before = shard.parameters[0].copy()
    shard.steps(1)
    np.testing.assert_array_equal(shard.parameters[0], before)


def test_nothing_is_allocated_after_the_first_step():
    """No more than a few kilobytes at any time, also with the norm and clipping."""
    for options in ({}, {"clip_norm": 1.0}):
        shard = Shard(**options)
        shard.steps(2, want_norm=True)
        tracemalloc.start()
        shard.steps(2, want_norm=True)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8192


def test_large_finite_numbers_are_finite():
    """A sum of squares that overflows is no proof; the block is looked at."""
    with np.errstate(over="ignore", invalid="ignore"):
        assert all_finite(np.full(100, 1e30, np.float32))
        assert not all_finite(np.array([1.0, math.inf], np.float32))
        assert not all_finite(np.array([1.0, math.nan], np.float32))


def test_sums_of_squares_are_taken_in_chunks():
    """20,000 ones."""
    assert sum_of_squares(np.ones(20_000, np.float32)) == 20_000


def test_threads_end_with_the_pass():
    """close() leaves none behind."""
    before = threading.active_count()
    shard = Shard(threads=2)
    assert threading.active_count() == before + 1
    shard.update.close()
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

    shard.update._rule = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        shard.steps(1)
    shard.update.close()
