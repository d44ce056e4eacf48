"""Jobs and rows of metrics as messages of v1/job_service.proto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thalweg_cluster.service.table import JobRow
from thalweg_proto.jobs import State
from thalweg_proto.v1 import job_service_pb2 as pb

STATES: dict[State, Any] = {state: pb.JobState.Value(state.name) for state in State}
STATE_OF: dict[int, State] = {number: state for state, number in STATES.items()}


def job_message(job: JobRow, *, why: str, folder: Path, newest: dict[str, Any] | None, now: float) -> pb.Job:
    """
    why:    what it waits for
    newest: row of its metrics, of a job that runs; None: there is none
    now:    seconds since 1970
    """
    row = newest or {}
    running = now - job.started_s if job.state.started and job.started_s is not None else 0.0
    message = pb.Job(
        id=str(job.id),
        name=job.name,
        state=STATES[job.state],
        why=why if job.state is State.QUEUED else "",
        error=job.error,
        priority=job.priority,
        workers=job.workers,
        attempts=job.attempts,
        submitted_s=job.submitted_s,
        worker_seconds=job.worker_seconds + job.workers * max(0.0, running),
        folder=str(folder),
    )
    optional = {
        "started_s": job.started_s,
        "ended_s": job.ended_s,
        "step": row.get("step", job.step),
        "steps": (row.get("so_far") or {}).get("steps"),
        "loss": row.get("train_loss", job.loss),
        "samples_per_s": row.get("samples_per_s", job.samples_per_s),
    }
    for name, value in optional.items():
        if value is not None:
            setattr(message, name, value)
    return message


def row_message(row: dict[str, Any]) -> pb.MetricsRow:
    """A line of metrics.jsonl. KeyError, TypeError or ValueError where it is none."""
    message = pb.MetricsRow(step=row["step"], time_s=row["time_s"], samples_per_s=row["samples_per_s"])
    evaluation = row.get("evaluation") or {}
    optional = {
        "train_loss": row.get("train_loss"),
        "learning_rate": row.get("learning_rate"),
        "gradient_norm": row.get("gradient_norm"),
        "eval_loss": evaluation.get("loss"),
        "eval_accuracy": evaluation.get("accuracy"),
    }
    for name, value in optional.items():
        if value is not None:
            setattr(message, name, value)
    return message
