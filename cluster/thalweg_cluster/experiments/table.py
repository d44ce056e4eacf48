"""What an experiment came to, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from thalweg_cluster.experiments.parts import MEANING
from thalweg_cluster.experiments.results import Results
from thalweg_cluster.experiments.wording import (
    SPEED,
    STEP,
    conclusions,
    failures,
    speed_cells,
    step_cells,
    targets,
    title,
    told,
)


def print_results(console: Console, results: Results) -> None:
    """Prints a table for each series, and what follows from it."""
    console.print(title(results.experiment), highlight=False, soft_wrap=True)
    analyses = {analysis.series: analysis for analysis in results.analyses}
    for series, group in groupby(results.rows, key=lambda row: row.configuration.series):
        rows = list(group)
        console.print()
        _print_table(console, str(series), SPEED, [speed_cells(row) for row in rows])
        if any(row.split is not None for row in rows):
            _print_table(console, "a worker's mean step, ms", STEP, [step_cells(row) for row in rows])
        for line in conclusions(analyses[series]):
            console.print(f"  {line}", highlight=False, soft_wrap=True)
    if any(row.split is not None for row in results.rows):
        console.print()
        for part, meaning in MEANING.items():
            console.print(f"{part:9} {meaning}", highlight=False)
    for line in targets(results):
        console.print(line, highlight=False, soft_wrap=True)
    for line in failures(results):
        console.print(f"failed: {line}", style="red", highlight=False, soft_wrap=True, markup=False)


def _print_table(console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    header, rows = told(header, rows)
    for name in header:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
