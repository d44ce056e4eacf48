"""One code path for NumPy and CuPy, checked without a GPU.

A stand-in named `cupy` computes with NumPy and is as strict as CuPy where it matters here: its functions refuse NumPy's
arrays, and NumPy's functions refuse its arrays. So a call that does not go through the namespace fails. What only real
CuPy can show is in tests/gpu/test_autodiff_cupy.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch


class Strict(np.ndarray):
    """The stand-in for cupy.ndarray."""

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> Any:
        raise TypeError(f"numpy.{ufunc.__name__} was called with an array of CuPy's")

    def __array_function__(self, func: Any, *_: Any, **__: Any) -> Any:
        raise TypeError(f"numpy.{func.__name__} was called with an array of CuPy's")

    def set(self, values: np.ndarray) -> None:
        assert type(values) is np.ndarray
        plain(self)[...] = values

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:  # type: ignore[override]  # CuPy's signature
        return given(plain(self).sum(axis, dtype, plain(out), keepdims))

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:  # type: ignore[override]  # CuPy's signature
        return given(plain(self).max(axis, plain(out), keepdims))

    def take(self, indices: Any, axis: Any = None, out: Any = None) -> Any:  # type: ignore[override]  # CuPy's signature
        return given(plain(self).take(plain(indices), axis, plain(out)))

    def fill(self, value: Any) -> None:
        plain(self).fill(plain(value))


Strict.__module__ = "cupy"


def plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(plain(part) for part in value)
    return value.view(np.ndarray) if isinstance(value, Strict) else value


def given(value: Any) -> Any:
    return np.asarray(value).view(Strict)


class StandIn(ModuleType):
    """The stand-in for the module: a function of NumPy's under each name."""

    ndarray = Strict

    def __init__(self) -> None:
        super().__init__("cupy")
        self.called: set[str] = set()
        self.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=self.as_strided))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(np, name)

        def call(*args: Any, **options: Any) -> Any:
            self.called.add(name)
            for value in (*args, *options.values()):
                assert type(value) is not np.ndarray, f"cupy.{name} was called with an array of NumPy's"
            return given(function(*plain(args), **{key: plain(value) for key, value in options.items()}))

        return call

    def asarray(self, value: Any, dtype: Any = None) -> Any:
        return given(np.array(plain(value), dtype))

    def as_strided(self, array: Any, shape: Any, strides: Any) -> Any:
        return given(np.lib.stride_tricks.as_strided(plain(array), shape, strides))


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module, extension = StandIn(), ModuleType("cupyx")
    extension.scatter_add = lambda a, i, v: np.add.at(plain(a), plain(i), plain(v))  # type: ignore[attr-defined]  # a stand-in
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupyx", extension)
    return module


def everything(p: dict[str, Any], b: Batch) -> ad.Tensor:
    """Every family of operations."""
    h = ad.relu(ad.conv2d(b.x, p["kernel"]))
    h = ad.average_pool2d(ad.max_pool2d(h), 2, 1).reshape(4, -1)
    h = ad.layer_norm(h @ p["W"], p["scale"], p["bias"]) + ad.embedding(p["table"], b.y)
    h = ad.dropout(ad.sigmoid(h) * ad.tanh(h / 2), 0.3, b.key)
    h = ad.concatenate([h[:2], ad.where(h[2:] > 0, h[2:], -h[2:])])
    h = h + ad.sqrt(ad.exp(h)) - ad.log(h**2 + 1.0) + h[[3, 2, 1, 0]] + h[[0, 1, 2, 3], :][:, ::-1].max(1, True)
    loss = ad.softmax_cross_entropy(h @ p["W"].T, b.y) + ad.mean_squared_error(h, h.mean(0) * np.ones((4, 1)))
    return loss + ad.log_softmax(h).sum() * 0.01 + (h[[0, 1], [1, 2]] ** 3).sum() + p["table"].sum() * 1e-3


def arguments() -> tuple[dict[str, np.ndarray], Batch]:
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 1, 2), "W": (8, 5), "scale": 5, "bias": 5, "table": (6, 5)}
    p = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return p, Batch(rng.standard_normal((4, 7, 7, 1)), rng.integers(0, 6, 4), np.array([1, 2, 3], np.uint64))


def test_all_operations_go_through_the_namespace(cupy: StandIn) -> None:
    """On arrays of CuPy's only CuPy's functions are called, and the bits are NumPy's."""
    p, b = arguments()
    value, gradient = ad.value_and_grad(everything)(p, b)
    vg = ad.value_and_grad(everything)
    on_gpu = {name: given(array.copy()) for name, array in p.items()}
    for _ in range(2):
        found, gradients = vg(on_gpu, b)
        assert found == value
        assert all(plain(gradients[name]).tobytes() == gradient[name].tobytes() for name in p)
    assert {"matmul", "dot", "copyto", "add", "maximum", "concatenate", "empty"} <= cupy.called


def test_a_function_keeps_the_recordings_of_both_apart(cupy: StandIn) -> None:
    """The same function may be called with arrays of either."""
    p, b = arguments()
    vg = ad.value_and_grad(everything)
    assert vg(p, b)[0] == vg({name: given(array) for name, array in p.items()}, b)[0] == vg(p, b)[0]
    assert len(vg._recordings) == 2


def test_cupy_is_not_imported_for_numpy_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CuPy installed everything works on NumPy arrays."""
    monkeypatch.setitem(sys.modules, "cupy", None)  # an import of it would raise
    ad.value_and_grad(everything)(*arguments())
