"""What a server is told when it is made, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thalweg_cluster.checkpoints.saver import SaveSpec
from thalweg_cluster.security.guard import Guard
from thalweg_cluster.step import StepSpec
from thalweg_proto.faults import PlannedFaults
from thalweg_proto.layout import Layout


@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """One server of one job.

    address:      name of the abstract Unix socket on which it waits for its host's workers
    save:         where checkpoints go; None: nowhere
    lease_s:      how long a worker may at least be at one piece of work (leases.py)
    guard:        what its gRPC door on loopback asks for
    metrics_port: of /metrics on loopback; 0: a free one
    faults:       what shall go wrong
    """

    address: str
    job_id: str
    layout: Layout
    workers: int
    step: StepSpec
    save: SaveSpec | None = None
    lease_s: float = 30.0
    guard: Guard = field(default_factory=Guard)
    metrics_port: int = 0
    faults: PlannedFaults = field(default_factory=PlannedFaults)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of metrics.jsonl: the state after `step` steps.

    time_s:     since step 0 began
    train_loss: mean loss over the batch, of the newest step
    samples_per_s: since the row before; of the first row since step 0 began
    evaluation: {"loss": ..., "accuracy": ...} where the held-out set was evaluated at this version
    so_far:     what the attempt has come to (server/so_far.py), in the newest of the rows that were taken at one look
    """

    step: int
    time_s: float
    train_loss: float | None
    learning_rate: float | None
    gradient_norm: float | None
    samples_per_s: float
    evaluation: dict[str, float | None] | None = None
    so_far: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How far the run is: steps done, the rows since the last snapshot, and whether it goes on.

    warnings: what went wrong with the newest checkpoint and the newest replica that failed
    hung:     why the server killed workers, by rank
    """

    step: int
    joined: int
    loss: float | None
    samples_per_s: float
    rows: tuple[Row, ...]
    running: bool
    warnings: tuple[str, ...] = ()
    hung: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run came to; the fields are those of summary.json (DESIGN section 5).

    began_at: when the first step began, in seconds since 1970; None where none did
    apply_ms: mean time of a worker's share of sum and update; within `wait` of phase_ms
    by_worker: where the time of each worker's steps went, by rank (telemetry.WorkerTimes)
    skipped: steps that were not finite, and left the parameters as they were
    staleness: {"mean": ..., "max": ...} of all pushes
    checkpoints, replicas: how many were "saved", "failed", "skipped", and the "step" of the newest, None where there is
                none
    copies: of microbatches that a slow worker was in the middle of: how many were "given" to others, and of these "won"
    duplicates, dropped: pushes of a name, or messages between hosts, that were there before, and were not taken in
                again; pushes that came after their step had ended
    """

    error: str | None
    cancelled: bool
    steps: int
    began_at: float | None
    train_s: float
    samples_per_s: float
    step_ms: dict[str, float]
    phase_ms: dict[str, float]
    apply_ms: float
    by_worker: list[dict[str, float]]
    train_loss: float | None
    evaluation: dict[str, float | None] | None
    weights_sha256: str
    skipped: int
    staleness: dict[str, float]
    duplicates: int
    dropped: int
    copies: dict[str, int]
    checkpoints: dict[str, int | None]
    replicas: dict[str, int | None]

    @classmethod
    def of_checkpoint(cls, steps: int, weights_sha256: str) -> RunResult:
        """Of a run of which only its last checkpoint is left."""
        return cls(
            error=None,
            cancelled=False,
            steps=steps,
            began_at=None,
            train_s=0.0,
            samples_per_s=0.0,
            step_ms={"p50": 0.0, "p95": 0.0, "max": 0.0},
            phase_ms={"sample": 0.0, "compute": 0.0, "push": 0.0, "wait": 0.0},
            apply_ms=0.0,
            by_worker=[],
            train_loss=None,
            evaluation=None,
            weights_sha256=weights_sha256,
            skipped=0,
            staleness={"mean": 0.0, "max": 0},
            duplicates=0,
            dropped=0,
            copies={"given": 0, "won": 0},
            checkpoints={"saved": 0, "failed": 0, "skipped": 0, "step": steps},
            replicas={"saved": 0, "failed": 0, "skipped": 0, "step": None},
        )
