"""The engine of CuPy on a device that is none, with NumPy's arrays for CuPy's: what is copied, and when, against the
engine that copies nothing. What only CuPy can show is in tests/gpu."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.worker.engines.late import LateDevice
from tests.worker.engines.laws import CLASSES, batch, draws_follow_from_the_key, hooks_are_called

from thalweg_worker.engines import make_engine
from thalweg_worker.engines.cupy_engine import CupyEngine
from thalweg_worker.engines.staging import Staging
from thalweg_worker.models import generator, mlp


def trying(arriving: int | None = 1, hidden: int = 7, dropout: float = 0.0) -> Any:
    model = mlp.build(CLASSES, hidden=[hidden], dropout=dropout)
    parameters = model.init(generator(0))
    for array in parameters.values():
        array.flags.writeable = False
    out = {name: np.full_like(array, np.nan) for name, array in parameters.items()}
    device = LateDevice(arriving=arriving)
    return CupyEngine(model, Staging(device), classify=True), parameters, out, device, model


@pytest.mark.parametrize("arriving", [None, 1, 100])
def test_it_computes_the_same_bits_as_in_place(arriving):
    """Also of a matrix so large that its gradient is told of in parts: here it goes as a whole."""
    engine, parameters, out, device, model = trying(arriving, hidden=70_000)
    plain = make_engine("numpy", model, classify=True)
    expected = {name: np.empty_like(array) for name, array in out.items()}
    for samples in (batch(6), batch(9), batch(6)):
        for array in parameters.values():
            array.flags.writeable = True
            array *= np.float32(0.9)
            array.flags.writeable = False
        loss = engine.gradient(parameters, samples, weight=0.25, out=out)()
        assert loss == plain.gradient(parameters, samples, weight=0.25, out=expected)()
        assert all(np.array_equal(out[name], array) for name, array in expected.items())
        assert engine.evaluate(parameters, samples) == plain.evaluate(parameters, samples)
    assert device.fetched == []


def test_hooks_are_called_before_reading_and_once_the_bytes_are_there():
    assert len(hooks_are_called(trying(arriving=None)[:3])) == 4


def test_what_is_random_follows_from_seed_step_and_microbatch():
    draws_follow_from_the_key(lambda: trying(dropout=0.5)[:3], "output.weight")
