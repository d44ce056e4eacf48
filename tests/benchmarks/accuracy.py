"""Held-out accuracy of `thalweg train` on handwritten digits, against what a plain PyTorch loop reaches.

    python -m tests.benchmarks.accuracy FOLDER [--only mlp-momentum,convnet] [--json PATH] [--check]

FOLDER holds images-idx3-ubyte.gz and labels-idx1-ubyte.gz, as MNIST is published; 20 % of it is held out.

Exit status: 0; 1 where a run fails or, with --check, a target is missed; 2 where the command line is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks import machine
from tests.benchmarks.launch import BenchError, train

IMAGES, LABELS = "images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"
HELD_OUT = 0.2


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run and the held-out accuracy in [0, 1] that it has to reach.

    model, optimizer: these tables of the job file
    """

    model: Mapping[str, object]
    optimizer: Mapping[str, object]
    target: float
    epochs: int = 10
    batch_size: int = 64


TRIALS = {
    "mlp-momentum": Trial(
        model={"use": "mlp", "hidden": [256, 128]},
        optimizer={"rule": "momentum", "learning_rate": 0.05, "momentum": 0.9, "schedule": "cosine"},
        target=0.94,
    ),
    "mlp-rmsprop": Trial(
        model={"use": "mlp", "hidden": [256, 128]},
        optimizer={"rule": "rmsprop", "learning_rate": 0.001, "schedule": "cosine"},
        target=0.94,
    ),
    "convnet": Trial(
        model={"use": "convnet"},
        optimizer={"rule": "momentum", "learning_rate": 0.05, "momentum": 0.9, "schedule": "cosine"},
        target=0.975,
    ),
}


def images(folder: Path) -> dict[str, object]:
    """The table [data] for the images and labels in `folder`."""
    return {
        "train": {"x": str(folder / IMAGES), "y": str(folder / LABELS)},
        "eval": HELD_OUT,
        "task": "classification",
        "scale": "0-1",
    }


def accuracy_job(name: str, trial: Trial, folder: Path, workers: int = 2) -> dict[str, object]:
    """The job file of a trial; `folder` holds the images and labels."""
    return {
        "name": f"accuracy-{name}",
        "data": images(folder),
        "model": dict(trial.model),
        "train": {"epochs": trial.epochs, "batch_size": trial.batch_size},
        "optimizer": dict(trial.optimizer),
        "cluster": {"workers": workers},
        "checkpoint": {"every_steps": 0},
    }


def report(summaries: Mapping[str, dict[str, Any]]) -> Table:
    table = Table(title=f"held-out accuracy, {HELD_OUT:.0%} held out")
    for name in ("trial", "epochs", "train loss", "held-out loss", "accuracy", "target", "", "train_s"):
        table.add_column(name, justify="left" if name in ("trial", "") else "right")
    for name, summary in summaries.items():
        trial, held_out = TRIALS[name], summary["eval"]
        reached = held_out["accuracy"] >= trial.target
        table.add_row(
            name,
            str(trial.epochs),
            f"{summary['train_loss']:.4f}",
            f"{held_out['loss']:.4f}",
            f"{held_out['accuracy']:.2%}",
            f"{trial.target:.1%}",
            "[green]reached[/green]" if reached else "[red]missed[/red]",
            f"{summary['train_s']:.1f}",
        )
    return table


def _trials(text: str) -> tuple[str, ...]:
    if unknown := set(text.split(",")) - set(TRIALS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(TRIALS)}; found {','.join(sorted(unknown))}")
    return tuple(name for name in TRIALS if name in text.split(","))


def images_folder(text: str) -> Path:
    folder = Path(text).resolve()
    for name in (IMAGES, LABELS):
        if not (folder / name).is_file():
            raise argparse.ArgumentTypeError(f"expected a folder with {IMAGES} and {LABELS}; found no {folder / name}")
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train on handwritten digits and report the held-out accuracy.")
    parser.add_argument("folder", type=images_folder, metavar="FOLDER")
    parser.add_argument("--only", type=_trials, default=tuple(TRIALS), metavar=",".join(TRIALS))
    parser.add_argument("--json", type=Path, metavar="PATH", help="write machine, trials and summaries there")
    parser.add_argument("--check", action="store_true", help="exit status 1 where a target is missed")
    options = parser.parse_args(argv)
    summaries = {}
    try:
        with tempfile.TemporaryDirectory(prefix="thalweg-accuracy-") as work:
            for name in options.only:
                summaries[name] = train(accuracy_job(name, TRIALS[name], options.folder), Path(work))
    except BenchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    Console().print(report(summaries))
    if options.json:
        trials = {name: asdict(TRIALS[name]) | {"summary": summary} for name, summary in summaries.items()}
        options.json.write_text(json.dumps({"machine": machine.describe(), "trials": trials}, indent=2) + "\n")
    missed = [name for name, summary in summaries.items() if summary["eval"]["accuracy"] < TRIALS[name].target]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
