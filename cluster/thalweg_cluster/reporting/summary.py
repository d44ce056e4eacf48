"""summary.json: what a run came to (DESIGN section 5)."""

from __future__ import annotations

from time import time
from typing import Any

from thalweg_cluster.server.spec import RunResult


def summarise(
    result: RunResult | None,
    error: str | None,
    *,
    parameters: int,
    workers: int,
    servers: int,
    hosts: int,
    batch_size: int,
    first: int,
    restarts: dict[str, int],
    started_at: float,
    faults: list[dict[str, Any]],
    devices: list[dict[str, Any]],
) -> dict[str, Any]:
    """The contents of summary.json; `result` is None where the server died and nothing is known of the run.

    first:      steps that were taken before this run, where it went on from a checkpoint
    restarts:   how many processes were replaced, by kind
    started_at: when the command was given, in seconds since 1970
    faults:     each that was planned, and whether it fired (PlannedFaults.report)
    devices:    name and memory_bytes of the GPU of each worker that had one, with its rank
    """
    if error is not None:
        state = "failed"
    elif result is None or result.cancelled:
        state = "cancelled"
    else:
        state = "succeeded"
    steps = result.steps if result else first
    return {
        "state": state,
        "error": error,
        "steps": steps,
        "samples": steps * batch_size,
        "resumed_from": first or None,
        "parameters": parameters,
        "workers": workers,
        "servers": servers,
        "hosts": hosts,
        "wall_s": time() - started_at,
        "startup_s": result.began_at - started_at if result and result.began_at else None,
        "train_s": result.train_s if result else 0.0,
        "samples_per_s": result.samples_per_s if result else 0.0,
        "step_ms": result.step_ms if result else {"p50": 0.0, "p95": 0.0, "max": 0.0},
        "phase_ms": result.phase_ms if result else {"sample": 0.0, "compute": 0.0, "push": 0.0, "wait": 0.0},
        "apply_ms": result.apply_ms if result else 0.0,
        "by_worker": result.by_worker if result else [],
        "train_loss": result.train_loss if result else None,
        "eval": result.evaluation if result else None,
        "weights_sha256": result.weights_sha256 if result else None,
        "restarts": restarts,
        "skipped": result.skipped if result else 0,
        "duplicates": result.duplicates if result else 0,
        "dropped": result.dropped if result else 0,
        "copies": result.copies if result else {"given": 0, "won": 0},
        "checkpoints": result.checkpoints if result else None,
        "replicas": result.replicas if result else None,
        "staleness": result.staleness if result else {"mean": 0.0, "max": 0},
        "faults": faults,
        "devices": devices,
    }
