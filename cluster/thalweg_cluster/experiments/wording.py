"""What an experiment says in words: the same in the terminal and in the report. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg_cluster.experiments.grid import Experiment
from thalweg_cluster.experiments.intervals import Interval
from thalweg_cluster.experiments.laws import Law
from thalweg_cluster.experiments.parts import PARTS
from thalweg_cluster.experiments.results import KNEE_EFFICIENCY, Analysis, Results, Row
from thalweg_cluster.experiments.simulation import LIMITS

SPEED = ("workers", "samples/s", "95 %", "speed-up", "95 %", "efficiency")
STEP = ("workers", "step", *PARTS)


def title(experiment: Experiment) -> str:
    """What was measured."""
    kind = "weak scaling: the job's batch for each worker" if experiment.weak else "strong scaling: the job's batch"
    engine = f", {experiment.compute_ms:g} ms a microbatch emulated" if experiment.compute_ms is not None else ""
    runs = "once" if experiment.repeats == 1 else f"{experiment.repeats} times, in shuffled order"
    return f"{kind}{engine}; each configuration {runs}"


def speed_cells(row: Row) -> list[str]:
    """Under SPEED: what one configuration came to."""
    return [
        str(row.configuration.workers),
        "failed" if row.samples_per_s is None else f"{row.samples_per_s.value:,.0f}",
        _bounds(row.samples_per_s, "{:,.0f}"),
        "" if row.speedup is None else f"{row.speedup.value:.2f}",
        _bounds(row.speedup, "{:.2f}"),
        "" if row.efficiency is None else f"{100 * row.efficiency.value:.0f} %",
    ]


def step_cells(row: Row) -> list[str]:
    """Under STEP: where a worker's mean step went, in milliseconds; beside the slowest part, whom the others waited
    for."""
    split = row.split
    if split is None:
        return [str(row.configuration.workers), *[""] * (len(PARTS) + 1)]
    parts = {part: f"{split.ms[part]:.2f}" for part in PARTS}
    if split.slowest_worker is not None and split.ms["slowest"]:
        parts["slowest"] += f" (worker {split.slowest_worker})"
    return [str(row.configuration.workers), f"{split.step_ms:.2f}", *parts.values()]


def told(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Without the columns that say nothing in any row."""
    shown = [i for i in range(len(header)) if any(row[i] not in {"", "0.00"} for row in rows)]
    return [header[i] for i in shown], [[row[i] for i in shown] for row in rows]


def _bounds(interval: Interval | None, form: str) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"{form.format(interval.low)} to {form.format(interval.high)}"


def failures(results: Results) -> list[str]:
    """A line for each configuration that failed."""
    return [
        f"{row.configuration}: {row.failed} of {row.runs} runs failed: {row.reason}"
        for row in results.rows
        if row.reason is not None
    ]


def targets(results: Results) -> list[str]:
    """A line for each configuration: when it reached the target."""
    target = results.experiment.target_loss
    if target is None:
        return []
    return [f"{row.configuration}: {_reached(row, target)}" for row in results.rows if row.failed < row.runs]


def _reached(row: Row, target: float) -> str:
    if row.time_to_target_s is None or row.samples_to_target is None:
        return f"loss {target:g} was not reached in each run"
    return f"loss {target:g} after {row.time_to_target_s:.2f} s and {row.samples_to_target:,.0f} samples"


def conclusions(analysis: Analysis) -> list[str]:
    """What the laws and the simulation say of a series, in a few lines."""
    lines = []
    law = analysis.law
    if law is not None:
        name = "universal scalability law" if analysis.usl else "Amdahl's law"
        pairs = f", {100 * law.kappa:.2g} % for each pair of workers" if analysis.usl else ""
        serial = f"{100 * law.sigma:.2g} % of the work is serial{pairs}; {_limit(law)}"
        lines.append(f"{name}: " + ("more workers are no faster" if law.sigma >= 1 else serial))
    if analysis.bound_by is not None:
        half = f"{100 * KNEE_EFFICIENCY:.0f} %"
        knee = "no knee is seen"
        if analysis.knee is not None:
            knee = f"the knee: {half} efficiency with {_workers(analysis.knee)}"
        lines.append(f"{knee}; what costs most: {LIMITS[analysis.bound_by]}")
    if analysis.predictions:
        known = " and ".join(map(str, analysis.fitted_on))
        said = [
            f"{p.workers}: {p.samples_per_s:,.0f}"
            + ("" if p.error is None else f" (measured {p.measured:,.0f}, {100 * p.error:+.1f} %)")
            for p in analysis.predictions
        ]
        lines.append(f"simulated samples/s, calibrated with {known} workers: " + "; ".join(said))
    return lines


def _limit(law: Law) -> str:
    if law.peak is not None:
        return f"fastest with {_workers(round(law.peak))}"
    return "no limit is seen" if law.limit is None else f"at most {law.limit:.0f} times one worker"


def _workers(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"
