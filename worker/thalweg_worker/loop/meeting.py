"""A step where the workers of one host meet: sample, forward, backward, push; then a share of sum, update, publish."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np

from thalweg_proto.board import Outcome
from thalweg_proto.messages import StepRecord
from thalweg_proto.shared_memory import PERIOD
from thalweg_worker.batches import BatchSource
from thalweg_worker.datasets import Samples
from thalweg_worker.engines.protocol import GradientEngine
from thalweg_worker.exchange.meeting import MeetingExchange
from thalweg_worker.ledger import Ledger
from thalweg_worker.loop.evaluation import evaluate
from thalweg_worker.sampler import Sampler


def run(
    exchange: MeetingExchange,
    engine: GradientEngine,
    sampler: Sampler,
    training: Samples,
    held_out: Samples | None,
    ledger: Ledger | None = None,
) -> None:
    """Computes the microbatches of this worker, step after step, until there is nothing more to train."""
    # What is not finite is found and named at the update; NumPy's warnings would come first and say less.
    with np.errstate(all="ignore"):
        _Loop(exchange, engine, sampler, training, held_out, ledger).run()


class _Loop:
    def __init__(
        self,
        exchange: MeetingExchange,
        engine: GradientEngine,
        sampler: Sampler,
        training: Samples,
        held_out: Samples | None,
        ledger: Ledger | None,
    ) -> None:
        self._exchange = exchange
        self._engine = engine
        self._held_out = held_out
        self._source = BatchSource(training, sampler, ledger=ledger)
        self._weights = [sampler.size(m) / sampler.batch_size for m in range(sampler.microbatches)]
        self._gradients: dict[tuple[int, int], Callable[[], float]] = {}
        self._computed = 0
        self._sample_s = self._compute_s = 0.0

    def run(self) -> None:
        exchange = self._exchange
        while exchange.meet():
            self._source.expect(exchange.microbatches)
            if exchange.moved:
                self._gradients.clear()
            if self._train():
                exchange.idle()
                exchange.connection.leave()
        exchange.connection.leave()

    def _train(self) -> bool:
        """Until there is nothing more to train; False where the server calls before that."""
        board = self._exchange.board
        while True:
            if board.evaluate:
                self._evaluate(board.version)
            if board.outcome is not Outcome.TRAIN:
                break
            if not self._step(board.version):
                return False
        if board.outcome is Outcome.NOT_FINITE:
            self._restore()
        return True

    def _step(self, step: int) -> bool:
        """One step; False where the server calls."""
        exchange, board = self._exchange, self._exchange.board
        self._computed = 0
        self._compute_s = self._sample_s = 0.0
        begin = perf_counter()
        self._source.begin(step, exchange.microbatches)
        for taken in (exchange.take, exchange.arrive):
            for some in taken():
                self._compute_all(step, some)
        going = exchange.complete(meanwhile=partial(self._draw_ahead, step + 1))
        if going and board.version > step:
            waited_s = perf_counter() - begin - self._sample_s - self._compute_s - exchange.push_s
            exchange.faults.at("push.acknowledged", step)
            exchange.connection.tell(
                StepRecord(
                    rank=exchange.rank,
                    microbatches=self._computed,
                    step=step,
                    loss=board.loss,
                    gradient_norm=board.gradient_norm,
                    published_s=board.published_s,
                    sample_s=self._sample_s,
                    compute_s=self._compute_s,
                    push_s=exchange.push_s,
                    wait_s=waited_s,
                    apply_s=exchange.apply_s,
                )
            )
        return going

    def _compute_all(self, step: int, some: list[int]) -> None:
        try:
            for m in some:
                self._compute(step, m)
        except Exception:
            # On parameters of several versions any model may fail; what it came to is not asked for.
            if not self._exchange.left_out:
                raise

    def _compute(self, step: int, microbatch: int) -> None:
        begin = perf_counter()
        self._source.take(step, microbatch)
        drawn = perf_counter()
        self._exchange.computed(microbatch, self._gradient(step, microbatch)())
        self._sample_s += drawn - begin
        self._compute_s += perf_counter() - drawn
        self._computed += 1

    def _gradient(self, step: int, microbatch: int) -> Callable[[], float]:
        """Forward and backward of a microbatch, on the buffers of a step; asked for once for each of these."""
        key = (step % PERIOD, microbatch)
        if key not in self._gradients:
            exchange = self._exchange
            self._gradients[key] = self._engine.gradient(
                exchange.parameters(step),
                self._source.batch(microbatch),
                weight=self._weights[microbatch],
                out=exchange.gradient(step, microbatch),
            )
        return self._gradients[key]

    def _draw_ahead(self, step: int) -> None:
        """Draws the first samples of `step`, the next one, in time that would be waited away."""
        begin = perf_counter()
        if self._exchange.microbatches:
            self._source.draw_early(step, self._exchange.microbatches[0])
        self._sample_s += perf_counter() - begin

    def _evaluate(self, version: int) -> None:
        assert self._held_out is not None  # else nothing would be evaluated
        exchange = self._exchange
        evaluate(
            exchange.connection,
            self._engine,
            exchange.parameters(version),
            self._held_out,
            version,
            exchange.chunks,
            before=exchange.busy,
        )

    def _restore(self) -> None:
        """Computes those gradients again that the update overwrote: the server looks for what went wrong in the
        gradients."""
        step, exchange = self._exchange.board.version, self._exchange
        for m in exchange.microbatches:
            if m in exchange.overwritten:
                self._source.draw(step, m)
                self._gradient(step, m)()
