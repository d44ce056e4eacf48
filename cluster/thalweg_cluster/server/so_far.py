"""What an attempt at a run has come to, as metrics.jsonl has it: `so_far` of a row.

    time_s       since the attempt's first step began, as in the rows
    steps        that the job is to take
    workers      by name of a column, a list with one value for each worker: its rank; steps, microbatches; seconds in
                 all that went into sample, compute, push and wait; for how long others waited for it (in sync)
    sits_out     ranks of those that are too slow to take part now
    staleness    mean and max of the pushes, in versions
    checkpoints  how many were saved, failed, skipped; step of the newest, null: there is none
    skipped      steps that were not finite, and changed nothing

Counts and seconds are those from the begin of the attempt on: the difference of two rows is what went on between them.
"""

from __future__ import annotations

import math
from typing import Any

from thalweg_cluster.server.telemetry import PHASES, Telemetry

DECIMALS = 5
"""Of seconds: what a step takes is told to 1 % where rows are a hundred steps of 10 us apart."""


def so_far(telemetry: Telemetry, *, steps: int, time_s: float) -> dict[str, Any]:
    """`steps`: of the job; `time_s`: since the first one began. From any thread."""
    with telemetry.lock:
        workers = sorted(telemetry.worker_times.items())
        waited_for_s = telemetry.waiting.for_s
        columns: dict[str, list[float]] = {
            "rank": [rank for rank, _ in workers],
            "steps": [times.told for _, times in workers],
            "microbatches": [times.computed for _, times in workers],
            **{f"{phase}_s": [round(times.phase_s[phase], DECIMALS) for _, times in workers] for phase in PHASES},
            "waited_for_s": [
                round(float(waited_for_s[rank]), DECIMALS) if rank < len(waited_for_s) else 0.0 for rank, _ in workers
            ],
        }
        return {
            "time_s": round(time_s, DECIMALS),
            "steps": steps,
            "workers": columns,
            "sits_out": [rank for rank, pace_s in sorted(telemetry.pace_s.items()) if math.isinf(pace_s)],
            "staleness": telemetry.staleness.summary(),
            "checkpoints": telemetry.checkpoints.summary(),
            "skipped": telemetry.skipped,
        }
