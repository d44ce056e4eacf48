"""The tables of `make bench`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from rich.table import Table
from tests.benchmarks.figures import Measurement, Ratio

TITLES = {
    "thalweg": "Thalweg",
    "thalweg-torch": "Thalweg, torch",
    "thalweg-1": "Thalweg, 1 worker",
    "ddp": "PyTorch DDP",
    "ray": "Ray example",
    "ray-numpy": "Ray, NumPy weights",
    "plain": "plain loop (1 process)",
}
MARKS = {True: "[green]reached[/green]", False: "[red]missed[/red]", None: ""}


def milliseconds(step_ms: float) -> str:
    """Three digits, without an exponent."""
    return f"{step_ms:,.0f} ms" if step_ms >= 100 else f"{step_ms:.3g} ms"


def progress(measurement: Measurement, repeats: int, title: str) -> str:
    """The line on the console for one run."""
    return (
        f"round {measurement.round + 1}/{repeats}  H {measurement.hidden:4}  {title:22} "
        f"{measurement.samples_per_s:10,.0f} samples/s  {milliseconds(measurement.step_p50_ms):>9} a step"
    )


def speed_table(
    measurements: Sequence[Measurement], systems: Iterable[str], titles: Mapping[str, str] = TITLES
) -> Table:
    """A row for each size, a column for each system: median samples/s of the rounds, and the median step under it."""
    table = Table(title="samples/s, and the median step")
    table.add_column("H", justify="right")
    columns = [system for system in systems if any(m.system == system for m in measurements)]
    for system in columns:
        table.add_column(titles[system], justify="right")
    for hidden in sorted({m.hidden for m in measurements}):
        cells = []
        for system in columns:
            runs = [m for m in measurements if (m.hidden, m.system) == (hidden, system)]
            if runs:
                samples_per_s = median(m.samples_per_s for m in runs)
                step_ms = median(m.step_p50_ms for m in runs)
                cells.append(f"{samples_per_s:,.0f}\n{milliseconds(step_ms)}")
            else:
                cells.append("")
        table.add_row(str(hidden), *cells)
    return table


def ratio_table(ratios: Iterable[Ratio]) -> Table:
    """A row for each ratio: median and range over the rounds, the target and whether it is reached."""
    table = Table(title="ratios of samples/s (median of the rounds)")
    for name in ("H", "ratio", "median", "min - max", "target", ""):
        table.add_column(name, justify="left" if name in ("ratio", "") else "right")
    last = None
    for ratio in ratios:
        if last not in (None, ratio.hidden):
            table.add_section()
        table.add_row(
            str(ratio.hidden) if ratio.hidden != last else "",
            ratio.name,
            f"{ratio.median:.2f}",
            f"{min(ratio.rounds):.2f} - {max(ratio.rounds):.2f}",
            "" if ratio.target is None else f"{ratio.target:.2f}",
            MARKS[ratio.reached],
        )
        last = ratio.hidden
    return table
