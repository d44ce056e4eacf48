"""An engine that computes nothing: it takes as long as it is told. What is left of a step is the system's own time."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep

from thalweg_worker.batch import Batch
from thalweg_worker.engines.protocol import Arrays, BeforeRead, Evaluation, OnReady


class EmulatedEngine:
    """Sleeps in place of forward and backward, then writes a gradient of zeros, in the order of a backward pass.

    seconds: for each microbatch
    """

    deterministic = True

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

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
        def emulate() -> float:
            if before_read is not None:
                for name, parameter in parameters.items():
                    before_read(name, parameter.size)
            sleep(self._seconds)
            for name in reversed(out):
                out[name].fill(0.0)
                if on_ready is not None:
                    on_ready(name, 0)
            return 0.0

        return emulate

    def evaluate(self, parameters: Arrays, batch: Batch) -> Evaluation:
        return Evaluation(0.0, -1)
