"""Forward and backward of 784-H-H-10 (ReLU, softmax cross-entropy): the recorded chain against the same arithmetic
written out by hand with NumPy's in-place operations on buffers that stay.

    pytest -m bench -s tests/benchmarks/test_autodiff_speed.py

Both read float32 parameters that are views of one flat read-only vector and write gradients into views of another.
Rounds alternate between the two and the median of the rounds' ratios counts, so a slow phase of the machine hits both.
BLAS runs with one thread, as in a worker.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch

CASES = [(128, 64, 1.20), (512, 128, 1.10), (1024, 128, 1.10), (4096, 128, 1.10)]  # H, batch, most allowed
ROUNDS = 15
ROUND_S = 0.04  # one round is as many calls as take about this long


def shapes(hidden: int) -> dict[str, tuple[int, ...]]:
    return {
        "W1": (784, hidden),
        "b1": (hidden,),
        "W2": (hidden, hidden),
        "b2": (hidden,),
        "W3": (hidden, 10),
        "b3": (10,),
    }


def views(flat: np.ndarray, hidden: int) -> dict[str, np.ndarray]:
    parts, begin = {}, 0
    for name, shape in shapes(hidden).items():
        end = begin + int(np.prod(shape))
        parts[name], begin = flat[begin:end].reshape(shape), end
    return parts


def loss(params: dict[str, Any], batch: Batch) -> ad.Tensor:
    hidden = ad.relu(batch.x @ params["W1"] + params["b1"])
    hidden = ad.relu(hidden @ params["W2"] + params["b2"])
    return ad.softmax_cross_entropy(hidden @ params["W3"] + params["b3"], batch.y)


def by_hand(hidden: int, n: int) -> Callable[..., float]:
    """The same arithmetic, as one would write it for this one network."""
    h1, h2, g1, g2 = (np.empty((n, hidden), np.float32) for _ in range(4))
    mask = np.empty((n, hidden), np.bool_)
    logits, p = np.empty((n, 10), np.float32), np.empty((n, 10), np.float32)
    row, total = np.empty((n, 1), np.float32), np.empty((n, 1), np.float32)
    samples = np.arange(n)

    def step(params: dict[str, np.ndarray], batch: Batch, out: dict[str, np.ndarray]) -> float:
        np.matmul(batch.x, params["W1"], out=h1)
        np.add(h1, params["b1"], out=h1)
        np.maximum(h1, 0, out=h1)
        np.matmul(h1, params["W2"], out=h2)
        np.add(h2, params["b2"], out=h2)
        np.maximum(h2, 0, out=h2)
        np.matmul(h2, params["W3"], out=logits)
        np.add(logits, params["b3"], out=logits)

        np.max(logits, axis=1, keepdims=True, out=row)
        np.subtract(logits, row, out=logits)
        np.exp(logits, out=p)
        np.sum(p, axis=1, keepdims=True, out=total)
        np.divide(p, total, out=p)
        value = float((np.log(total, out=total)[:, 0] - logits[samples, batch.y]).mean())

        p[samples, batch.y] -= 1
        np.multiply(p, 1 / n, out=p)
        np.matmul(h2.T, p, out=out["W3"])
        np.sum(p, axis=0, out=out["b3"])
        np.matmul(p, params["W3"].T, out=g2)
        np.greater(h2, 0, out=mask)
        np.multiply(g2, mask, out=g2)
        np.matmul(h1.T, g2, out=out["W2"])
        np.sum(g2, axis=0, out=out["b2"])
        np.matmul(g2, params["W2"].T, out=g1)
        np.greater(h1, 0, out=mask)
        np.multiply(g1, mask, out=g1)
        np.matmul(batch.x.T, g1, out=out["W1"])
        np.sum(g1, axis=0, out=out["b1"])
        return value

    return step


def seconds(call: Callable[[], object], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def compare(hidden: int, n: int) -> tuple[float, float, float]:
    """Median seconds of a step, recorded and by hand, and the median over the rounds of their ratio."""
    rng = np.random.default_rng(0)
    size = sum(int(np.prod(shape)) for shape in shapes(hidden).values())
    weights = (rng.standard_normal(size) * 0.03).astype(np.float32)
    weights.flags.writeable = False
    params = views(weights, hidden)
    ours, theirs = (views(np.zeros(size, np.float32), hidden) for _ in range(2))
    batch = Batch(rng.standard_normal((n, 784)).astype(np.float32), rng.integers(0, 10, n))

    value_and_grad, step = ad.value_and_grad(loss), by_hand(hidden, n)

    def recorded() -> float:
        return value_and_grad(params, batch, out=ours)[0]

    def hand() -> float:
        return step(params, batch, theirs)

    assert recorded() == pytest.approx(hand(), rel=1e-5)
    for name in params:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5)

    calls = max(1, int(ROUND_S / seconds(hand, 3)))
    times = [(seconds(recorded, calls), seconds(hand, calls)) for _ in range(ROUNDS)]
    recorded_s, hand_s = (statistics.median(column) for column in zip(*times, strict=True))
    return recorded_s, hand_s, statistics.median(a / b for a, b in times)


@pytest.mark.bench
def test_a_replayed_chain_costs_about_what_numpy_by_hand_costs() -> None:
    """At most 1.2 times the arithmetic written out by hand at H = 128, and 1.1 times at 512, 1024 and 4096."""
    ratios = {}
    print("\n    H  batch   recorded    by hand  ratio  at most")
    for hidden, n, most in CASES:
        with threadpool_limits(1, user_api="blas"):
            recorded, hand, ratios[hidden] = compare(hidden, n)
        print(f"{hidden:5d} {n:6d} {recorded * 1e3:7.3f} ms {hand * 1e3:7.3f} ms {ratios[hidden]:6.3f} {most:8.2f}")
    assert all(ratios[hidden] <= most for hidden, _, most in CASES), ratios
