"""What is told when a run is over: how it went, where the time of a step went, what its ledger came to."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thalweg_cluster.ledger import Account
from thalweg_cluster.reporting.progress import describe_evaluation

_MEANING = {
    "sample": "drawing the samples",
    "compute": "forward and backward",
    "push": "saying that the gradients are there",
    "wait": "for other workers, sum, update, publish",
}


def print_closing(console: Console, summary: dict[str, Any], folder: str) -> None:
    """Prints what `summary` (summary.json) says, in a few lines."""
    console.print(f"[bold]{summary['state']}[/]  {_headline(summary)}", highlight=False)
    if summary["error"] is not None:
        console.print(f"[red]{escape(summary['error'])}[/]", highlight=False, soft_wrap=True)
    if summary["samples_per_s"]:
        console.print(_time_split(summary["phase_ms"], summary["apply_ms"]))
    _print_faults(console, summary["faults"])
    if summary["weights_sha256"]:
        console.print(f"weights sha256 {summary['weights_sha256']}", highlight=False)
    console.print(f"written to {folder}", highlight=False, soft_wrap=True)


def _print_faults(console: Console, faults: list[dict[str, Any]]) -> None:
    """Of a plan: how many fired, and by name those that did not."""
    if faults:
        fired = sum(fault["fired"] for fault in faults)
        console.print(f"{fired} of {len(faults)} planned faults fired", highlight=False)
    for fault in faults:
        if not fault["fired"]:
            console.print(f"[yellow]did not fire[/] {escape(fault['fault'])}", highlight=False, soft_wrap=True)


def _headline(summary: dict[str, Any]) -> str:
    parts = [
        f"{summary['steps']:,} steps, {summary['samples']:,} samples in {summary['train_s']:.1f} s{_startup(summary)}",
        f"{summary['samples_per_s']:,.0f} samples/s, step {summary['step_ms']['p50']:.2f} ms (median)",
    ]
    if summary["train_loss"] is not None:
        parts.append(f"loss {summary['train_loss']:.4f}")
    if summary["eval"] is not None:
        parts.append(describe_evaluation(summary["eval"]))
    return "\n".join(parts)


def _startup(summary: dict[str, Any]) -> str:
    return "" if summary["startup_s"] is None else f", after a start-up of {summary['startup_s']:.1f} s"


def _time_split(phase_ms: dict[str, float], apply_ms: float) -> Table:
    table = Table(title="a worker's step, mean", title_justify="left")
    table.add_column("phase")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    table.add_column("what")
    whole = sum(phase_ms.values()) or 1.0
    for phase, ms, meaning in (
        *((phase, phase_ms[phase], meaning) for phase, meaning in _MEANING.items()),
        ("  apply", apply_ms, "of it this worker's share of sum and update"),
    ):
        table.add_row(phase, f"{ms:.3f}", f"{100 * ms / whole:.0f} %", meaning)
    return table


def print_account(console: Console, account: Account) -> None:
    """Prints what a ledger came to."""
    lines = [
        f"{account.samples:,} samples in {account.steps:,} steps, {account.epochs:,} whole epochs of "
        f"{account.division.samples:,}",
        f"{account.again:,} microbatches computed again, {account.unpublished:,} of steps that were never published",
        *account.findings,
        f"each sample exactly once an epoch: {'no' if account.findings else 'yes'}",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)
