"""The system's own time per step, and how it grows with the workers: the engine only sleeps.

    python -m tests.benchmarks.emulated [--workers 4,8,16,32] [--ms 50] [--steps 60] [--json PATH] [--check]

All workers are on this machine; each computes one microbatch a step, which takes `--ms`; the network is 784-128-128-10.
What a step takes beyond that is the system's: drawing samples, sum, update, publish, and waking the workers up.

With --check, exit status 1 where the system's time grows faster than the number of workers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks import machine
from tests.benchmarks.launch import BenchError, train
from tests.benchmarks.workload import WORKLOADS, thalweg_job, write_data

ROWS_A_WORKER = 8
MODES: Mapping[str, Mapping[str, object]] = {
    "sync": {},
    "sync, by the server": {"backup_workers": 1},
    "async": {"consistency": "async"},
}


def emulated_job(workers: int, *, ms: float, steps: int, mode: Mapping[str, object]) -> dict[str, Any]:
    """The job file: `workers` microbatches a step, one for each worker."""
    cluster = {"engine": "emulated", "emulated_ms": ms}
    job: dict[str, Any] = thalweg_job(WORKLOADS[128], steps=steps, workers=workers, cluster=cluster)
    job["train"] |= {"batch_size": ROWS_A_WORKER * workers, "microbatches": workers, **mode}
    return job


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The system's own time with many workers that only sleep.")
    parser.add_argument("--workers", default="4,8,16,32", help="how many, with commas between (4,8,16,32)")
    parser.add_argument("--ms", type=float, default=50.0, help="what a microbatch takes (50)")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path, metavar="PATH")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    counts = [int(count) for count in options.workers.split(",")]
    table = Table(title=f"the system's own time a step, ms, beside the {options.ms:g} ms of the engine (median step)")
    table.add_column("mode")
    for count in counts:
        table.add_column(f"{count} workers", justify="right")
    table.add_column("growth", justify="right")
    own: dict[str, list[float]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="thalweg-emulated-") as folder:
            data = Path(folder)
            write_data(data, rows=4096)
            for name, mode in MODES.items():
                own[name] = []
                for count in counts:
                    job = emulated_job(count, ms=options.ms, steps=options.steps, mode=mode)
                    figures = train(job, data, workers=count)
                    # In async a step is `count` pushes, side by side.
                    own[name].append(figures["step_ms"]["p50"] - options.ms)
                table.add_row(name, *(f"{ms:.2f}" for ms in own[name]), f"{own[name][-1] / own[name][0]:.1f}")
    except BenchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine.describe(), "workers": counts, "own_ms": own}) + "\n")
    linear = counts[-1] / counts[0]
    return 1 if options.check and any(times[-1] > linear * times[0] for times in own.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
