"""Every consistency mode and wire format on handwritten digits: how well, how soon, and with what traffic.

    python -m tests.benchmarks.modes FOLDER [--only sync,async] [--json PATH] [--check]

FOLDER holds images-idx3-ubyte.gz and labels-idx1-ubyte.gz, as MNIST is published; 20 % of it is held out. Two workers,
each on a host of its own (network namespaces), train the mlp 784-256-128-10 for 15 epochs with batches of 64.

Exit status: 0; 1 where a run fails or, with --check, the target is missed; 2 where the command line is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks import machine
from tests.benchmarks.accuracy import images, images_folder
from tests.benchmarks.launch import BenchError, finished, read_summary, thalweg_command, write_job
from tests.benchmarks.net import running
from tests.benchmarks.options import some_of
from tests.hosts.needs import why_not
from tests.hosts.network import Hosts
from tests.hosts.process import HostError
from tests.hosts.ray_hosts import RayHosts

TARGET = 0.935
EPOCHS, BATCH, MICROBATCHES, EVAL_EVERY = 15, 64, 4, 25
WORKERS = 2


def _mode(
    learning_rate: float, *, train: Mapping[str, object] = {}, cluster: Mapping[str, object] = {}
) -> dict[str, Any]:
    """What a mode changes in the job file; the rule is momentum 0.9 with a cosine schedule in all of them."""
    return {"learning_rate": learning_rate, "train": dict(train or {}), "cluster": dict(cluster or {})}


# With async and ssp each of the four microbatches of a step is an update of its own: a fourth of the learning rate.
# With local steps the outer rule, of rate 0.7 and momentum 0.9, makes seven times as much of each change.
MODES = {
    "sync": _mode(0.05),
    "sync-bfloat16": _mode(0.05, cluster={"wire": "bfloat16", "wire_parameters": "bfloat16"}),
    "sync-int8": _mode(0.05, cluster={"wire": "int8", "wire_parameters": "bfloat16"}),
    "sync-topk": _mode(0.05, cluster={"wire": "topk", "wire_fraction": 0.01, "wire_parameters": "bfloat16"}),
    "backup-1": _mode(0.05, train={"backup_workers": 1}),
    "ssp-2": _mode(0.0125, train={"consistency": "ssp", "staleness": 2}),
    "async": _mode(0.0125, train={"consistency": "async"}),
    "async-scaled": _mode(0.0125, train={"consistency": "async", "staleness_scaling": True}),
    "local-8": _mode(0.005, train={"local_steps": 8}),
}


def mode_job(mode: Mapping[str, Any], folder: Path) -> dict[str, object]:
    """The job file of a mode; `folder` holds the images and labels."""
    return {
        "name": "modes",
        "data": images(folder),
        "model": {"use": "mlp", "hidden": [256, 128]},
        "train": {
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "microbatches": MICROBATCHES,
            "eval_every": EVAL_EVERY,
            **mode["train"],
        },
        "optimizer": {"rule": "momentum", "learning_rate": mode["learning_rate"], "schedule": "cosine"},
        "cluster": {"workers": WORKERS, "placement": "SPREAD", **mode["cluster"]},
        "checkpoint": {"every_steps": 0},
    }


def reached(rows: Sequence[Mapping[str, Any]], target: float) -> tuple[int, float] | None:
    """The first evaluated row of metrics.jsonl with an accuracy of at least `target`: step and seconds."""
    return next(
        ((row["step"], row["time_s"]) for row in rows if row["evaluation"] and row["evaluation"]["accuracy"] >= target),
        None,
    )


def report(results: Mapping[str, dict[str, Any]], hosts: int) -> Table:
    table = Table(
        title=f"784-256-128-10, {EPOCHS} epochs, {WORKERS} workers on {hosts} hosts; to {TARGET:.1%} held-out accuracy"
    )
    names = (
        "mode",
        "learning rate",
        "accuracy",
        "steps to target",
        "seconds to target",
        "samples/s",
        "staleness",
        "dropped",
    )
    for name in names:
        table.add_column(name, justify="left" if name == "mode" else "right")
    for name, result in results.items():
        summary, target = result["summary"], result["reached"]
        table.add_row(
            name,
            f"{MODES[name]['learning_rate']:g}",
            f"{summary['eval']['accuracy']:.2%}",
            "[red]missed[/red]" if target is None else f"{target[0]:,}",
            "" if target is None else f"{target[1]:.1f}",
            f"{summary['samples_per_s']:,.0f}",
            f"{summary['staleness']['mean']:.2f}, max {summary['staleness']['max']}",
            f"{summary['dropped']:,}",
        )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train in every consistency mode and wire format.")
    parser.add_argument("folder", type=images_folder, metavar="FOLDER")
    parser.add_argument("--only", type=some_of(MODES), default=tuple(MODES), metavar=",".join(MODES))
    parser.add_argument("--json", type=Path, metavar="PATH", help="write machine, modes and summaries there")
    parser.add_argument("--check", action="store_true", help="exit status 1 where the target is missed")
    options = parser.parse_args(argv)
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 2
    console, results = Console(), {}
    try:
        with (
            tempfile.TemporaryDirectory(prefix="thalweg-modes-") as work,
            Hosts(WORKERS) as hosts,
            RayHosts(hosts) as cluster,
        ):
            start = partial(running, host=hosts[0], environment=cluster.environment)
            for index, name in enumerate(options.only):
                out = Path(work, f"out-{index}")
                job = write_job(mode_job(MODES[name], options.folder), Path(work, "job.toml"))
                with start(thalweg_command(job, out), Path(work)) as child:
                    finished(child)
                rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
                results[name] = {"summary": read_summary(out, hosts=WORKERS), "reached": reached(rows, TARGET)}
                console.print(f"{name}: {results[name]['summary']['eval']['accuracy']:.2%}", highlight=False)
    except (BenchError, HostError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    console.print(report(results, WORKERS))
    if options.json:
        content = {"machine": machine.describe(), "modes": MODES, "results": results}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if options.check and any(result["reached"] is None for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
