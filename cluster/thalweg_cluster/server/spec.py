"""What a server is told when it is made, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thalweg_proto.layout import Layout


@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """One server of one job.

    address:           name of the abstract Unix socket on which it waits for its host's workers
    steps, batch_size: of the whole job; `microbatches` is V
    rule:              name of the update rule; `rule_options` its options, named as in the job file
    schedule:          options of the learning rate's schedule, `learning_rate` among them
    clip_norm:         bound of the gradient's global norm; 0: none
    eval_every:        the held-out set is evaluated at each version that this divides; 0: only the last one
    chunks:            into how many chunks the held-out set is cut; 0: there is none
    threads:           that sum and update side by side
    metrics_port:      of /metrics on loopback; 0: a free one
    """

    address: str
    job_id: str
    layout: Layout
    workers: int
    microbatches: int
    batch_size: int
    steps: int
    rule: str
    rule_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    clip_norm: float = 0.0
    eval_every: int = 0
    chunks: int = 0
    threads: int = 1
    metrics_port: int = 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of metrics.jsonl: the state after `step` steps.

    time_s:     since step 0 began
    train_loss: mean loss over the batch, of the newest step
    evaluation: {"loss": ..., "accuracy": ...} where the held-out set was evaluated at this version
    """

    step: int
    time_s: float
    train_loss: float | None
    learning_rate: float | None
    gradient_norm: float | None
    samples_per_s: float
    evaluation: dict[str, float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How far the run is: steps done, the rows since the last snapshot, and whether it goes on."""

    step: int
    joined: int
    loss: float | None
    samples_per_s: float
    rows: tuple[Row, ...]
    running: bool


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run came to; the fields are those of summary.json (DESIGN section 5)."""

    error: str | None
    cancelled: bool
    steps: int
    train_s: float
    samples_per_s: float
    step_ms: dict[str, float]
    phase_ms: dict[str, float]
    train_loss: float | None
    evaluation: dict[str, float | None] | None
    duplicates: int
    weights_sha256: str
