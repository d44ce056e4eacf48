"""What replicas in memory cost a run in which nothing dies: the same job with and without, on two hosts.

    python -m tests.benchmarks.replicas [--hidden 1024] [--every 5] [--seconds 20] [--repeats 3] [--json PATH]

Needs root: the hosts are those of tests.benchmarks.net, at 1 Gbit/s. Runs with and without alternate, each on a Ray
cluster of its own; the figure is the median of the rounds' ratios of samples a second, with the smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks import machine
from tests.benchmarks.launch import BenchError, train
from tests.benchmarks.net import running, spread_job, steps_for
from tests.benchmarks.workload import WARMUP_STEPS, WORKERS, WORKLOADS, write_data
from tests.hosts.needs import why_not
from tests.hosts.network import Hosts
from tests.hosts.process import HostError
from tests.hosts.ray_hosts import RayHosts


def measure(hosts: Hosts, data: Path, *, hidden: int, every_s: float, seconds: float) -> dict[str, Any]:
    """The summary of one run; every_s: 0: without replicas."""
    workload = WORKLOADS[hidden]
    steps = WARMUP_STEPS + steps_for(workload, seconds)
    job = spread_job("thalweg", workload, steps=steps) | {
        "checkpoint": {"every_steps": 0, "replicate_every_s": every_s}
    }
    with RayHosts(hosts) as cluster:
        start = partial(running, host=hosts[0], environment=cluster.environment)
        return train(job, data, start=start, steps=steps, hosts=len(hosts))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, choices=sorted(WORKLOADS), default=1024)
    parser.add_argument("--every", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if reason := why_not():
        print(f"no hosts on this machine: {reason}", file=sys.stderr)
        return 2
    rounds = []
    try:
        with tempfile.TemporaryDirectory() as folder, Hosts(WORKERS, bandwidth_gbit_s=1.0, own_cores=True) as hosts:
            write_data(Path(folder))
            run = partial(measure, hosts, Path(folder), hidden=options.hidden, seconds=options.seconds)
            for number in range(options.repeats):
                order = (0.0, options.every) if number % 2 == 0 else (options.every, 0.0)
                done = {every_s: run(every_s=every_s) for every_s in order}
                without, with_replicas = done[0.0], done[options.every]
                rounds.append({"without": without, "with": with_replicas})
                print(
                    f"without {without['samples_per_s']:,.0f}, with {with_replicas['samples_per_s']:,.0f} samples/s; "
                    f"step {without['step_ms']['p50']:.1f} and {with_replicas['step_ms']['p50']:.1f} ms (median); "
                    f"replicas {with_replicas['replicas']}",
                    flush=True,
                )
    except (BenchError, HostError) as error:
        print(error, file=sys.stderr)
        return 1
    costs = [100 * (1 - each["with"]["samples_per_s"] / each["without"]["samples_per_s"]) for each in rounds]
    print(f"cost, % of the samples a second: {median(costs):.1f} ({min(costs):.1f} to {max(costs):.1f})")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine.describe(), "rounds": rounds}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
