"""The tables of `make bench`, and its JSON."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from tests.benchmarks import machine
from tests.benchmarks.figures import Measurement, Ratio, missed

MARKS = {True: "[green]reached[/green]", False: "[red]missed[/red]", None: ""}


def milliseconds(step_ms: float) -> str:
    """Three digits, without an exponent."""
    return f"{step_ms:,.0f} ms" if step_ms >= 100 else f"{step_ms:.3g} ms"


def progress(measurement: Measurement, repeats: int, title: str) -> str:
    """The line on the console for one run."""
    return (
        f"round {measurement.round + 1}/{repeats}  {measurement.network:12} {title:22} "
        f"{measurement.samples_per_s:10,.0f} samples/s  {milliseconds(measurement.step_p50_ms):>9} a step"
    )


def speed_table(measurements: Sequence[Measurement], systems: Iterable[str], titles: Mapping[str, str]) -> Table:
    """A row for each network, a column for each system: samples/s and the step, medians of the rounds."""
    table = Table(title="samples/s, and the median step")
    table.add_column("network")
    columns = [system for system in systems if any(m.system == system for m in measurements)]
    for system in columns:
        table.add_column(titles[system], justify="right")
    for network in dict.fromkeys(m.network for m in measurements):
        cells = []
        for system in columns:
            runs = [m for m in measurements if (m.network, m.system) == (network, system)]
            if runs:
                samples_per_s = median(m.samples_per_s for m in runs)
                step_ms = median(m.step_p50_ms for m in runs)
                cells.append(f"{samples_per_s:,.0f}\n{milliseconds(step_ms)}")
            else:
                cells.append("")
        table.add_row(network, *cells)
    return table


def ratio_table(ratios: Iterable[Ratio]) -> Table:
    """A row for each ratio: median and range over the rounds, the target and whether it is reached."""
    table = Table(title="ratios of samples/s (median of the rounds)")
    for name in ("network", "ratio", "median", "min - max", "target", ""):
        table.add_column(name, justify="left" if name in ("network", "ratio", "") else "right")
    last = None
    for ratio in ratios:
        if last not in (None, ratio.network):
            table.add_section()
        table.add_row(
            ratio.network if ratio.network != last else "",
            ratio.name,
            f"{ratio.median:.2f}",
            f"{min(ratio.rounds):.2f} - {max(ratio.rounds):.2f}",
            "" if ratio.target is None else f"{ratio.target:.2f}",
            MARKS[ratio.reached],
        )
        last = ratio.network
    return table


def show(
    measurements: Sequence[Measurement],
    found: Sequence[Ratio],
    systems: Iterable[str],
    titles: Mapping[str, str],
    console: Console,
) -> None:
    """Both tables; no empty one."""
    console.print(speed_table(measurements, systems, titles))
    if found:
        console.print(ratio_table(found))


def conclude(
    measurements: Sequence[Measurement],
    found: Sequence[Ratio],
    options: Namespace,
    titles: Mapping[str, str],
    console: Console,
    **more: object,
) -> int:
    """Shows what was found and, where the options ask for it, writes it, with `more`; the exit status."""
    show(measurements, found, options.only, titles, console)
    if options.json:
        write_json(options.json, measurements, found, **more)
    return 1 if options.check and missed(found) else 0


def write_json(path: Path, measurements: Sequence[Measurement], found: Sequence[Ratio], **more: object) -> None:
    """The machine, the command, all measurements and ratios, and `more`."""
    content = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "machine": machine.describe(),
        "measurements": [asdict(measurement) for measurement in measurements],
        "ratios": [asdict(ratio) | {"median": ratio.median, "reached": ratio.reached} for ratio in found],
        **more,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
