"""Replay: whose memory is read, written, allocated and kept."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch

Params = dict[str, Any]
SHAPES = {"W1": (20, 16), "b1": (16,), "W2": (16, 10), "b2": (10,)}


def loss(p: Params, batch: Batch) -> ad.Tensor:
    hidden = ad.relu(batch.x @ p["W1"] + p["b1"])
    return ad.softmax_cross_entropy(hidden @ p["W2"] + p["b2"], batch.y)


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def batch(seed: int = 0, n: int = 12) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(rng.standard_normal((n, 20)).astype(np.float32), rng.integers(0, 10, n))


def buffers(p: Params) -> dict[str, np.ndarray]:
    return {name: np.full(a.shape, np.nan, a.dtype) for name, a in p.items()}


def test_gradients_are_written_into_the_callers_buffers() -> None:
    """The arrays of `out` are the ones returned, and hold the gradient; they may be others at each call."""
    p, vg = weights(), ad.value_and_grad(loss)
    expected = vg(p, batch())[1]
    for _ in range(2):
        out = buffers(p)
        found = vg(p, batch(), out=out)[1]
        for name in p:
            assert found[name] is out[name]
            assert out[name].tobytes() == expected[name].tobytes()


@pytest.mark.parametrize(
    "fn",
    [
        lambda p: (np.ones((3, 4), np.float32) @ p["a"]).sum(),
        lambda p: (p["a"] @ np.ones((5, 2), np.float32)).sum(),
        lambda p: (np.ones((2, 5), np.float32) @ p["a"].T).sum(),
        lambda p: (np.ones((3, 2), np.float32) @ p["a"].reshape(2, 10)).sum(),
        lambda p: ad.exp(p["a"]).sum(),
        lambda p: (ad.exp(p["a"]) + ad.tanh(p["a"])).sum(),
        lambda p: (p["a"] @ np.ones((5, 2), np.float32)).sum() + (p["a"].T @ np.ones((4, 2), np.float32)).sum(),
        lambda p: ad.conv2d(np.ones((1, 3, 3, 1), np.float32), p["a"].reshape(2, 2, 1, 5)).sum(),
        lambda p: ad.embedding(p["a"], np.array([1, 2, 2])).sum(),
    ],
)
def test_a_large_gradient_is_computed_in_the_callers_buffer(fn: Callable[..., ad.Tensor]) -> None:
    """No array of a gradient's size is computed elsewhere and then copied: `out` is the output of an instruction."""
    vg = ad.value_and_grad(fn)
    vg({"a": np.ones((4, 5), np.float32)})
    (recording,) = vg._recordings.values()
    (destination,) = recording.program._destinations.values()
    (writer,) = [i for i in recording.chain.instructions if i.out is destination.tensor]
    assert "copy" not in getattr(writer.kernel, "__qualname__", writer.kernel.__name__)


def test_parameters_may_be_read_only_and_move_between_calls() -> None:
    """Parameters and batches are read where they lie at each call, from read-only memory."""
    vg = ad.value_and_grad(loss)
    expected = [ad.value_and_grad(loss)(weights(seed), batch(seed)) for seed in range(3)]
    for seed in (0, 1, 2, 0):
        p, b = weights(seed), batch(seed)
        for array in (*p.values(), b.x, b.y):
            array.flags.writeable = False
        value, gradient = vg(p, b)
        assert value == expected[seed][0]
        assert all(gradient[name].tobytes() == expected[seed][1][name].tobytes() for name in p)
    assert len(vg._recordings) == 1


def test_parameters_are_read_in_place() -> None:
    """A parameter that changes in its memory is seen at the next call: no copy of it is kept."""
    p, vg = weights(), ad.value_and_grad(loss)
    before = vg(p, batch())[0]
    p["b2"] += np.arange(10, dtype=np.float32)
    assert vg(p, batch())[0] == ad.value_and_grad(loss)(p, batch())[0] != before


@pytest.mark.parametrize("shift", [1, 3, 7, 16, 1000])
def test_the_bits_do_not_depend_on_addresses(shift: int) -> None:
    """Parameters, batch and gradients at any multiple of 4 bytes give the same bits."""

    def moved(array: np.ndarray) -> np.ndarray:
        step = array.itemsize // 4
        room = np.zeros(array.size * step + shift * step, np.float32)
        copy = room[shift * step :].view(array.dtype) if array.itemsize == 4 else _at(array, shift)
        copy = copy[: array.size].reshape(array.shape)
        copy[...] = array
        return copy

    p, b = weights(), batch()
    value, gradient = ad.value_and_grad(loss)(p, b)
    out = {name: moved(array) for name, array in buffers(p).items()}
    vg = ad.value_and_grad(loss)
    assert vg({name: moved(a) for name, a in p.items()}, Batch(moved(b.x), moved(b.y)), out=out)[0] == value
    assert all(out[name].tobytes() == gradient[name].tobytes() for name in p)


def _at(array: np.ndarray, shift: int) -> np.ndarray:
    return np.zeros(array.size + shift, array.dtype)[shift:]


