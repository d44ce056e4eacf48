"""The worker's side of a step: sample, forward, backward, push; then wait for the next version."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from thalweg_proto.messages import Evaluated, Publish, Push
from thalweg_worker.batches import BatchSource, evaluation_batch
from thalweg_worker.datasets import Dataset
from thalweg_worker.engines.protocol import GradientEngine
from thalweg_worker.exchange import Exchange
from thalweg_worker.sampler import Sampler


def run(
    exchange: Exchange, engine: GradientEngine, sampler: Sampler, training: Dataset, held_out: Dataset | None
) -> None:
    """Computes the microbatches of this worker, step after step, until the server says stop."""
    # The server finds and names what is not finite; NumPy's warnings would come first and say less.
    with np.errstate(all="ignore"):
        _run(exchange, engine, sampler, training, held_out)


def _run(
    exchange: Exchange, engine: GradientEngine, sampler: Sampler, training: Dataset, held_out: Dataset | None
) -> None:
    source = BatchSource(training, sampler, exchange.microbatches)
    weights = {m: sampler.size(m) / sampler.batch_size for m in exchange.microbatches}
    sample_s = push_s = wait_s = 0.0
    message = exchange.receive()
    while isinstance(message, Publish):
        step = message.version
        parameters = exchange.parameters(step)
        if message.evaluate and held_out is not None:
            _evaluate(exchange, engine, held_out, step)
        if message.train:
            mark = perf_counter()
            for m in exchange.microbatches:
                batch = source.draw(step, m)
                drawn = perf_counter()
                loss = engine.gradient(parameters, batch, weight=weights[m], out=exchange.gradient(m))
                computed = perf_counter()
                times = (sample_s + drawn - mark, computed - drawn, push_s, wait_s)
                exchange.push(Push(exchange.rank, message.generation, step, m, loss, *times))
                mark, sample_s, push_s, wait_s = computed, 0.0, 0.0, 0.0
            exchange.flush()
            flushed = perf_counter()
            # While the server waits for the others, sums and updates, the next samples are drawn.
            source.prepare(step + 1, exchange.microbatches[0])
            push_s, sample_s = flushed - mark, perf_counter() - flushed
        waiting = perf_counter()
        message = exchange.receive()
        wait_s = perf_counter() - waiting


def _evaluate(exchange: Exchange, engine: GradientEngine, held_out: Dataset, version: int) -> None:
    parameters = exchange.parameters(version)
    for chunk in exchange.chunks:
        batch = evaluation_batch(held_out, chunk)
        loss_sum, correct = engine.evaluate(parameters, batch)
        exchange.evaluated(Evaluated(version, chunk, len(batch.x), correct, loss_sum))
