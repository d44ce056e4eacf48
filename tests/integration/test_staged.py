"""Whole runs whose workers compute on devices that are none: what is staged comes to the bits of what is not.

The engine is CuPy's on NumPy's arrays, which computes as NumPy's does; the device copies late, in an order of its own.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
import pytest
from tests.integration.local_run import CLASSES, FEATURES, Engine, Killed, train_locally
from tests.worker.engines.late import LateDevice

from thalweg_proto.shared_memory import CHUNK
from thalweg_worker.batch import DataSpec
from thalweg_worker.engines.cupy_engine import CupyEngine
from thalweg_worker.engines.staging import Staging
from thalweg_worker.models import ModelSource

# Long enough for several chunks, which are on the wire while the rest is computed.
WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
SPEC = DataSpec(input_shape=(FEATURES,), task="classification", classes=CLASSES)


def staged(stays: bool, arriving: int | None = 2) -> Any:
    """What makes a worker's engine into one on such a device."""

    def make(_: Any) -> CupyEngine:
        model = ModelSource(**WIDE).build(SPEC)
        return CupyEngine(model, Staging(LateDevice(arriving=arriving), stays=stays), classify=True)

    return make


def train(**options: Any) -> Any:
    run = train_locally(model=WIDE, of_server={"block": CHUNK}, **options)
    assert (run.result.error, run.worker_errors) == (None, [])
    return run


@cache
def in_place() -> Any:
    """Of one worker that copies nothing."""
    return came_to(train(workers=1, eval_every=5))


def came_to(run: Any) -> Any:
    """The final bits, and what was told on the way."""
    return run.result.weights_sha256, [(row.step, row.train_loss, row.evaluation) for row in run.rows]


@pytest.mark.parametrize("arriving", [None, 1, 100])
@pytest.mark.parametrize("workers", [1, 3, [1], [1, 1], [2, 1]], ids=repr)
def test_staged_runs_have_the_bits_of_those_in_place(workers, arriving):
    """Where workers meet, and where parameters and gradients travel in parts; evaluations fall between the steps, and
    all microbatches of a step share what is on the device."""
    assert came_to(train(workers=workers, eval_every=5, engine=staged(True, arriving))) == in_place()


@pytest.mark.parametrize("step", [0, 7])
def test_others_take_over_what_a_dead_worker_had_on_its_device(step):
    """The worker dies after its gradient was computed; the others compute it again, to the same bits."""
    once = threading.Event()

    class Dying(Engine):
        def after(self, at: int, microbatch: int, loss: float, out: Any) -> float:
            if (at, microbatch) == (step, 2) and not once.is_set():
                once.set()
                next(iter(out.values()))[...] = np.nan
                raise Killed
            return loss

    run = train(workers=3, eval_every=5, engine=lambda engine: Dying(staged(True)(engine)))
    assert once.is_set()
    assert came_to(run) == in_place()


@pytest.mark.parametrize("mode", [{"consistency": "async"}, {"local_steps": 2}], ids=repr)
def test_other_modes_bring_the_parameters_that_a_worker_has_copied(mode):
    """One worker alone, whose order is its own, has the bits of one in place: without waiting each microbatch has new
    parameters, in a round of local steps each step has."""
    stays = "local_steps" in mode
    runs = [train(workers=[1], **mode), train(workers=[1], engine=staged(stays), **mode)]
    assert runs[0].result.weights_sha256 == runs[1].result.weights_sha256
