"""`thalweg export | eval`: what a run has learned. Neither needs Ray."""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from thalweg_cluster.commands.mistakes import reported

if TYPE_CHECKING:
    from thalweg_cluster.launch.trained import Trained

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="The folder of a run; where it has not come to its end, its newest whole checkpoint counts.",
        show_default=False,
    ),
]


class Form(str, Enum):
    """What `--to` takes."""

    TORCH = "torch"
    JAX = "jax"
    NPZ = "npz"


def export(
    folder: Folder,
    to: Annotated[
        Form,
        typer.Option(
            help="torch: a state dict of all that the module has; jax: the arrays of your tree by their paths, in a "
            ".npz; npz: an array by name, of any job.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Default: weights.pt, weights.jax.npz or weights.npz in DIR.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there. Default: refuse to.")] = False,
) -> None:
    """Write the weights of a run as a file that your own framework loads, with your own names.

    Where the model's file has changed since, or is gone, the run's own copy of it is used.
    """
    with reported():
        from thalweg_cluster.launch.exporting import export as write
        from thalweg_cluster.launch.exporting import how_to_load

        trained, file = write(folder, to.value, out, force=force)
        _print_notes(trained, builds=to.value == trained.job.cluster.engine)
        console = _plain()
        count = sum(array.size for array in trained.parameters.values())
        console.print(f"{_weights(trained)}: {len(trained.parameters):,} arrays, {count:,} numbers, written to {file}")
        console.print(f"to load them in Python:\n{how_to_load(trained, to.value, file)}")


def evaluate(
    folder: Folder,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A data set in any form of data.eval: FILE.npz, .csv or .parquet, digits, x.npy,y.npy, or "
            '\'{ x = "x.npy", y = "y.npy" }\'. Default: what the job holds out.',
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: loss, accuracy, samples, step. Default: a table.")
    ] = False,
) -> None:
    """Show loss and accuracy of a run's weights on a data set, scaled and with classes as in training.

    Where a file of your own has changed since, or is gone, the run's own copy of it is used.
    """
    with reported():
        from thalweg_cluster.launch.evaluating import evaluate_run, read_data
        from thalweg_cluster.launch.trained import read_trained
        from thalweg_proto.errors import InputError, Problem, attempt

        problems: list[Problem] = []
        trained = attempt(problems, lambda: read_trained(folder))
        instead = None if data is None else attempt(problems, lambda: read_data(data))
        if trained is None or problems:
            raise InputError(problems)
        found = evaluate_run(trained, instead)
        _print_notes(trained, builds=True)
        if as_json:
            print(json.dumps({**dataclasses.asdict(found), "step": trained.step}))
            return
        rows = [
            ("weights", _weights(trained)),
            ("data", "what the job holds out" if data is None else data),
            ("samples", f"{found.samples:,}"),
            ("loss", f"{found.loss:.4f}"),
        ]
        if found.accuracy is not None:
            rows.append(("accuracy", f"{100 * found.accuracy:.2f} %"))
        _plain().print("\n".join(f"{name:<10}{value}" for name, value in rows))


def _weights(trained: Trained) -> str:
    """Which ones: `digits after step 200, its last`."""
    which = "its last" if trained.ended else "its newest whole checkpoint: the run has not come to its end"
    return f"{trained.job.name} after step {trained.step:,}, {which}"


def _print_notes(trained: Trained, *, builds: bool) -> None:
    """`builds`: whether the model was built anew, so that it matters from which file."""
    from thalweg_cluster.reporting.wording import warning

    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    for reason in trained.refused:
        errors.print(warning(f"not used: {reason}"))
    for note in trained.notes if builds else ():
        errors.print(warning(note))


def _plain() -> Console:
    return Console(highlight=False, soft_wrap=True, markup=False)
