"""The server's side of a step: sum, update, publish.

The way of a step, in `Server.serve`:

    publish version t  ->  pushes of all microbatches come in  ->  sum them, apply the rule, write version t + 1
          ^                                                                                        |
          '----------------------------------------------------------------------------------------'

Rules:
  - Version t + 1 goes into the buffer that held version t - 1, which nobody reads any more: every worker has pushed
    step t, so all of them have version t.
  - Nothing that is not finite is ever published: the run stops, and version t stays whole.
  - The last version is not trained on; where there is a held-out set, it is always evaluated.
"""

from __future__ import annotations

import math
import threading
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.consistency import Sync, Verdict
from thalweg_cluster.rules import make_rule
from thalweg_cluster.schedules import make_schedule
from thalweg_cluster.server.door import Door
from thalweg_cluster.server.evaluation import EvaluationGate, EvaluationResult
from thalweg_cluster.server.nonfinite import describe_non_finite
from thalweg_cluster.server.spec import Row, RunResult, ServerSpec, Snapshot
from thalweg_cluster.server.telemetry import Telemetry
from thalweg_cluster.summation import tree_sum_scalars
from thalweg_cluster.update import UpdatePass
from thalweg_proto import messages
from thalweg_proto.errors import NonFiniteError, ProtocolError, ServerError, ThalwegError
from thalweg_proto.messages import Evaluated, Publish
from thalweg_proto.shared_memory import FLOAT_BYTES, create_segment, map_segment

ROWS = 100
"""Lines of metrics.jsonl in a run, evaluations not counted."""
WARM_UP_STEPS = 10
"""Left out of samples_per_s: caches, clocks and buffers are still cold."""


