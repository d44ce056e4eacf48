"""The same `nn.Module` under Thalweg, under PyTorch DDP, and in a plain loop of one process.

    python -m tests.benchmarks.modules                     all systems and networks, 3 rounds
    python -m tests.benchmarks.modules --only ddp,thalweg --networks "H 512,convnet" --quick
    python -m tests.benchmarks.modules --json modules.json --check

The modules are in tests/benchmarks/networks, and every system builds them from there. One thread a worker; within a
round the systems run one after the other with each network, and their order turns from round to round.

Exit status: 0; 1 where a run fails or, with --check, a target is missed; 2 where the command line is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from tests.benchmarks.figures import Measurement, Rule, measurement, ratios
from tests.benchmarks.launch import BenchError, run_rival, train
from tests.benchmarks.options import add_rounds, parsed, some_of
from tests.benchmarks.report import conclude
from tests.benchmarks.rounds import in_rounds
from tests.benchmarks.workload import LEARNING_RATE, MOMENTUM, STEPS_MIN, WARMUP_STEPS, WORKERS, write_data

FOLDER = Path(__file__).parent / "networks"
CONTEXT, CHARACTERS, TEXTS = 64, 65, 8192

TITLES = {
    "thalweg": "Thalweg",
    "ddp": "PyTorch DDP",
    "thalweg-1": "Thalweg, 1 worker",
    "plain": "plain loop (1 process)",
}
SYSTEMS = tuple(TITLES)
OF_ONE = ("thalweg-1", "plain")
"""Systems of one worker."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is trained.

    name:    of the network
    file:    in `networks`
    options: of its `build`
    batch:   rows a worker takes in a step
    step_ms: about what a step takes; it decides the number of steps only
    text:    its inputs are sequences of characters, else rows of 784 numbers
    """

    name: str
    file: str
    options: Mapping[str, int] = field(default_factory=dict)
    batch: int
    step_ms: float
    text: bool = False

    def steps(self, seconds: float) -> int:
        """Steps under the clock for a run of about `seconds`, at least STEPS_MIN."""
        return max(STEPS_MIN, round(seconds * 1000 / self.step_ms))


def _mlp(hidden: int, batch: int, step_ms: float) -> Network:
    return Network(name=f"H {hidden}", file="mlp.py", options={"hidden": hidden}, batch=batch, step_ms=step_ms)


NETWORKS = {
    network.name: network
    for network in (
        _mlp(128, 64, 2),
        _mlp(512, 128, 8),
        _mlp(1024, 128, 20),
        _mlp(4096, 128, 250),
        Network(name="convnet", file="convnet.py", batch=64, step_ms=18),
        Network(name="transformer", file="transformer.py", batch=16, step_ms=95, text=True),
    )
}
RULES = (
    Rule(
        name="Thalweg / DDP",
        over="thalweg",
        under="ddp",
        targets={"H 128": 3.0, "H 512": 1.6, "H 1024": 1.25, "H 4096": 1.35, "convnet": 1.2, "transformer": 1.05},
    ),
    Rule(
        name="Thalweg, 1 worker / plain loop",  # what the engine adds is under 5 %
        over="thalweg-1",
        under="plain",
        targets=dict.fromkeys(("H 512", "H 1024", "H 4096"), 0.95),
    ),
    Rule(name="Thalweg / (2 x plain loop)", over="thalweg", under="plain", times=2),
)


PLAIN_ROWS: Mapping[str, object] = {
    "train": {"x": "x.npy", "y": "y.npy"},
    "task": "classification",
    "scale": "none",
}
"""Of a job file: rows as `write_data` leaves them."""


def write_text(folder: Path) -> None:
    """text.txt, of characters drawn at random; and for the rivals its samples: x.npy, (8192, 64) int64 characters by
    their number, and y.npy, the character that follows each."""
    numbers = np.random.default_rng(0).integers(CHARACTERS, size=TEXTS * CONTEXT + 1)
    (folder / "text.txt").write_text("".join(chr(ord("0") + number) for number in numbers))
    np.save(folder / "x.npy", numbers[:-1].reshape(TEXTS, CONTEXT))
    np.save(folder / "y.npy", numbers[1:].reshape(TEXTS, CONTEXT))


def module_job(
    file: str, options: Mapping[str, int], *, data: Mapping[str, object], batch: int, steps: int, **cluster: object
) -> dict[str, object]:
    """The job file that does the work of the rival `nn_module`: nothing held out, scaled, evaluated or saved on the
    way.

    file, options: of the network in FOLDER
    batch:         of a worker
    cluster:       its keys; `workers` is one of them
    """
    workers = cluster["workers"]
    assert isinstance(workers, int)
    return {
        "name": "bench-module",
        "data": {"eval": 0.0, **data},
        "model": {"use": f"{FOLDER / file}:build", **options},
        "train": {"steps": steps, "batch_size": workers * batch, "microbatches": workers, "eval_every": 0},
        "optimizer": {"rule": "momentum", "learning_rate": LEARNING_RATE, "momentum": MOMENTUM},
        "cluster": {"engine": "torch", **cluster},
        "checkpoint": {"every_steps": 0},
    }


def module_rival(
    file: str, options: Mapping[str, int], *, data: Path, batch: int, workers: int, steps: int, **more: object
) -> dict[str, object]:
    """The command line of the rival `nn_module`, as `run_rival` takes it, for `steps` steps under the clock."""
    return {
        "network": FOLDER / file,
        "options": json.dumps(options),
        "data": data,
        "batch": batch,
        "workers": workers,
        "warmup_steps": WARMUP_STEPS,
        "steps": steps,
        "learning_rate": LEARNING_RATE,
        "momentum": MOMENTUM,
        **more,
    }


def job(network: Network, *, workers: int, steps: int) -> dict[str, object]:
    """The job file for Thalweg: see `module_job`."""
    data = {"train": "text.txt", "context": CONTEXT} if network.text else PLAIN_ROWS
    return module_job(network.file, network.options, data=data, batch=network.batch, steps=steps, workers=workers)


def measure(system: str, network: Network, *, folder: Path, seconds: float) -> Measurement:
    """Run one system once; `folder` has the data in `rows` and in `text`. BenchError where the run fails."""
    data = folder / ("text" if network.text else "rows")
    workers = 1 if system in OF_ONE else WORKERS
    steps = network.steps(seconds)
    if system.startswith("thalweg"):
        total = WARMUP_STEPS + steps
        figures = train(job(network, workers=workers, steps=total), data, steps=total, workers=workers)
    else:
        options = module_rival(
            network.file, network.options, data=data, batch=network.batch, workers=workers, steps=steps
        )
        figures = run_rival("nn_module", options)
    return measurement(network.name, system, figures)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare Thalweg with DDP and a plain loop on the same nn.Module.")
    parser.add_argument("--only", type=some_of(SYSTEMS), default=SYSTEMS, metavar=",".join(SYSTEMS))
    parser.add_argument("--networks", type=some_of(NETWORKS), default=tuple(NETWORKS), metavar=",".join(NETWORKS))
    add_rounds(parser)
    parser.add_argument("--check", action="store_true", help="exit status 1 where a target is missed")
    return parsed(parser, argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    console = Console()
    networks = [NETWORKS[name] for name in options.networks]
    try:
        with tempfile.TemporaryDirectory(prefix="thalweg-bench-") as name:
            folder = Path(name)
            for data, write in (("rows", write_data), ("text", write_text)):
                (folder / data).mkdir()
                write(folder / data)
            run = partial(measure, folder=folder, seconds=options.seconds)
            measurements = in_rounds(run, options.only, networks, TITLES, repeats=options.repeats, console=console)
    except BenchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return conclude(measurements, ratios(measurements, RULES), options, TITLES, console)


if __name__ == "__main__":
    sys.exit(main())
