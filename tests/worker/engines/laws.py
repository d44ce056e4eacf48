"""What holds for the engine of any framework; `batch` and `source` to try it with."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.models import ModelSource, UserFile

CLASSES = DataSpec(input_shape=(5,), task="classification", classes=3)
NUMBERS = DataSpec(input_shape=(5,), task="regression")
Arrays = dict[str, np.ndarray]
Tried = tuple[Any, Arrays, Arrays]
"""An engine, parameters as a reader has them, and room for a gradient with NaN in it."""


def source(imports: str, text: str, **options: Any) -> ModelSource:
    """A user's file whose function is `build`."""
    return ModelSource(
        use="build",
        options=options,
        file=UserFile(path="/jobs/net.py", source=(imports + textwrap.dedent(text)).encode()),
    )


def batch(n: int = 6, spec: DataSpec = CLASSES, key: tuple[int, int, int] | None = (0, 0, 0)) -> Batch:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, *spec.input_shape)).astype(np.float32)
    y = rng.integers(0, 3, n) if spec.task == "classification" else rng.normal(size=n).astype(np.float32)
    return Batch(x, y, None if key is None else np.array(key, dtype=np.uint64))


def hooks_are_called(tried: Tried) -> list[str]:
    """Before each parameter is read, and before anything is written; and once for each gradient, when it is final.
    Returns the names in the order in which they were final."""
    engine, parameters, out = tried
    calls: list[str] = []

    def ready(name: str, first: int) -> None:
        assert first == 0
        assert np.isfinite(out[name]).all()
        calls.append(name)

    def read(name: str, end: int) -> None:
        assert end == parameters[name].size
        assert all(np.isnan(array).all() for array in out.values())
        calls.append(name)

    engine.gradient(parameters, batch(), weight=1.0, out=out, before_read=read, on_ready=ready)()
    count = len(parameters)
    assert sorted(calls[:count]) == sorted(calls[count:]) == sorted(parameters)
    return calls[count:]


def draws_follow_from_the_key(new: Callable[[], Tried], name: str) -> None:
    """What is random does: whatever was drawn between, and in another process's engine.

    new:  an engine of a model that drops out
    name: of a parameter whose gradient shows it
    """
    engine, parameters, out = new()
    results: dict[tuple[int, int, int], set[bytes]] = {}
    for key in ((0, 1, 2), (0, 1, 3), (0, 2, 2), (1, 1, 2), (0, 1, 2)):
        engine.gradient(parameters, batch(key=key), weight=1.0, out=out)()
        results.setdefault(key, set()).add(out[name].tobytes())
    assert all(len(found) == 1 for found in results.values())
    assert len(set.union(*results.values())) == 4
    other, same, room = new()
    other.gradient(same, batch(key=(0, 1, 2)), weight=1.0, out=room)()
    assert room[name].tobytes() in results[0, 1, 2]
