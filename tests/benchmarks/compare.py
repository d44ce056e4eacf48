"""Thalweg beside PyTorch DDP, Ray's parameter server example and a plain NumPy loop, on the same work.

    python -m tests.benchmarks.compare                     all systems and sizes, 3 rounds
    python -m tests.benchmarks.compare --only ddp,plain --hidden 128,512 --quick
    python -m tests.benchmarks.compare --json bench.json --check

All take random mini-batches of the same 60,000 random rows, with 2 workers of one thread each (the plain loop is one
process). Thalweg runs with its own differentiation, and with the module of PyTorch that DDP runs. Within a round the
systems run one after the other at each size; the order turns from round to round.

Exit status: 0; 1 where a run fails or, with --check, a target is missed; 2 where the command line is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from tests.benchmarks import machine
from tests.benchmarks.figures import Measurement, Ratio, missed, ratios, turn
from tests.benchmarks.launch import BenchError, run_rival, train
from tests.benchmarks.options import at_least_one, some_of
from tests.benchmarks.report import TITLES, progress, ratio_table, speed_table
from tests.benchmarks.workload import (
    WARMUP_STEPS,
    WORKERS,
    WORKLOADS,
    Workload,
    rival_options,
    thalweg_job,
    write_data,
)

RIVALS = {"ddp": "ddp", "ray": "ray_parameter_server", "ray-numpy": "ray_numpy_weights", "plain": "plain_numpy"}
SYSTEMS = ("thalweg", "thalweg-torch", "ddp", "ray", "ray-numpy", "plain", "thalweg-1")
SYSTEMS_BY_DEFAULT = SYSTEMS[:-1]


def measure(system: str, workload: Workload, *, data: Path, seconds: float, round_index: int) -> Measurement:
    """Run one system once; `data` is the folder of `write_data`.

    Raises BenchError where the run fails, or where Thalweg trained another number of parameters or steps than asked.
    """
    steps = workload.steps(system, seconds)
    if system.startswith("thalweg"):
        workers = 1 if system == "thalweg-1" else WORKERS
        engine = "torch" if system == "thalweg-torch" else "numpy"
        job = thalweg_job(workload, steps=WARMUP_STEPS + steps, workers=workers, engine=engine)
        figures = train(job, data, steps=WARMUP_STEPS + steps, parameters=workload.parameters)
    else:
        workers = 1 if system == "plain" else WORKERS
        options = rival_options(workload, data=data, workers=workers, steps=steps)
        figures = run_rival(RIVALS[system], options)
    return Measurement(
        round=round_index,
        hidden=workload.hidden,
        system=system,
        samples_per_s=figures["samples_per_s"],
        step_p50_ms=figures["step_ms"]["p50"],
        phase_ms=figures.get("phase_ms", {}),
    )


def measure_all(
    systems: tuple[str, ...], workloads: Sequence[Workload], *, repeats: int, seconds: float, console: Console
) -> list[Measurement]:
    """Every system at every size in every round, with a line on the console for each."""
    measurements = []
    with tempfile.TemporaryDirectory(prefix="thalweg-bench-") as folder:
        data = Path(folder)
        write_data(data)
        for round_index in range(repeats):
            for workload in workloads:
                for system in turn(systems, round_index):
                    result = measure(system, workload, data=data, seconds=seconds, round_index=round_index)
                    measurements.append(result)
                    console.print(progress(result, repeats, TITLES[system]), soft_wrap=True)
    return measurements


def document(measurements: Sequence[Measurement], found: Sequence[Ratio]) -> dict[str, object]:
    """Everything that is written to --json."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "machine": machine.describe(),
        "workers": WORKERS,
        "warmup_steps": WARMUP_STEPS,
        "workloads": [asdict(workload) for workload in WORKLOADS.values()],
        "measurements": [asdict(measurement) for measurement in measurements],
        "ratios": [asdict(ratio) | {"median": ratio.median, "reached": ratio.reached} for ratio in found],
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare Thalweg with its rivals.")
    parser.add_argument("--only", type=some_of(SYSTEMS), default=SYSTEMS_BY_DEFAULT, metavar=",".join(SYSTEMS))
    parser.add_argument(
        "--hidden", type=some_of(WORKLOADS), default=tuple(WORKLOADS), metavar=",".join(map(str, WORKLOADS))
    )
    parser.add_argument("--repeats", type=at_least_one, default=3, metavar="ROUNDS")
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long each run is timed (4)")
    parser.add_argument("--quick", action="store_true", help="1 round, 1 second each: whether it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write machine, ratios and raw figures there")
    parser.add_argument("--check", action="store_true", help="exit status 1 where a target is missed")
    options = parser.parse_args(argv)
    if options.quick:
        options.repeats, options.seconds = 1, 1.0
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    console = Console()
    workloads = [WORKLOADS[hidden] for hidden in options.hidden]
    try:
        measurements = measure_all(
            options.only, workloads, repeats=options.repeats, seconds=options.seconds, console=console
        )
    except BenchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    found = ratios(measurements)
    console.print(speed_table(measurements, options.only))
    if found:
        console.print(ratio_table(found))
    if options.json:
        options.json.write_text(json.dumps(document(measurements, found), indent=2) + "\n")
    return 1 if options.check and missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
