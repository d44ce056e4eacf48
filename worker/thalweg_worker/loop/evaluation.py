"""Evaluating a worker's part of the held-out set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from thalweg_proto.messages import Evaluated
from thalweg_worker.batches import evaluation_batch
from thalweg_worker.datasets import Samples
from thalweg_worker.engines.protocol import Arrays, GradientEngine


class Listener(Protocol):
    """Who puts the chunks together: a server, at the other end of a connection."""

    def evaluated(self, message: Evaluated) -> None:
        """Takes what one chunk came to."""
        ...


def evaluate(
    listener: Listener,
    engine: GradientEngine,
    parameters: Arrays,
    held_out: Samples,
    version: int,
    chunks: range,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Tells `listener` what each of `chunks` came to with `parameters`, which are `version`.

    before: called before each chunk
    """
    for chunk in chunks:
        before()
        batch = evaluation_batch(held_out, chunk)
        loss_sum, correct = engine.evaluate(parameters, batch)
        listener.evaluated(Evaluated(version, chunk, batch.y.size, correct, loss_sum))
