"""Evaluating a worker's part of the held-out set."""

from __future__ import annotations

from collections.abc import Callable

from thalweg_proto.messages import Evaluated
from thalweg_worker.batches import evaluation_batch
from thalweg_worker.datasets import Dataset
from thalweg_worker.engines.protocol import Arrays, GradientEngine
from thalweg_worker.exchange.connection import Connection


def evaluate(
    connection: Connection,
    engine: GradientEngine,
    parameters: Arrays,
    held_out: Dataset,
    version: int,
    chunks: range,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Tells the server what each of `chunks` came to with `parameters`, which are `version`.

    before: called before each chunk
    """
    for chunk in chunks:
        before()
        batch = evaluation_batch(held_out, chunk)
        loss_sum, correct = engine.evaluate(parameters, batch)
        connection.evaluated(Evaluated(version, chunk, len(batch.x), correct, loss_sum))