SCRIPT = """
import hashlib, sys
import numpy as np
from thalweg_worker import autodiff as ad

rng = np.random.default_rng(0)
held = [np.ones(int(sys.argv[1]) * i) for i in range(9)]  # so that the heap looks different
p = {name: rng.standard_normal((33, 33)).astype(np.float32) for name in ("a", "b", "c")}
loss = lambda p, k: ad.log_softmax(ad.dropout(ad.tanh(p["a"] @ p["b"]), 0.5, k) + ad.exp(p["c"] * p["a"])).mean()
value, gradient = ad.value_and_grad(loss)(p, np.array([1, 2, 3], np.uint64))
print(value.hex(), hashlib.sha256(b"".join(g.tobytes() for g in gradient.values())).hexdigest())
"""


def test_the_bits_do_not_depend_on_the_process() -> None:
    """Processes with other hash seeds and other heaps print the same bits."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(seed * 97 + 1)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in (1, 2)
    ]
    assert runs[0].stdout == runs[1].stdout != ""


def big_step(p: Params, b: Batch) -> ad.Tensor:
    """Every family of operations, on arrays of 64 kB and more."""
    image = ad.relu(ad.conv2d(b.x.reshape(32, 16, 16, 1), p["kernel"]))
    pooled = ad.average_pool2d(ad.max_pool2d(image)).reshape(32, -1)
    tokens = ad.embedding(p["table"], b.y)
    h = ad.layer_norm(pooled @ p["W"], p["scale"], p["bias"]) + tokens
    h = ad.dropout(ad.sigmoid(h) * ad.tanh(h), 0.5, b.key)
    h = ad.concatenate([h[:16], ad.where(h[16:] > 0.1, h[16:], -h[16:])])
    return ad.softmax_cross_entropy(h @ p["out"], b.y) + (h**2).mean() + ad.exp(-h.max(1)).mean()


def test_a_replay_allocates_no_array() -> None:
    """After the first call no array is allocated, whatever the operations, as a training step does them: bound.

    At most 24 kB are in use at a time beyond what was before: Python's objects, and NumPy's own buffers (18 kB in
    all with NumPy 2.2, 11 kB with 2.4).
    """
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 1, 16), "table": (64, 512), "W": (256, 512), "scale": 512, "bias": 512, "out": (512, 64)}
    p = {name: (rng.standard_normal(shape) * 0.1).astype(np.float32) for name, shape in shapes.items()}
    b = Batch(
        rng.standard_normal((32, 256)).astype(np.float32), rng.integers(0, 64, 32), np.array([1, 2, 3], np.uint64)
    )
    bound = ad.value_and_grad(big_step).bind(p, b, out=buffers(p))
    bound()
    tracemalloc.start()
    try:
        for _ in range(3):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            bound()
            assert tracemalloc.get_traced_memory()[1] - before < 24 * 1024
    finally:
        tracemalloc.stop()


def test_nothing_of_the_callers_is_held_after_a_call() -> None:
    """Parameters, batch and gradients can go once a call is over; a held view would keep shared memory mapped."""

    class Memory(np.ndarray):
        """An array that can be referred to weakly."""

    p, b, vg = weights(), batch(), ad.value_and_grad(loss)
    arrays = [a.view(Memory) for a in (*p.values(), b.x, b.y, *buffers(p).values())]
    names, seen = list(p), [weakref.ref(array) for array in arrays]
    vg(dict(zip(names, arrays[:4], strict=True)), Batch(*arrays[4:6]), out=dict(zip(names, arrays[6:], strict=True)))
    del arrays
    gc.collect()
    assert [array() for array in seen] == [None] * 10


def test_forward_results_last_until_the_next_call() -> None:
    """The arrays of a forward call are its own memory; a copy lasts."""
    double = ad.forward(lambda p, x: {"twice": (p["a"] * x, x), "name": "kept"})
    first = double({"a": np.full(2, 3.0)}, np.ones(2))
    assert (first["twice"][0].tolist(), first["twice"][1].tolist(), first["name"]) == ([3, 3], [1, 1], "kept")
    double({"a": np.full(2, 5.0)}, np.ones(2))
    assert first["twice"][0].tolist() == [5, 5]


def test_a_failed_replay_does_no_harm() -> None:
    """After an error in the middle of a replay the next call is right."""
    p, vg = weights(), ad.value_and_grad(loss)
    expected = vg(p, batch())[0]
    wrong = Batch(batch().x, np.full(12, 99))
    with pytest.raises(IndexError, match=r"\[0, 10\), found 99"):
        vg(p, wrong)
    assert vg(p, batch())[0] == expected


def test_overflow_gives_infinity_without_a_warning() -> None:
    """Non-finite values go through as IEEE 754 has them; who gets them decides (warnings are errors in these tests)."""
    value, gradient = ad.value_and_grad(lambda p: ad.exp(p["x"]).sum())({"x": np.array([1e4])})
    assert value == gradient["x"][0] == np.inf
