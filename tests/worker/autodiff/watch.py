"""The wire's end of a run, for tests: what comes late, and what leaves early.

Parameters that have not come yet hold something else, and so do gradients that may not be written yet: a run that reads
or writes too early is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from thalweg_worker import autodiff as ad
from thalweg_worker.autodiff import tiles
from thalweg_worker.batch import Batch

Params = dict[str, Any]
Marks = list[tuple[str, int]]


@contextmanager
def small_tiles() -> Iterator[None]:
    """Matrices of a few elements are cut, as else those of many are."""
    with pytest.MonkeyPatch.context() as patch:
        for constant in ("TILE", "ROWS", "TILE_ROWS", "BLOCK_ROWS", "UNCUT_MAX"):
            patch.setattr(tiles, constant, 1)
        yield


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def buffers(p: Params) -> Params:
    return {name: np.full_like(a, np.nan) for name, a in p.items()}


def same_bits(a: Params, b: Params) -> bool:
    return {name: array.tobytes() for name, array in a.items()} == {name: array.tobytes() for name, array in b.items()}


class Watch:
    """The wire's end of a run: brings what it asks for, and looks at what it tells of.

    asked: calls of before_read; each element of a parameter is `instead` until then
    told:  calls of on_ready
    """

    def __init__(self, p: Params, instead: float) -> None:
        self.asked: Marks = []
        self.told: Marks = []
        self.parameters = {name: np.full_like(array, instead) for name, array in p.items()}
        self.out = buffers(p)
        self._real = p
        self._came = dict.fromkeys(p, -1)
        self._then: list[np.ndarray] = []

    def before_read(self, name: str, end: int) -> None:
        assert self._came[name] < end <= self._real[name].size
        assert all(np.isnan(array).all() for array in self.out.values())
        self.parameters[name].reshape(-1)[:end] = self._real[name].reshape(-1)[:end]
        self._came[name] = end
        self.asked.append((name, end))

    def on_ready(self, name: str, first: int) -> None:
        assert self._came == {name: array.size for name, array in self._real.items()}
        self.told.append((name, first))
        self._then.append(self.out[name].reshape(-1)[first:].copy())

    def check(self) -> None:
        """What was told of was final; each gradient was told of from its end on, in the end as a whole."""
        first_of = {name: array.size + 1 for name, array in self.out.items()}
        for (name, first), then in zip(self.told, self._then, strict=True):
            assert 0 <= first < first_of[name]
            first_of[name] = first
            assert then.tobytes() == self.out[name].reshape(-1)[first:].tobytes(), (name, first)
        assert set(first_of.values()) == {0}


def watched(fn: Callable[..., ad.Tensor], p: Params, *args: Any) -> Watch:
    """A bound run with hooks, which must have the bits of one without and of a call."""
    vg, plain = ad.value_and_grad(fn), buffers(p)
    value = vg.bind(p, *args, out=plain)()
    assert same_bits(vg(p, *args)[1], plain)
    for instead in (np.nan, 7.0):
        watch = Watch(p, instead)
        bound = vg.bind(watch.parameters, *args, out=watch.out, on_ready=watch.on_ready, before_read=watch.before_read)
        np.testing.assert_equal(bound(), value)
        assert same_bits(watch.out, plain)
        watch.check()
    return watch


def perceptron(p: Params, batch: Batch) -> ad.Tensor:
    hidden = ad.relu(batch.x @ p["W1"] + p["b1"])
    hidden = ad.relu(hidden @ p["W2"] + p["b2"])
    return ad.softmax_cross_entropy(hidden @ p["W3"] + p["b3"], batch.y)


def perceptron_parameters() -> Params:
    shapes = {"W1": (600, 512), "W2": (512, 512), "W3": (512, 10)}
    weights = {name: floats(*shape, seed=i) * np.float32(0.05) for i, (name, shape) in enumerate(shapes.items())}
    return weights | {f"b{i}": floats(n, seed=3 + i) for i, n in ((1, 512), (2, 512), (3, 10))}


def samples(*shape: int) -> Batch:
    return Batch(floats(*shape, seed=9), np.arange(shape[0]) % 7, np.array([1, 2, 3], np.uint64))
