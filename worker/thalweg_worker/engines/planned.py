"""Faults that are planned at a gradient: before it is computed, and after it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from thalweg_proto.faults import NAN, Faults
from thalweg_worker.batch import Batch
from thalweg_worker.engines.protocol import Arrays, BeforeRead, Evaluation, GradientEngine, OnReady


def with_faults(engine: GradientEngine, faults: Faults) -> GradientEngine:
    """`engine`, with what is planned for its worker; itself where nothing is."""
    return _PlannedEngine(engine, faults) if faults.plans("gradient.") else engine


class _PlannedEngine:
    def __init__(self, engine: GradientEngine, faults: Faults) -> None:
        self.deterministic = engine.deterministic
        self._engine = engine
        self._faults = faults
        self._spoilt: set[tuple[int, int]] = set()  # steps and microbatches: computed again they are NaN again

    def gradient(
        self,
        parameters: Arrays,
        batch: Batch,
        *,
        weight: float,
        out: Arrays,
        before_read: BeforeRead | None = None,
        on_ready: OnReady | None = None,
    ) -> Callable[[], float]:
        # Nothing is said to be final before it is known whether it stays what it is.
        compute = self._engine.gradient(parameters, batch, weight=weight, out=out, before_read=before_read)
        assert batch.key is not None  # it is None where the model is evaluated
        key = batch.key

        def gradient() -> float:
            step, microbatch = key[1:].tolist()
            self._faults.at("gradient.before", step)
            loss = compute()
            if self._faults.at("gradient.after", step).do == NAN:
                self._spoilt.add((step, microbatch))
            if (step, microbatch) in self._spoilt:
                for array in out.values():
                    array.fill(np.nan)
            if on_ready is not None:
                for name in reversed(out):
                    on_ready(name, 0)
            return loss

        return gradient

    def evaluate(self, parameters: Arrays, batch: Batch) -> Evaluation:
        return self._engine.evaluate(parameters, batch)
