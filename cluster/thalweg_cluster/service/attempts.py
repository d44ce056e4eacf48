"""What becomes of a job whose command has ended. Pure.

Rules:
  - What summary.json says is how the run ended, whatever its command's exit status.
  - Without it the command was lost, on its way or before its first step: the job waits in the queue again, and goes on
    from its newest checkpoint, up to `cluster.max_failures` times. A loss of the service itself, or of the Ray cluster,
    does not count.
  - Exit status 2 says that the job is wrong now: it would be wrong again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from thalweg_cluster.service.table import JobRow
from thalweg_proto.jobs import State

WRONG_INPUT = 2
ERROR_CHARACTERS_MAX = 4000


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended.

    status:  exit status; negative: the signal that ended it; None: not known
    summary: what it wrote; None: nothing
    log:     the last lines that it printed
    excused: the service, or the Ray cluster, was lost with it
    leaving: the service ends, and has asked the command to end
    at:      seconds since 1970
    """

    status: int | None
    summary: dict[str, Any] | None
    log: str
    excused: bool
    leaving: bool
    at: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """The state that a job comes to, and the columns of the table that change with it."""

    state: State
    values: dict[str, Any] = field(default_factory=dict)


def settle(job: JobRow, ended: Ended) -> Change:
    """What becomes of `job`, which was started."""
    summary = ended.summary
    workers = _number(summary, "workers") or job.workers
    cost = job.worker_seconds + workers * max(0.0, ended.at - (job.started_s or ended.at))
    values: dict[str, Any] = {"worker_seconds": cost}
    if summary is not None:
        values |= {
            "step": _number(summary, "steps"),
            "loss": _number(summary, "train_loss"),
            "samples_per_s": _number(summary, "samples_per_s"),
        }
        state = {"succeeded": State.SUCCEEDED, "failed": State.FAILED}.get(summary.get("state", ""), State.CANCELLED)
        if state is State.CANCELLED and ended.leaving and job.state is State.RUNNING:
            return Change(state=State.QUEUED, values=values)
        error = summary.get("error") if state is State.FAILED else ""
        return _over(state, values, error or "", ended)
    if job.state is State.CANCELLING:
        return _over(State.CANCELLED, values, "", ended)
    if ended.leaving or ended.excused:
        return Change(state=State.QUEUED, values=values)
    error = f"{_how(ended.status)}\n{ended.log}".strip()
    if ended.status == WRONG_INPUT:
        return _over(State.FAILED, values, error, ended)
    failures = job.failures + 1
    values["failures"] = failures
    if job.max_failures != -1 and failures > job.max_failures:
        error = f"{error}\nmore than cluster.max_failures = {job.max_failures} failures"
        return _over(State.FAILED, values, error, ended)
    return Change(state=State.QUEUED, values={**values, "error": error[-ERROR_CHARACTERS_MAX:]})


def _over(state: State, values: dict[str, Any], error: str, ended: Ended) -> Change:
    return Change(state=state, values={**values, "ended_s": ended.at, "error": error[-ERROR_CHARACTERS_MAX:]})


def _how(status: int | None) -> str:
    if status is None:
        return "its command ended without a summary"
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"its command ended without a summary, by {how}"


def _number(summary: dict[str, Any] | None, key: str) -> Any:
    value = None if summary is None else summary.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
