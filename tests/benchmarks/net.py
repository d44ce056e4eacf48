"""Thalweg beside PyTorch DDP with a host for each worker, and beside what the wire and the arithmetic alone take.

    python -m tests.benchmarks.net                         all systems and sizes, 3 rounds
    python -m tests.benchmarks.net --only wire,compute,ddp --hidden 128,512 --quick
    python -m tests.benchmarks.net --json net.json --gbit 10

Two hosts on this machine (tests/hosts), joined at 1 Gbit/s in each direction, one worker of one thread on each. The
network, the data and the steps are those of tests.benchmarks.compare.

wire:    each host sends the other as many bytes as the gradient has, over one plain TCP connection, at the same time.
         An all-reduce between two hosts has to send as much in each direction, and so has a parameter server with half
         of the parameters on each host: half a gradient out, half of the new parameters out.
compute: the plain NumPy loop on one host, which takes one worker's rows and sends nothing.
ideal:   the slower of the two in each round, where one hides behind the other in full.

DDP speaks plaintext, and so does Thalweg here (--insecure): by default its hosts speak TLS, which takes some of the
cores' time.

A change of the numbers' format on the wire makes it shorter than `wire`; the ideal stays that of float32.

Exit status: 0; 1 where a run fails; 2 where the command line is wrong, or there can be no hosts on this machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from rich.console import Console
from tests.benchmarks.figures import Measurement, Rule, measurement, ratios
from tests.benchmarks.launch import (
    ENVIRONMENT,
    REPOSITORY,
    BenchError,
    finished,
    rival_command,
    rival_figures,
    train,
)
from tests.benchmarks.options import add_rounds, parsed, some_of
from tests.benchmarks.report import show, write_json
from tests.benchmarks.rounds import in_rounds
from tests.benchmarks.workload import (
    STEPS_MIN,
    WARMUP_STEPS,
    WORKERS,
    WORKLOADS,
    Workload,
    rival_options,
    thalweg_job,
    write_data,
)
from tests.hosts.host import Host
from tests.hosts.needs import why_not
from tests.hosts.network import INTERFACE, Hosts
from tests.hosts.process import HostError
from tests.hosts.ray_hosts import RayHosts
from tests.hosts.wire import exchange_s

# The keys of [cluster] that decide what crosses the wire: gradients, and parameters.
WIRES: Mapping[str, dict[str, str]] = {
    "thalweg": {},  # float32, float32
    "thalweg-bfloat16": {"wire": "bfloat16", "wire_parameters": "bfloat16"},
    "thalweg-int8": {"wire": "int8", "wire_parameters": "bfloat16"},
}
TITLES = {
    "wire": "wire",
    "compute": "compute (plain loop)",
    "ddp": "PyTorch DDP",
    "thalweg": "Thalweg",
    "thalweg-bfloat16": "Thalweg, bfloat16",
    "thalweg-int8": "Thalweg, int8",
}
SYSTEMS = tuple(TITLES)
RULES = (
    Rule(name="Thalweg / DDP", over="thalweg", under="ddp"),
    Rule(name="Thalweg, bfloat16 / DDP", over="thalweg-bfloat16", under="ddp"),
    Rule(name="Thalweg, int8 / DDP", over="thalweg-int8", under="ddp"),
    Rule(name="DDP / ideal", over="ddp", under="ideal"),
    Rule(name="Thalweg / ideal", over="thalweg", under="ideal"),
    Rule(name="Thalweg, bfloat16 / ideal", over="thalweg-bfloat16", under="ideal"),
    Rule(name="Thalweg, int8 / ideal", over="thalweg-int8", under="ideal"),
)
# At 1 Gbit/s, as measured with DDP on 2 cores; it decides the number of steps only.
EXPECTED_STEP_MS = {128: 6.0, 512: 30.0, 1024: 90.0, 4096: 1000.0}
PORT = 29500  # as torchrun's; each host has all its ports to itself


def steps_for(workload: Workload, seconds: float) -> int:
    """Steps under the clock for a run of about `seconds` over the network, at least STEPS_MIN."""
    return max(STEPS_MIN, round(seconds * 1000 / EXPECTED_STEP_MS[workload.hidden]))


def spread_job(system: str, workload: Workload, *, steps: int) -> dict[str, object]:
    """The job file of one of `WIRES`: a worker on each host."""
    return thalweg_job(workload, steps=steps, cluster={"placement": "SPREAD"} | WIRES[system])


@contextmanager
def running(
    command: Sequence[str], cwd: Path, *, host: Host, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The command on a host until the end of the block, with its output in pipes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with host.popen(command, cwd=cwd, env=dict(environment) | ENVIRONMENT, **pipes) as child:
        yield child


def measure_wire(hosts: Hosts, workload: Workload, *, data: Path, seconds: float) -> Measurement:
    """As many exchanges as steps; `samples_per_s` is that of workers that do nothing else in a step."""
    taken_s = exchange_s(hosts[0], hosts[1], 4 * workload.parameters, steps_for(workload, seconds))
    return Measurement(
        network=workload.network,
        system="wire",
        samples_per_s=WORKERS * workload.batch * len(taken_s) / sum(taken_s),
        step_p50_ms=median(taken_s) * 1000,
    )


def measure_compute(hosts: Hosts, workload: Workload, *, data: Path, seconds: float) -> Measurement:
    """The loop of one worker; `samples_per_s` is that of two which do not disturb each other."""
    options = rival_options(workload, data=data, workers=1, steps=workload.steps("plain", seconds))
    command = rival_command("plain_numpy", options)
    with running(command, REPOSITORY, host=hosts[0], environment=_inherited()) as child:
        figures = rival_figures(finished(child))
    return measurement(workload.network, "compute", figures | {"samples_per_s": WORKERS * figures["samples_per_s"]})


def measure_ddp(hosts: Hosts, workload: Workload, *, data: Path, seconds: float) -> Measurement:
    """One rank on each host, over gloo."""
    options = rival_options(workload, data=data, workers=WORKERS, steps=steps_for(workload, seconds))
    group = {"MASTER_ADDR": hosts[0].address, "MASTER_PORT": str(PORT), "GLOO_SOCKET_IFNAME": INTERFACE}
    command = rival_command("ddp_host", options)
    with ExitStack() as stack:
        ranks = []
        for rank, host in enumerate(hosts):
            environment = _inherited() | group | {"RANK": str(rank)}
            ranks.append(stack.enter_context(running(command, REPOSITORY, host=host, environment=environment)))
        out, *_ = [finished(child) for child in ranks]
    return measurement(workload.network, "ddp", rival_figures(out))


def measure_thalweg(system: str, hosts: Hosts, workload: Workload, *, data: Path, seconds: float) -> Measurement:
    """A run on a Ray cluster of the hosts, which is there for this run only: even idle it takes from the cores."""
    steps = WARMUP_STEPS + steps_for(workload, seconds)
    job = spread_job(system, workload, steps=steps)
    with RayHosts(hosts) as cluster:
        figures = train(
            job,
            data,
            "--insecure",
            start=partial(running, host=hosts[0], environment=cluster.environment),
            steps=steps,
            parameters=workload.parameters,
            workers=WORKERS,
            hosts=len(hosts),
        )
    return measurement(workload.network, system, figures)


MEASURE = {"wire": measure_wire, "compute": measure_compute, "ddp": measure_ddp} | {
    system: partial(measure_thalweg, system) for system in WIRES
}


def ideals(measurements: Iterable[Measurement]) -> list[Measurement]:
    """The slower of wire and compute for each size and round that has both, as the system "ideal"."""
    bounds: dict[tuple[str, int], list[Measurement]] = {}
    for m in measurements:
        if m.system in ("wire", "compute"):
            bounds.setdefault((m.network, m.round), []).append(m)
    slower = [min(pair, key=lambda m: m.samples_per_s) for pair in bounds.values() if len(pair) == 2]
    return [replace(m, system="ideal") for m in slower]


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare Thalweg with DDP, each worker on a host of its own.")
    sizes = ",".join(map(str, WORKLOADS))
    parser.add_argument("--only", type=some_of(SYSTEMS), default=SYSTEMS, metavar=",".join(SYSTEMS))
    parser.add_argument("--hidden", type=some_of(WORKLOADS), default=tuple(WORKLOADS), metavar=sizes)
    parser.add_argument("--gbit", type=float, default=1.0, help="bandwidth of each host in each direction (1)")
    add_rounds(parser)
    return parsed(parser, argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 2
    console = Console()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="thalweg-bench-") as folder,
            Hosts(WORKERS, bandwidth_gbit_s=options.gbit, own_cores=True) as hosts,
        ):
            data = Path(folder)
            write_data(data)
            measurements = in_rounds(
                lambda system, workload: MEASURE[system](hosts, workload, data=data, seconds=options.seconds),
                options.only,
                [WORKLOADS[hidden] for hidden in options.hidden],
                TITLES,
                repeats=options.repeats,
                console=console,
            )
    except (BenchError, HostError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    found = ratios([*measurements, *ideals(measurements)], RULES)
    show(measurements, found, options.only, TITLES, console)
    if options.json:
        write_json(options.json, measurements, found, hosts=WORKERS, bandwidth_gbit_s=options.gbit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
