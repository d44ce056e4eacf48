"""The account of a run: how far it is, how its loss went, what was evaluated, and what it came to.

Rules:
  - It is told; it decides nothing. One thread tells it, others read (`watch`).
  - A line of metrics.jsonl that waits for an evaluation holds up those after it: lines stand in the order of steps.
  - Who watches a run sees it move: where lines are rare by the count of steps, there is one after a time. Such lines
    become rarer as the run goes on, so that they are few however long it is.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import replace
from time import perf_counter, time

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.server.evaluation import EvaluationResult, Evaluations
from thalweg_cluster.server.so_far import so_far
from thalweg_cluster.server.spec import Row, RunResult, Snapshot
from thalweg_cluster.server.telemetry import WARM_UP_STEPS, Telemetry
from thalweg_cluster.step import StepSpec
from thalweg_proto.messages import Evaluated

ROW_S = 5.0
"""At most so long after a line there is another one, at first."""
ROW_SHARE = 1e-3
"""Of the time so far: later it is this."""


class Account:
    """Of one run.

    telemetry: the counts behind /metrics
    """

    def __init__(self, step: StepSpec, *, first: int, workers: int, bytes_pushed: int, bytes_published: int) -> None:
        """`first`: steps that were taken before; `bytes_pushed`, `bytes_published`: what one push and one new version
        move."""
        self._step = step
        self._first = first
        self._learning_rate = step.learning_rate()
        self._evaluations = Evaluations(step.chunks)
        self.telemetry = Telemetry(
            workers=workers,
            batch_size=step.batch_size,
            bytes_pushed=bytes_pushed,
            bytes_published=bytes_published,
            first=first,
            steps=first,
            meets=step.consistency == "sync",
            staleness_bound={"sync": 0, "ssp": step.staleness}.get(step.consistency),
            save_every=step.save_every or 0,
        )
        self._rows: list[Row] = []
        self._pending: deque[tuple[int, Row]] = deque()  # by version; the first one waits for its evaluation
        self._evaluated: dict[int, EvaluationResult] = {}  # by version, of those that are pending
        self._changed = threading.Condition()  # guards _rows and _running
        self._running = True
        self._evaluation: EvaluationResult | None = None  # the newest, of version `_known`
        self._known = -1
        self._began = self._warm = 0.0  # perf_counter of version 0 and of the first version after the warm-up
        self._warm_steps = first  # steps that were done by then
        self._began_at: float | None = None  # of version 0, in seconds since 1970
        self._row_s, self._row_step = 0.0, first  # perf_counter of the newest row, and its step

    # What it is told

    def begin(self) -> float:
        """Version 0 is about to be there; returns when (perf_counter)."""
        self._began_at = self.telemetry.started_at = time()
        self._began = self._warm = self._row_s = self.telemetry.published_s = perf_counter()
        return self._began

    def stepped(
        self,
        first: int,
        loss: NDArray[np.float64],
        gradient_norm: NDArray[np.float64],
        published_s: NDArray[np.float64],
    ) -> None:
        """The versions from `first` on are there; versions come in order, each once.

        Arrays (n,), n >= 1, of each version: loss and norm (NaN: not taken) of the step that made it, and since when it
        is there (perf_counter).
        """
        job = self._step
        last = first + len(loss) - 1
        self.telemetry.stepped(job.steps_done(last), loss, gradient_norm, published_s)
        self.telemetry.learning_rate = self._learning_rate(job.steps_done(last) - 1)
        for i, version in enumerate(range(first, last + 1)):
            step = job.steps_done(version)
            if self._warm_steps < self._first + WARM_UP_STEPS <= step:
                self._warm, self._warm_steps = float(published_s[i]), step
            at_s = float(published_s[i])
            if job.has_row(version) or at_s - self._row_s >= max(ROW_S, ROW_SHARE * (at_s - self._began)):
                self._pending.append((version, self._row(step, loss[i], gradient_norm[i], at_s)))
                self._row_s, self._row_step = at_s, step
        self._release_rows()

    def _row(self, step: int, loss: float, gradient_norm: float, at_s: float) -> Row:
        samples, taken_s = (step - self._row_step) * self._step.batch_size, at_s - self._row_s
        return Row(
            step=step,
            time_s=at_s - self._began,
            train_loss=known(float(loss)),
            learning_rate=self._learning_rate(step - 1),
            gradient_norm=known(float(gradient_norm)),
            samples_per_s=samples / taken_s if taken_s > 0 else 0.0,
        )

    def evaluated(self, message: Evaluated) -> None:
        """A chunk of the held-out set was evaluated."""
        result = self._evaluations.on_evaluated(message)
        if result is not None:
            self._evaluation = self._evaluated[message.version] = result
            self._known = message.version
            self.telemetry.evaluation_loss = result.loss
            self.telemetry.evaluation_accuracy = math.nan if result.accuracy is None else result.accuracy
            self._release_rows()

    def knows_evaluation(self, version: int) -> bool:
        """Whether the held-out set was evaluated with `version`, all of it."""
        return self._known == version

    def end(self) -> None:
        """The run is over: what was not evaluated will not be."""
        self._release_rows(ended=True)
        with self._changed:
            self._running = False
            self._changed.notify_all()

    def _release_rows(self, *, ended: bool = False) -> None:
        """Lets those rows out that wait for no evaluation, of themselves or of one before them; at the end all."""
        ready = []
        while self._pending:
            version, row = self._pending[0]
            if self._step.evaluates(version):
                result = self._evaluated.pop(version, None)
                if result is not None:
                    row = replace(row, evaluation=result._asdict())
                elif not ended:
                    break
            ready.append(row)
            self._pending.popleft()
        if ready:
            with self._changed:
                self._rows += ready

    # What others read

    @property
    def running(self) -> bool:
        return self._running

    def watch(self, rows_seen: int, timeout_s: float) -> Snapshot:
        """The state of the run, with the rows after the first `rows_seen`; after the timeout, or at the run's end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running, timeout_s)
            rows, running = tuple(self._rows[rows_seen:]), self._running
        telemetry = self.telemetry
        if rows:
            reached = so_far(telemetry, steps=self._step.steps, time_s=perf_counter() - self._began)
            rows = (*rows[:-1], replace(rows[-1], so_far=reached))
        return Snapshot(
            step=telemetry.steps,
            joined=telemetry.joined,
            loss=known(telemetry.loss),
            samples_per_s=self._samples_per_s(telemetry.steps, telemetry.published_s),
            rows=rows,
            running=running,
            warnings=tuple(filter(None, (telemetry.checkpoints.error, telemetry.replicas.error))),
        )

    def _samples_per_s(self, steps: int, at_s: float) -> float:
        """Of this run's steps up to `steps`, which ended at `at_s`; those of the warm-up left out."""
        warm = self._first < self._warm_steps < steps
        began, counted = (self._warm, steps - self._warm_steps) if warm else (self._began, steps - self._first)
        return counted * self._step.batch_size / (at_s - began) if counted and at_s > began else 0.0

    def result(self, *, error: str | None, version: int, published_s: float, weights_sha256: str) -> RunResult:
        """What the run came to: its newest version, there since `published_s` (perf_counter)."""
        telemetry = self.telemetry
        steps = self._step.steps_done(version)
        return RunResult(
            error=error,
            cancelled=error is None and steps < self._step.steps,
            steps=steps,
            began_at=self._began_at,
            train_s=published_s - self._began,
            samples_per_s=self._samples_per_s(steps, published_s),
            step_ms=telemetry.step_ms(),
            phase_ms=telemetry.phase_means_ms(),
            apply_ms=telemetry.apply_durations.mean_ms,
            by_worker=telemetry.by_worker(),
            train_loss=known(telemetry.loss),
            evaluation=self._evaluation._asdict() if self._evaluation else None,
            weights_sha256=weights_sha256,
            skipped=telemetry.skipped,
            staleness=telemetry.staleness.summary(),
            duplicates=telemetry.duplicates,
            dropped=telemetry.pushes[Verdict.LATE],
            copies={"given": telemetry.copies_given, "won": telemetry.copies_won},
            checkpoints=telemetry.checkpoints.summary(),
            replicas=telemetry.replicas.summary(),
        )


def known(value: float) -> float | None:
    """A number for JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None
