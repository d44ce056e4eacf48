"""Peak memory of a run at 20 million parameters with 2 workers, 2 microbatches and momentum, against its bound.

    python -m tests.benchmarks.memory [--json PATH] [--check]

Bound: parameters x 4 B x (2 buffers + V gradients + 1 slot), and for each process of the run (the command, the server,
the workers) what an idle Ray worker takes plus 250 MB. Both sides are proportional set sizes (tests/benchmarks/pss.py),
the run's sampled every 50 ms from start to end, so a shorter peak can be missed. Ray's own processes are left out.
The data set is small (6 MB): pages of a larger one's file would count, though they can be dropped at any time.

Exit status: 0; 1 where the run fails or, with --check, takes more than the bound.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks import machine
from tests.benchmarks.launch import BenchError, finished, process, read_summary, thalweg_command, write_job
from tests.benchmarks.pss import Memory, measure, measure_tree
from tests.benchmarks.workload import WORKLOADS, thalweg_job, write_data

WORKLOAD = WORKLOADS[4096]  # 20,037,642 parameters
WORKERS, STEPS, ROWS = 2, 20, 2048
SAMPLE_INTERVAL_S = 0.05
PROCESS_ALLOWANCE_BYTES = 250_000_000
MB = 1_000_000


def model_bytes(parameters: int, microbatches: int, slots: int = 1) -> int:
    """Float32 bytes of two parameter buffers, a gradient for each microbatch, and the rule's slots."""
    return parameters * 4 * (2 + microbatches + slots)


def bound_bytes(parameters: int, microbatches: int, *, processes: int, idle_bytes: int) -> int:
    """The most that a run may take; `idle_bytes` is what an idle Ray worker takes."""
    return model_bytes(parameters, microbatches) + processes * (idle_bytes + PROCESS_ALLOWANCE_BYTES)


def total_bytes(snapshot: Mapping[str, Memory]) -> int:
    return sum(memory.total_bytes for memory in snapshot.values())


class PeakSampler:
    """Samples a process tree in a thread while the block runs; `peak` is the snapshot with the largest total."""

    def __init__(self, root: int) -> None:
        self.peak: dict[str, Memory] = {}
        self.samples = 0
        self._root = root
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakSampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL_S):
            snapshot = measure_tree(self._root)
            self.samples += 1
            if total_bytes(snapshot) > total_bytes(self.peak):
                self.peak = snapshot


def idle_worker_bytes(workers: int) -> int:
    """Mean proportional set size of `workers` Ray actors that have done nothing, on a cluster of their own."""
    import ray

    @ray.remote
    class Idle:
        def pid(self) -> int:
            return os.getpid()

    ray.init(
        address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    try:
        actors: list[Any] = [Idle.remote() for _ in range(workers)]  # type: ignore[attr-defined]  # ray.remote adds it
        found = [measure(pid) for pid in ray.get([actor.pid.remote() for actor in actors])]
        return round(mean(memory.total_bytes for memory in found if memory))
    finally:
        ray.shutdown()


def run() -> tuple[dict[str, Any], PeakSampler]:
    """Train; the summary, and the sampler with the peak."""
    with tempfile.TemporaryDirectory(prefix="thalweg-memory-") as name:
        folder = Path(name)
        write_data(folder, rows=ROWS)
        job_path = write_job(thalweg_job(WORKLOAD, steps=STEPS, workers=WORKERS), folder / "job.toml")
        with process(thalweg_command(job_path, folder / "out"), cwd=folder) as child, PeakSampler(child.pid) as sampler:
            finished(child)
        return read_summary(folder / "out", parameters=WORKLOAD.parameters), sampler


def report(peak: Mapping[str, Memory], idle_bytes: int, bound: int) -> Table:
    table = Table(title=f"peak memory at {WORKLOAD.parameters:,} parameters, {WORKERS} workers, MB")
    table.add_column("process")
    table.add_column("all", justify="right")
    table.add_column("of it shared memory", justify="right")
    for name, memory in peak.items():
        cells = (f"{memory.total_bytes / MB:,.0f}", f"{memory.shared_memory_bytes / MB:,.0f}")
        table.add_row(name if len(name) <= 60 else name[:57] + "...", *cells)
    table.add_section()
    shared = sum(memory.shared_memory_bytes for memory in peak.values())
    table.add_row("sum", f"{total_bytes(peak) / MB:,.0f}", f"{shared / MB:,.0f}")
    table.add_row("bound", f"{bound / MB:,.0f}", f"{model_bytes(WORKLOAD.parameters, WORKERS) / MB:,.0f}")
    table.add_row("an idle Ray worker", f"{idle_bytes / MB:,.0f}", "")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the peak memory of a run against its bound.")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write machine and figures there")
    parser.add_argument("--check", action="store_true", help="exit status 1 where the run takes more than the bound")
    options = parser.parse_args(argv)
    try:
        idle_bytes = idle_worker_bytes(WORKERS + 1)
        summary, sampler = run()
    except BenchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    processes = 1 + summary["servers"] + summary["workers"]
    bound = bound_bytes(WORKLOAD.parameters, WORKERS, processes=processes, idle_bytes=idle_bytes)
    peak_bytes = total_bytes(sampler.peak)
    console = Console()
    console.print(report(sampler.peak, idle_bytes, bound))
    verdict = "within" if peak_bytes <= bound else "over"
    console.print(f"{verdict} the bound, by {abs(bound - peak_bytes) / MB:,.0f} MB, in {sampler.samples} samples")
    if options.json:
        figures = {
            "machine": machine.describe(),
            "parameters": WORKLOAD.parameters,
            "processes": processes,
            "idle_worker_bytes": idle_bytes,
            "bound_bytes": bound,
            "peak_bytes": peak_bytes,
            "peak": {name: vars(memory) for name, memory in sampler.peak.items()},
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if options.check and peak_bytes > bound else 0


if __name__ == "__main__":
    sys.exit(main())
