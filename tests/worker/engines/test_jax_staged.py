"""The engine of JAX on another device than the one that JAX takes by itself: of the CPU, too, it can have several."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.compare

TWO_DEVICES = """
import numpy as np
import jax
from tests.worker.engines.laws import CLASSES, batch, draws_follow_from_the_key, hooks_are_called, source
from tests.worker.engines.test_jax_engine import IMPORTS, NET
from thalweg_worker.engines import jax_model, make_engine, model_for
from thalweg_worker.engines.jax_cuda import JaxDevice
from thalweg_worker.engines.jax_engine import JaxEngine
from thalweg_worker.engines.staging import Staging
from thalweg_worker.models import initial_parameters

assert len(jax.devices()) == 2


def trying(rate=0.0, stays=False):
    model = model_for("jax", source(IMPORTS, NET, rate=rate), CLASSES, 0)
    parameters = initial_parameters(model, 0)
    memory = Staging(JaxDevice(jax.devices()[1]), stays=stays)
    out = {name: np.full_like(array, np.nan) for name, array in parameters.items()}
    return JaxEngine(model, memory), parameters, out, memory, make_engine("jax", model, classify=True)


engine, parameters, out, memory, plain = trying()
expected = {name: np.empty_like(array) for name, array in out.items()}
for samples in (batch(6), batch(9), batch(6)):
    for array in parameters.values():
        array *= np.float32(0.9)  # what JAX was given before, it may not have kept
    loss = engine.gradient(parameters, samples, weight=0.25, out=out)()
    np.testing.assert_equal(loss, plain.gradient(parameters, samples, weight=0.25, out=expected)())
    for name, array in expected.items():
        np.testing.assert_array_equal(out[name], array)
    assert engine.evaluate(parameters, samples) == plain.evaluate(parameters, samples)
values = [*memory.reader(parameters)(None, None).values(), *memory.batch(samples)()]
assert all(value.devices() == {jax.devices()[1]} for value in values)
assert len(hooks_are_called(trying()[:3])) == 4
draws_follow_from_the_key(lambda: trying(rate=0.5)[:3], "layers.1.kernel")

engine, parameters, out, memory, _ = trying(stays=True)
first = engine.gradient(parameters, batch(key=(0, 4, 0)), weight=1.0, out=out)()
kept = {name: array.copy() for name, array in parameters.items()}
for array in parameters.values():
    array[...] = 0.0  # nobody does that within a step; so it shows that they are not copied again
assert engine.gradient(parameters, batch(key=(0, 4, 1)), weight=1.0, out=out)() == first
assert engine.gradient(parameters, batch(key=(0, 5, 0)), weight=1.0, out=out)() != first
print("all of it")
"""


def test_on_another_device_it_computes_the_same_bits_as_in_place():
    """Gradients and evaluations, with parameters that change; hooks and draws are as elsewhere; within a step
    parameters stay. In a process of its own: how many devices there are JAX asks once."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "all of it\n", done.stderr
