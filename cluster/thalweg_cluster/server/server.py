"""The server of one host: it owns the memory of the parameters, lets the workers in, and keeps the account of the run.

The way of a step does not pass through its process. The workers meet, sum, update and publish on its behalf, in its
memory (step.py), since they would only wait while it did; it sleeps until they have something to tell:

    all workers have joined -> version 0 is on the board -> [ what they tell of their steps ] -> all have left
                                                                  evaluations
Rules:
  - A run ends with a version that is whole: the last one, the newest when it was asked to stop, or the one before a
    step that came to NaN or infinity.
  - A worker that is gone without a word ends the run for all.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import replace
from time import perf_counter, time

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.rules import make_rule
from thalweg_cluster.server.door import Door
from thalweg_cluster.server.evaluation import EvaluationResult, Evaluations
from thalweg_cluster.server.nonfinite import describe_non_finite
from thalweg_cluster.server.spec import Row, RunResult, ServerSpec, Snapshot
from thalweg_cluster.server.telemetry import Telemetry
from thalweg_proto import messages
from thalweg_proto.board import Board, Outcome, board_bytes
from thalweg_proto.errors import NonFiniteError, ProtocolError, ServerError, ThalwegError
from thalweg_proto.messages import Evaluated, Left
from thalweg_proto.rendezvous import RendezvousFds
from thalweg_proto.shared_memory import FLOAT_BYTES, MemoryPlan, Vectors, create_segment

WARM_UP_STEPS = 10
"""Left out of samples_per_s: caches, clocks and buffers are still cold."""
STOP_S = 10.0
"""How long a run that is asked to stop may take to finish its step; then it ends with the version that is there."""


class Server:
    """Holds the parameters and the rule's state of one job; `serve` runs it from the first step to the last."""

    def __init__(self, spec: ServerSpec, initial: NDArray[np.float32]) -> None:
        """Takes the memory, listens, and copies `initial` (flat, shape (layout.size,)) into version 0.

        Raises OSError where /dev/shm has no room.
        """
        self._spec = spec
        self._step = spec.step
        rule = make_rule(spec.step.rule, spec.step.rule_options)
        plan = MemoryPlan(size=spec.layout.size, microbatches=spec.step.microbatches, slots=len(rule.slots))
        fds = (
            create_segment(plan.vector_bytes),
            create_segment(board_bytes(plan, spec.workers)),
            *RendezvousFds.create(spec.workers),
        )
        self._vectors = Vectors(plan, fds[0])
        self._board = Board(plan, spec.workers, fds[1])
        for state, slot in zip(self._vectors.state, rule.slots, strict=True):
            state.fill(slot.initial_value)
        self._vectors.gradient(-1, 0)[...] = initial  # where version 0 lies
        self._learning_rate = spec.step.learning_rate()
        self._evaluations = Evaluations(spec.step.chunks)
        self.telemetry = Telemetry(
            workers=spec.workers,
            batch_size=spec.step.batch_size,
            bytes_pushed=plan.size * FLOAT_BYTES,
            bytes_published=plan.size * FLOAT_BYTES,
        )
        self._rows: list[Row] = []
        self._pending: deque[Row] = deque()  # by step; the first one waits for its evaluation
        self._evaluated: dict[int, EvaluationResult] = {}  # by version, of those that are pending
        self._changed = threading.Condition()  # guards _rows and _running
        self._running = True
        self._stop_by: float | None = None  # perf_counter; set once the run is asked to stop
        self._evaluation: EvaluationResult | None = None
        self._began = self._warm = 0.0  # perf_counter of version 0 and of the tenth
        self._began_at: float | None = None  # of version 0, in seconds since 1970
        self._door = Door(
            spec.address,
            job_id=spec.job_id,
            layout=spec.layout,
            workers=spec.workers,
            plan=plan,
            chunks=spec.step.chunks,
            fds=fds,
        )

    # The run

    def serve(self) -> RunResult:
        """Runs the job to its end, to `stop`, or to a failure, which the result then names."""
        error = None
        try:
            if self._admit_all():
                self._attend()
        except ThalwegError as failure:
            error = str(failure)
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()
            self._door.broadcast(messages.pack_stop())
            self._door.close()
        return self._result(error)

    def _admit_all(self) -> bool:
        """Lets the workers in; False where the run is asked to stop before all are there."""
        while not self._door.full and self._stop_by is None:
            for _ in self._door.receive():
                raise ServerError("a worker spoke before all had joined")
            self.telemetry.joined = self._door.joined
        return self._stop_by is None

    def _attend(self) -> None:
        """From version 0 until all workers have left."""
        self._began_at = time()
        self._began = self._warm = self.telemetry.published_s = perf_counter()
        self._board.publish(0, Outcome.TRAIN, evaluate=False, at_s=self._began)
        self._door.broadcast(messages.pack_begin())
        while not self._door.deserted:
            patience_s = None if self._stop_by is None else self._stop_by - perf_counter()
            if patience_s is not None and patience_s <= 0:
                return
            for rank, record in self._door.receive(patience_s):
                self._on_record(rank, record)
        if self._board.outcome is Outcome.NOT_FINITE:
            raise self._non_finite()

    def _on_record(self, rank: int, record: bytes) -> None:
        message = messages.unpack_from_worker(record)
        if isinstance(message, Evaluated):
            self._on_evaluated(message)
        elif isinstance(message, Left):
            self._door.left(rank)
        elif (message["rank"] == rank).all():
            self._on_steps(message)
        else:
            raise ProtocolError(f"expected step records of worker {rank}; found some of another worker")

    def _on_steps(self, records: NDArray[np.void]) -> None:
        new = self.telemetry.heard(records)
        if len(new):
            self.telemetry.learning_rate = self._learning_rate(int(new["step"][-1]))
        for i, step in enumerate(new["step"].tolist()):
            if step + 1 == WARM_UP_STEPS:
                self._warm = float(new["published_s"][i])
            if self._step.has_row(step + 1):
                self._pending.append(self._row(new[i]))
        self._release_rows()

    def _on_evaluated(self, message: Evaluated) -> None:
        result = self._evaluations.on_evaluated(message)
        if result is not None:
            self._evaluation = self._evaluated[message.version] = result
            self.telemetry.evaluation_loss = result.loss
            self.telemetry.evaluation_accuracy = math.nan if result.accuracy is None else result.accuracy
            self._release_rows()

    def _row(self, record: np.void) -> Row:
        step, at_s = int(record["step"]), float(record["published_s"])
        return Row(
            step=step + 1,
            time_s=at_s - self._began,
            train_loss=float(record["loss"]),
            learning_rate=self._learning_rate(step),
            gradient_norm=float(record["gradient_norm"]),
            samples_per_s=self._samples_per_s(step + 1, at_s),
        )

    def _release_rows(self) -> None:
        """Lets those rows out that wait for no evaluation, of themselves or of one before them."""
        ready = []
        while self._pending:
            row = self._pending[0]
            if self._step.evaluates(row.step):
                result = self._evaluated.pop(row.step, None)
                if result is None:
                    break
                row = replace(row, evaluation=result._asdict())
            ready.append(row)
            self._pending.popleft()
        with self._changed:
            self._rows += ready

    def _non_finite(self) -> NonFiniteError:
        step = self._board.version
        where = describe_non_finite(self._spec.layout, self._vectors.gradients(step), self._board.losses.tolist())
        return NonFiniteError(
            f"step {step}: {where}; the learning rate was {self._learning_rate(step):g}. Nothing of this step was "
            f"published. Lower optimizer.learning_rate, or set optimizer.clip_norm or optimizer.warmup_steps."
        )

    # What others read, from other threads

    def stop(self) -> None:
        """Ends the run with the next version; `serve` returns with `cancelled`. Nothing where it has ended."""
        with self._changed:
            if self._running:
                self._stop_by = perf_counter() + STOP_S
                self._board.ask_to_stop()
                self._door.interrupt()

    def watch(self, rows_seen: int, timeout_s: float) -> Snapshot:
        """The state of the run, with the rows after the first `rows_seen`; after the timeout, or at the run's end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running, timeout_s)
            rows, running = tuple(self._rows[rows_seen:]), self._running
        telemetry = self.telemetry
        return Snapshot(
            step=telemetry.steps,
            joined=telemetry.joined,
            loss=_known(telemetry.loss),
            samples_per_s=self._samples_per_s(telemetry.steps, telemetry.published_s),
            rows=rows,
            running=running,
        )

    def weights(self) -> NDArray[np.float32]:
        """The newest version, flat, shape (layout.size,); valid after `serve` returned."""
        return self._vectors.version(self._board.version)

    def _samples_per_s(self, steps: int, at_s: float) -> float:
        """Of the first `steps` steps, which ended at `at_s`; those of the warm-up left out."""
        began, counted = (self._warm, steps - WARM_UP_STEPS) if steps > WARM_UP_STEPS else (self._began, steps)
        return counted * self._step.batch_size / (at_s - began) if counted else 0.0

    def _result(self, error: str | None) -> RunResult:
        telemetry = self.telemetry
        return RunResult(
            error=error,
            cancelled=error is None and self._board.outcome is not Outcome.DONE,
            steps=self._board.version,
            began_at=self._began_at,
            train_s=self._board.published_s - self._began,
            samples_per_s=self._samples_per_s(self._board.version, self._board.published_s),
            step_ms=telemetry.step_ms(),
            phase_ms=telemetry.phase_means_ms(),
            apply_ms=telemetry.apply_durations.mean_ms,
            train_loss=_known(self._board.loss if self._board.version else math.nan),
            evaluation=self._evaluation._asdict() if self._evaluation else None,
            weights_sha256=self._spec.layout.sha256(self.weights()),
        )


def _known(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(value) else value
