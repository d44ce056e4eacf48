from __future__ import annotations

import numpy as np
import pytest

from thalweg_worker.batch import Batch
from thalweg_worker.engines import emulated, make_engine

BATCH = Batch(x=np.zeros((4, 2), np.float32), y=np.zeros(4, np.int64))
SHAPES = {"b1": (3,), "W1": (2, 3), "W2": (3, 5)}


@pytest.fixture
def events(monkeypatch) -> list:
    """What the engine did, in order; it sleeps in no time."""
    happened: list = []
    monkeypatch.setattr(emulated, "sleep", lambda seconds: happened.append(("slept", seconds)))
    return happened


def arrays(value: float) -> dict[str, np.ndarray]:
    return {name: np.full(shape, value, np.float32) for name, shape in SHAPES.items()}


def test_a_microbatch_takes_as_long_as_it_is_told(events):
    """Each time, and nothing before it is called; its loss is 0."""
    gradient = make_engine("emulated", None, classify=True, emulated_ms=20.0).gradient(
        arrays(1.0), BATCH, weight=0.5, out=arrays(9.0)
    )
    assert events == []
    assert [gradient(), gradient()] == [0.0, 0.0]
    assert events == [("slept", 0.02)] * 2


def test_the_gradient_is_zeros_each_time(events):
    """Wherever something else was before; the parameters stay."""
    parameters, out = arrays(1.0), arrays(9.0)
    gradient = emulated.EmulatedEngine(0.0).gradient(parameters, BATCH, weight=1.0, out=out)
    for _ in range(2):
        gradient()
        assert not any(array.any() for array in out.values())
        out["W1"].fill(5.0)
    assert all((array == 1.0).all() for array in parameters.values())


def test_it_reads_before_it_computes_and_writes_from_the_last_layer_on(events):
    """All parameters to their end, then the time that it takes, then each gradient, told when it is written."""
    out = arrays(9.0)
    gradient = emulated.EmulatedEngine(0.5).gradient(
        arrays(1.0),
        BATCH,
        weight=1.0,
        out=out,
        before_read=lambda name, end: events.append(("read", name, end)),
        on_ready=lambda name, first: events.append(("ready", name, first, out[name].any())),
    )
    gradient()
    assert events == [
        ("read", "b1", 3),
        ("read", "W1", 6),
        ("read", "W2", 15),
        ("slept", 0.5),
        ("ready", "W2", 0, False),
        ("ready", "W1", 0, False),
        ("ready", "b1", 0, False),
    ]


def test_what_waits_for_parameters_may_end_the_step(events):
    """An error of the wait passes through, and nothing is computed."""

    def stop(name: str, end: int) -> None:
        raise InterruptedError

    gradient = emulated.EmulatedEngine(0.5).gradient(arrays(1.0), BATCH, weight=1.0, out=arrays(9.0), before_read=stop)
    with pytest.raises(InterruptedError):
        gradient()
    assert events == []


def test_an_evaluation_says_nothing(events):
    """No loss and no hits, in no time."""
    engine = emulated.EmulatedEngine(0.5)
    assert engine.evaluate(arrays(1.0), BATCH) == (0.0, -1)
    assert events == []
    assert engine.deterministic
