"""The line that shows a run while it goes on: one that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thalweg_cluster.server.spec import Row, Snapshot

PLAIN_LINE_EVERY_S = 2.0


class ProgressView(Protocol):
    """Shows snapshots of a run."""

    def show(self, snapshot: Snapshot) -> None: ...

    def __enter__(self) -> ProgressView: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress_view(console: Console, *, steps: int, workers: int) -> ProgressView:
    """The view that fits where `console` writes to."""
    return LiveView(console, steps, workers) if console.is_terminal else PlainView(console, steps, workers)


def describe(snapshot: Snapshot, evaluation: Row | None) -> str:
    """Loss, speed, newest evaluation: "loss 0.2134  31,200 samples/s  held-out loss 0.3121, accuracy 94.20 %"."""
    parts = []
    if snapshot.loss is not None:
        parts.append(f"loss {snapshot.loss:.4f}")
    if snapshot.samples_per_s:
        parts.append(f"{snapshot.samples_per_s:,.0f} samples/s")
    if evaluation is not None and evaluation.evaluation is not None:
        parts.append(describe_evaluation(evaluation.evaluation))
    return "  ".join(parts)


def describe_evaluation(evaluation: dict[str, float | None]) -> str:
    """e.g. "held-out loss 0.3121, accuracy 94.20 %"."""
    accuracy = evaluation["accuracy"]
    suffix = "" if accuracy is None else f", accuracy {100 * accuracy:.2f} %"
    return f"held-out loss {evaluation['loss']:.4f}{suffix}"


class LiveView:
    """One line on a terminal: step, loss, samples/s, evaluation, time left."""

    def __init__(self, console: Console, steps: int, workers: int) -> None:
        self._workers = workers
        self._evaluation: Row | None = None
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=steps)

    def show(self, snapshot: Snapshot) -> None:
        self._evaluation = next((row for row in reversed(snapshot.rows) if row.evaluation), self._evaluation)
        waiting = f"starting: {snapshot.joined} of {self._workers} workers are up"
        text = describe(snapshot, self._evaluation) if snapshot.step else waiting
        self._progress.update(self._task, completed=snapshot.step, description=text)

    def __enter__(self) -> LiveView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class PlainView:
    """A line for each evaluation, and one every few seconds between them, for logs."""

    def __init__(self, console: Console, steps: int, workers: int) -> None:
        self._console = console
        self._steps = steps
        self._last = monotonic()
        self._shown = 0

    def show(self, snapshot: Snapshot) -> None:
        evaluated = [row for row in snapshot.rows if row.evaluation]
        # A run may also go back.
        due = monotonic() - self._last >= PLAIN_LINE_EVERY_S and snapshot.step != self._shown
        for row in evaluated:
            self._print(row.step, describe(snapshot, row))
        if due and not evaluated:
            self._print(snapshot.step, describe(snapshot, None))

    def _print(self, step: int, text: str) -> None:
        self._last, self._shown = monotonic(), step
        self._console.print(f"step {step}/{self._steps}  {text}", highlight=False, soft_wrap=True)

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
