"""The same `nn.Module` on one GPU: in a plain loop, and under Thalweg with 1 and 2 workers on it.

    python -m tests.benchmarks.gpu                     both networks, 3 rounds
    python -m tests.benchmarks.gpu --only plain,thalweg-1 --networks resnet --quick
    python -m tests.benchmarks.gpu --json bench-gpu.json --check

Each system takes 256 samples a step, two workers half of them each; models of 25 million parameters. With the residual
network a step is long beside what moves, 0.1 GB each way; with the perceptron it is not, which shows what that costs.
The plain loop waits for the GPU at the end only; its steps are timed by CUDA's own events.

Exit status: 0; 1 where a run fails or, with --check, a target is missed; 2 where the command line is wrong, or there is
no GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from tests.benchmarks.figures import Measurement, Rule, measurement, ratios
from tests.benchmarks.launch import BenchError, run_rival, train
from tests.benchmarks.modules import PLAIN_ROWS, module_job, module_rival
from tests.benchmarks.options import add_rounds, parsed, some_of
from tests.benchmarks.report import conclude
from tests.benchmarks.rounds import in_rounds
from tests.benchmarks.workload import STEPS_MIN, WARMUP_STEPS

from thalweg_proto.errors import WorkerError
from thalweg_worker.engines import Card, card_of, not_installed

BATCH, ROWS = 256, 2048
WORKERS = {"plain": 1, "thalweg-1": 1, "thalweg-2": 2}
TITLES = {"plain": "plain loop", "thalweg-1": "Thalweg, 1 worker", "thalweg-2": "Thalweg, 2 workers"}
SYSTEMS = tuple(TITLES)


@dataclass(frozen=True, kw_only=True)
class Network:
    """name: of the file in `networks`; shape: of a sample; step_ms: about what a step takes, which decides the number
    of steps only."""

    name: str
    shape: tuple[int, ...]
    step_ms: float
    options: dict[str, int] = field(default_factory=dict)

    def steps(self, seconds: float) -> int:
        """Under the clock, for a run of about `seconds`."""
        return max(STEPS_MIN, round(seconds * 1000 / self.step_ms))


NETWORKS = {
    network.name: network
    for network in (
        Network(name="resnet", shape=(3, 64, 64), step_ms=150),
        Network(name="mlp", shape=(784,), step_ms=40, options={"hidden": 4608}),
    )
}
RULES = (
    # At most 10 % slower a step.
    Rule(name="Thalweg, 1 worker / plain loop", over="thalweg-1", under="plain", targets={"resnet": 1 / 1.1}),
    Rule(name="Thalweg, 2 workers / plain loop", over="thalweg-2", under="plain"),
)


def write_data(folder: Path, network: Network, rows: int = ROWS) -> None:
    """x.npy, (rows, *shape) float32 from N(0, 1), and y.npy, (rows,) int64 of ten classes."""
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.standard_normal((rows, *network.shape), np.float32))
    np.save(folder / "y.npy", np.arange(rows) % 10)


def job(network: Network, *, workers: int, steps: int) -> dict[str, object]:
    """The job file that does the plain loop's work: see `module_job`. All workers are on one GPU."""
    return module_job(
        f"{network.name}.py",
        network.options,
        data=PLAIN_ROWS,
        batch=BATCH // workers,
        steps=steps,
        workers=workers,
        gpus_per_worker=1 / workers,
    )


def measure(system: str, network: Network, *, folder: Path, seconds: float, device: str = "cuda") -> Measurement:
    """Run one system once; `folder` has a folder with the data of each network. BenchError where the run fails.

    device: of the plain loop
    """
    data, steps = folder / network.name, network.steps(seconds)
    if system == "plain":
        options = module_rival(
            f"{network.name}.py", network.options, data=data, batch=BATCH, workers=1, steps=steps, device=device
        )
        return measurement(network.name, system, run_rival("nn_module", options))
    total, workers = WARMUP_STEPS + steps, WORKERS[system]
    figures = train(job(network, workers=workers, steps=total), data, steps=total, workers=workers)
    return measurement(network.name, system, figures)


def find_card() -> Card:
    """The GPU to measure on. WorkerError where there is none."""
    if problems := not_installed("torch", "bench-gpu", "a framework"):
        raise WorkerError(str(problems[0]))
    return card_of("torch")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare Thalweg with a plain loop on one GPU.")
    parser.add_argument("--only", type=some_of(SYSTEMS), default=SYSTEMS, metavar=",".join(SYSTEMS))
    parser.add_argument("--networks", type=some_of(NETWORKS), default=tuple(NETWORKS), metavar=",".join(NETWORKS))
    add_rounds(parser)
    parser.add_argument("--check", action="store_true", help="exit status 1 where a target is missed")
    return parsed(parser, argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    try:
        card = find_card()
    except WorkerError as error:
        print(f"bench-gpu measures on a GPU, and there is none: {error}", file=sys.stderr)
        return 2
    console = Console()
    console.print(f"on {card.name}, {card.memory_bytes / 2**30:.0f} GiB", highlight=False)
    networks = [NETWORKS[name] for name in options.networks]
    try:
        with tempfile.TemporaryDirectory(prefix="thalweg-bench-") as name:
            for network in networks:
                (Path(name) / network.name).mkdir()
                write_data(Path(name) / network.name, network)
            run = partial(measure, folder=Path(name), seconds=options.seconds)
            measurements = in_rounds(run, options.only, networks, TITLES, repeats=options.repeats, console=console)
    except BenchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    found = ratios(measurements, RULES)
    return conclude(measurements, found, options, TITLES, console, gpu=asdict(card))


if __name__ == "__main__":
    sys.exit(main())
