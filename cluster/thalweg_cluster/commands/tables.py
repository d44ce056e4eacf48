"""The table of jobs, as a person reads it: in columns that fit a terminal; elsewhere in plain lines, whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from thalweg_cluster.commands.visible import visible

if TYPE_CHECKING:
    from thalweg_cluster.client import Job

COLUMNS = ("job", "name", "state", "age", "step", "loss", "samples/s", "worker-s", "")
_RIGHT = ("job", "age", "step", "loss", "samples/s", "worker-s")
_STYLES = {"succeeded": "green", "failed": "red", "running": "cyan", "cancelling": "yellow", "cancelled": "yellow"}


def print_jobs(console: Console, jobs: Sequence[Job], now: float) -> None:
    """`now`: seconds since 1970."""
    rows = [cells(job, now) for job in jobs]
    if not console.is_terminal:
        widths = [max(len(row[i]) for row in (COLUMNS, *rows)) for i in range(len(COLUMNS))]
        for row in (COLUMNS, *rows):
            texts = [
                text.rjust(width) if name in _RIGHT else text.ljust(width)
                for name, text, width in zip(COLUMNS, row, widths, strict=True)
            ]
            print("  ".join(texts).rstrip())
        return
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(
            name, justify="right" if name in _RIGHT else "left", overflow="fold" if not name else "ellipsis"
        )
    for job, row in zip(jobs, rows, strict=True):
        table.add_row(*row, style=_STYLES.get(job.state, ""))
    console.print(table)


def cells(job: Job, now: float) -> tuple[str, ...]:
    """What stands in each column."""
    return (
        job.id,
        job.name,
        job.state,
        age(now - job.submitted_s),
        "" if job.step is None else f"{job.step:,}",
        "" if job.loss is None else f"{job.loss:.4f}",
        "" if job.samples_per_s is None else f"{job.samples_per_s:,.0f}",
        f"{job.worker_seconds:,.0f}",
        job.why or visible(job.error.partition("\n")[0]),
    )


def age(seconds: float) -> str:
    """e.g. "42 s", "7 min", "3 h", "12 d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds / length)} {unit}"
    return f"{max(0, int(seconds))} s"
