"""Thalweg beside PyTorch DDP, Ray's parameter server example and a plain NumPy loop, on the same work.

    python -m tests.benchmarks.compare                     all systems and sizes, 3 rounds
    python -m tests.benchmarks.compare --only ddp,plain --hidden 128,512 --quick
    python -m tests.benchmarks.compare --json bench.json --check

All take random mini-batches of the same 60,000 random rows, with 2 workers of one thread each. The plain loop is one
process, and then two that know nothing of each other: what two cores of this machine do at most, since they share
caches, memory and clock. Within a round the systems run one after the other at each size; the order turns from round to
round.

Exit status: 0; 1 where a run fails or, with --check, a target is missed; 2 where the command line is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from tests.benchmarks.figures import Measurement, measurement, ratios
from tests.benchmarks.launch import BenchError, run_at_once, run_rival, train
from tests.benchmarks.options import add_rounds, parsed, some_of
from tests.benchmarks.report import conclude
from tests.benchmarks.rounds import in_rounds
from tests.benchmarks.workload import (
    WARMUP_STEPS,
    WORKERS,
    WORKLOADS,
    Workload,
    rival_options,
    thalweg_job,
    write_data,
)

TITLES = {
    "thalweg": "Thalweg",
    "ddp": "PyTorch DDP",
    "ray": "Ray example",
    "ray-numpy": "Ray, NumPy weights",
    "plain": "plain loop (1 process)",
    "plain-2": "2 plain loops at once",
    "thalweg-1": "Thalweg, 1 worker",
}
LOOPS = {"plain": 1, "plain-2": WORKERS}
RIVALS = {"ddp": "ddp", "ray": "ray_parameter_server", "ray-numpy": "ray_numpy_weights"}
SYSTEMS = tuple(TITLES)
SYSTEMS_BY_DEFAULT = SYSTEMS[:-1]


def measure(system: str, workload: Workload, *, data: Path, seconds: float) -> Measurement:
    """Run one system once; `data` is the folder of `write_data`.

    Raises BenchError where the run fails, or where Thalweg trained another number of parameters or steps than asked.
    """
    steps = workload.steps(system, seconds)
    if system.startswith("thalweg"):
        workers = 1 if system == "thalweg-1" else WORKERS
        job = thalweg_job(workload, steps=WARMUP_STEPS + steps, workers=workers)
        figures = train(job, data, steps=WARMUP_STEPS + steps, parameters=workload.parameters)
    elif system in LOOPS:
        options = rival_options(workload, data=data, workers=1, steps=steps)
        loops = run_at_once("plain_numpy", options, LOOPS[system])
        figures = {**loops[0], "samples_per_s": sum(loop["samples_per_s"] for loop in loops)}
    else:
        options = rival_options(workload, data=data, workers=WORKERS, steps=steps)
        figures = run_rival(RIVALS[system], options)
    return measurement(workload.network, system, figures)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare Thalweg with its rivals.")
    parser.add_argument("--only", type=some_of(SYSTEMS), default=SYSTEMS_BY_DEFAULT, metavar=",".join(SYSTEMS))
    parser.add_argument(
        "--hidden", type=some_of(WORKLOADS), default=tuple(WORKLOADS), metavar=",".join(map(str, WORKLOADS))
    )
    add_rounds(parser)
    parser.add_argument("--check", action="store_true", help="exit status 1 where a target is missed")
    return parsed(parser, argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    console = Console()
    workloads = [WORKLOADS[hidden] for hidden in options.hidden]
    try:
        with tempfile.TemporaryDirectory(prefix="thalweg-bench-") as folder:
            data = Path(folder)
            write_data(data)
            run = partial(measure, data=data, seconds=options.seconds)
            measurements = in_rounds(run, options.only, workloads, TITLES, repeats=options.repeats, console=console)
    except BenchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return conclude(measurements, ratios(measurements), options, TITLES, console)


if __name__ == "__main__":
    sys.exit(main())