class Server:
    """Holds the parameters and the rule's state of one job; `serve` runs it from the first step to the last."""

    def __init__(self, spec: ServerSpec, initial: NDArray[np.float32]) -> None:
        """Takes the memory, listens, and copies `initial` (flat, shape (layout.size,)) into version 0.

        Raises OSError where /dev/shm has no room.
        """
        size, v = spec.layout.size, spec.microbatches
        self._spec = spec
        segments = (create_segment(2 * size * FLOAT_BYTES), create_segment(v * size * FLOAT_BYTES))
        self._parameters = map_segment(segments[0], 2, size, writable=True)
        self._gradients = map_segment(segments[1], v, size, writable=True)
        self._parameters[0] = initial
        self._rule = make_rule(spec.rule, spec.rule_options)
        self._schedule = make_schedule(spec.schedule, spec.steps)
        self._update = UpdatePass(
            parameters=self._parameters,
            gradients=self._gradients,
            rule=self._rule,
            clip_norm=spec.clip_norm,
            threads=spec.threads,
        )
        self._policy = Sync(v)
        self._gate = EvaluationGate(spec.chunks)
        self._weights = [  # share of each microbatch in the batch
            ((m + 1) * spec.batch_size // v - m * spec.batch_size // v) / spec.batch_size for m in range(v)
        ]
        self.telemetry = Telemetry(
            workers=spec.workers,
            batch_size=spec.batch_size,
            bytes_pushed=size * FLOAT_BYTES,
            bytes_published=size * FLOAT_BYTES,
        )
        self._rows: list[Row] = []
        self._row_every = max(1, spec.steps // ROWS)
        self._changed = threading.Condition()  # guards _rows and _running
        self._running = True
        self._evaluation: EvaluationResult | None = None
        self._began = self._published = self._warm = 0.0  # perf_counter of version 0, the newest, the tenth
        self._door = Door(
            spec.address,
            job_id=spec.job_id,
            layout=spec.layout,
            workers=spec.workers,
            microbatches=v,
            chunks=spec.chunks,
            generation=self._policy.generation,
            segments=segments,
        )

    # The step

    def serve(self) -> RunResult:
        """Runs the job to its end, to `stop`, or to a failure, which the result then names."""
        error = None
        try:
            self._serve()
        except ThalwegError as failure:
            error = str(failure)
        finally:
            self._door.broadcast(messages.pack_stop())
            self._door.close()
            self._update.close()
            with self._changed:
                self._running = False
                self._changed.notify_all()
        return self._result(error)

    def _serve(self) -> None:
        while not self._door.full and not self._door.interrupted:
            for _ in self._door.receive():
                raise ServerError("a worker spoke before all had joined")
            self.telemetry.joined = self._door.joined
        self._began = self._published = self._warm = perf_counter()
        self._publish(0)
        while not self._door.interrupted and not self._finished:
            for rank, record in self._door.receive():
                self._on_record(rank, record)

    @property
    def _finished(self) -> bool:
        return self._policy.step >= self._spec.steps and self._gate.wanted is None

    def _on_record(self, rank: int, record: bytes) -> None:
        message = messages.unpack_from_worker(record)
        if isinstance(message, Evaluated):
            self._on_evaluated(message)
            return
        for push in message:
            if push.rank != rank:
                raise ProtocolError(f"expected a push of worker {rank}; found one of worker {push.rank}")
            verdict = self._policy.on_push(push)
            self.telemetry.judged(verdict)
        self.telemetry.heard(record)
        if self._policy.complete:
            self._step()

    def _on_evaluated(self, message: Evaluated) -> None:
        result = self._gate.on_evaluated(message)
        if result is not None:
            self._evaluation = result
            self.telemetry.evaluation_loss = result.loss
            self.telemetry.evaluation_accuracy = math.nan if result.accuracy is None else result.accuracy
            self._add_row(message.version, result)

    def _step(self) -> None:
        """Sums the gradients of the step, applies the rule, publishes the new version."""
        step = self._policy.step
        learning_rate = self._schedule(step)
        row_due = (step + 1) % self._row_every == 0
        weighted = [self._weights[m] * self._policy.losses[m] for m in range(self._spec.microbatches)]
        loss = tree_sum_scalars(weighted)
        begin = perf_counter()
        if not math.isfinite(loss):
            raise self._non_finite(step, learning_rate)
        result = self._update.run(step=step, learning_rate=learning_rate, want_norm=row_due)
        if not result.finite:
            raise self._non_finite(step, learning_rate)
        applied = perf_counter()
        self._policy.advance()
        self._publish(step + 1)
        now = perf_counter()
        if result.gradient_norm is not None:
            self.telemetry.gradient_norm = result.gradient_norm
        self.telemetry.stepped(now - self._published, applied - begin, loss, learning_rate)
        self._published = now
        if step + 1 == WARM_UP_STEPS:
            self._warm = now
        if row_due and not self._evaluates(step + 1):
            self._add_row(step + 1, None)

    def _publish(self, version: int) -> None:
        evaluate = self._evaluates(version)
        if evaluate:
            self._gate.begin(version)
        publish = Publish(self._policy.generation, version, version < self._spec.steps, evaluate)
        self._door.broadcast(messages.pack_publish(publish))

    def _evaluates(self, version: int) -> bool:
        spec = self._spec
        due = version == spec.steps or (version > 0 and spec.eval_every > 0 and version % spec.eval_every == 0)
        return due and spec.chunks > 0

    def _non_finite(self, step: int, learning_rate: float) -> NonFiniteError:
        where = describe_non_finite(self._spec.layout, self._gradients, self._policy.losses)
        return NonFiniteError(
            f"step {step}: {where}; the learning rate was {learning_rate:g}. Nothing of this step was published. "
            f"Lower optimizer.learning_rate, or set optimizer.clip_norm or optimizer.warmup_steps."
        )

    # What others read, from other threads

    def stop(self) -> None:
        """Ends the run after the version that is published now; `serve` returns with `cancelled`."""
        self._door.interrupt()

    def watch(self, rows_seen: int, timeout_s: float) -> Snapshot:
        """The state of the run; blocks until there is a row after the first `rows_seen`, the end, or the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._rows) > rows_seen or not self._running, timeout_s)
            rows, running = tuple(self._rows[rows_seen:]), self._running
        return Snapshot(
            step=self.telemetry.steps,
            joined=self.telemetry.joined,
            loss=_known(self.telemetry.loss),
            samples_per_s=self._samples_per_s(),
            rows=rows,
            running=running,
        )

    def weights(self) -> NDArray[np.float32]:
        """The newest version, flat, shape (layout.size,); valid after `serve` returned."""
        newest: NDArray[np.float32] = self._parameters[self._policy.step % 2]
        return newest

    def _samples_per_s(self) -> float:
        steps = self.telemetry.steps
        began, counted = (self._warm, steps - WARM_UP_STEPS) if steps > WARM_UP_STEPS else (self._began, steps)
        return counted * self._spec.batch_size / (self._published - began) if counted else 0.0

    def _add_row(self, version: int, evaluation: EvaluationResult | None) -> None:
        row = Row(
            step=version,
            time_s=perf_counter() - self._began,
            train_loss=_known(self.telemetry.loss),
            learning_rate=_known(self.telemetry.learning_rate),
            gradient_norm=_known(self.telemetry.gradient_norm),
            samples_per_s=self._samples_per_s(),
            evaluation=evaluation._asdict() if evaluation else None,
        )
        with self._changed:
            self._rows.append(row)
            self._changed.notify_all()

    def _result(self, error: str | None) -> RunResult:
        telemetry = self.telemetry
        return RunResult(
            error=error,
            cancelled=error is None and not self._finished,
            steps=telemetry.steps,
            train_s=self._published - self._began,
            samples_per_s=self._samples_per_s(),
            step_ms=telemetry.step_ms(),
            phase_ms=telemetry.phase_means_ms(),
            train_loss=_known(telemetry.loss),
            evaluation=self._evaluation._asdict() if self._evaluation else None,
            duplicates=telemetry.pushes(Verdict.DUPLICATE),
            weights_sha256=self._spec.layout.sha256(self.weights()),
        )


def _known(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(value) else value
