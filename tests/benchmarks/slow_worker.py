"""What one slow worker costs the others, in each consistency mode: the engine only sleeps, with one of them longer.

    python -m tests.benchmarks.slow_worker [--workers 4] [--ms 20] [--slowdown 10] [--steps 100] [--repeats 3]
                                           [--json PATH]

All workers are on this machine. A step has one microbatch for each worker; a microbatch takes `--ms`, and with the last
worker `--slowdown` times as long. Runs with and without a slow worker alternate; figures are medians of the rounds.
The share is that of what the other workers could do alone: 1 where nobody waits for the slow one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks import machine
from tests.benchmarks.launch import BenchError, train
from tests.benchmarks.workload import WORKLOADS, thalweg_job, write_data

ROWS_A_WORKER = 8
MODES: Mapping[str, Mapping[str, object]] = {
    "sync": {},
    "ssp, staleness 3": {"consistency": "ssp", "staleness": 3},
    "ssp, staleness 8": {"consistency": "ssp", "staleness": 8},
    "async": {"consistency": "async"},
}
COLUMNS = ("mode", "equally quick, samples/s", "one slow", "share of the others alone", "staleness, mean and max")


def slow_job(times_ms: Sequence[float], *, steps: int, mode: Mapping[str, object]) -> dict[str, Any]:
    """The job file: a worker for each of `times_ms`, which its microbatches take."""
    workers = len(times_ms)
    cluster = {"engine": "emulated", "emulated_ms": list(times_ms)}
    job: dict[str, Any] = thalweg_job(WORKLOADS[128], steps=steps, workers=workers, cluster=cluster)
    job["train"] |= {"batch_size": ROWS_A_WORKER * workers, "microbatches": workers, **mode}
    return job


def share_of_others(equal: float, slow: float, workers: int) -> float:
    """Of what all but one of `workers` could do alone, from the samples/s of all, and of all with one slow."""
    return slow / (equal * (workers - 1) / workers)


def row(name: str, equal: Sequence[dict[str, Any]], slow: Sequence[dict[str, Any]], workers: int) -> list[str]:
    """A row of the table, from the summaries of the rounds."""
    shares = [
        share_of_others(e["samples_per_s"], s["samples_per_s"], workers) for e, s in zip(equal, slow, strict=True)
    ]
    mean = median(s["staleness"]["mean"] for s in slow)
    most = max(s["staleness"]["max"] for s in slow)
    return [
        name,
        f"{median(e['samples_per_s'] for e in equal):,.0f}",
        f"{median(s['samples_per_s'] for s in slow):,.0f}",
        f"{median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})",
        f"{mean:.2f}, {most}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What one slow worker costs the others.")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--ms", type=float, default=20.0, help="what a microbatch takes (20)")
    parser.add_argument("--slowdown", type=float, default=10.0, help="how many times longer with the slow worker (10)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args(argv)
    workers = options.workers
    if workers < 2:
        parser.error(f"--workers: expected at least 2, one of them slow; found {workers}")
    equal = [options.ms] * workers
    times = {"equal": equal, "slow": [*equal[:-1], options.ms * options.slowdown]}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {"equal": [], "slow": []} for name in MODES}
    try:
        with tempfile.TemporaryDirectory(prefix="thalweg-slow-") as folder:
            data = Path(folder)
            write_data(data, rows=4096)
            for _ in range(options.repeats):
                for name, mode in MODES.items():
                    for kind, times_ms in times.items():
                        job = slow_job(times_ms, steps=options.steps, mode=mode)
                        found[name][kind].append(train(job, data, workers=workers))
    except BenchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    title = f"{workers} workers, {options.ms:g} ms a microbatch; one {options.slowdown:g} times slower"
    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "mode" else "right")
    for name, runs in found.items():
        table.add_row(*row(name, runs["equal"], runs["slow"], workers))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine.describe(), "runs": found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
