"""A job of the service, and a row of its metrics, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thalweg_proto.jobs import State
from thalweg_proto.v1 import job_service_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Job:
    """As v1/job_service.proto has it, field by field; None: not known yet.

    state:   "queued", "running", "cancelling", "succeeded", "failed" or "cancelled"
    why:     what it waits for, e.g. "needs 4 CPUs, 2 free"; "": it does not
    *_s:     times, in seconds since 1970
    worker_seconds: the cost so far
    steps:   that it is to take, of one that runs
    samples_per_s:  of the newest row of its metrics, or of the whole run, when it has ended
    """

    id: str
    name: str
    state: str
    why: str
    error: str
    priority: int
    workers: int
    attempts: int
    submitted_s: float
    started_s: float | None
    ended_s: float | None
    worker_seconds: float
    step: int | None
    steps: int | None
    loss: float | None
    samples_per_s: float | None
    folder: str

    @property
    def ended(self) -> bool:
        return State(self.state).ended

    @classmethod
    def of(cls, message: pb.Job) -> Job:
        """Of a message. A state that this release does not know is an error of the protocol, and never sent."""
        values = {name: _known(message, name) for name in cls.__dataclass_fields__ if name != "state"}
        return cls(state=pb.JobState.Name(message.state).lower(), **values)


@dataclass(frozen=True, kw_only=True)
class MetricsRow:
    """One line of metrics.jsonl, as v1/job_service.proto has it; None: not known."""

    step: int
    time_s: float
    train_loss: float | None
    learning_rate: float | None
    gradient_norm: float | None
    samples_per_s: float
    eval_loss: float | None
    eval_accuracy: float | None

    @classmethod
    def of(cls, message: pb.MetricsRow) -> MetricsRow:
        return cls(**{name: _known(message, name) for name in cls.__dataclass_fields__})


def _known(message: Any, name: str) -> Any:
    """The value of a field; None where it is left out."""
    field = message.DESCRIPTOR.fields_by_name[name]
    return None if field.has_presence and not message.HasField(name) else getattr(message, name)
