"""What an experiment comes to: each configuration, and of each series the laws, the knee and predictions. Pure.

Speed-up and efficiency are relative to the fewest workers of the same series: with n of them at X samples/s, N workers
at Y have the speed-up n * Y / X and the efficiency Y / X * n / N.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from thalweg_cluster.experiments.grid import Configuration, Experiment, Series
from thalweg_cluster.experiments.intervals import Interval, mean_of
from thalweg_cluster.experiments.laws import Law, fit_amdahl, fit_usl
from thalweg_cluster.experiments.parts import PARTS, Split
from thalweg_cluster.experiments.runs import Run
from thalweg_cluster.experiments.simulation import LIMITS, Point, Predicted, Simulation

KNEE_EFFICIENCY = 0.5
"""Beyond the knee more than half of each further worker is lost."""
FIT_ON = 2
"""A prediction is fitted on so many numbers of workers, the fewest; the others show how good it is."""
AHEAD = (2, 4)
"""How many times the most workers measured are predicted beyond them."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A configuration. What was not measured is None; `reason`: of the first run that failed."""

    configuration: Configuration
    runs: int
    failed: int
    reason: str | None
    samples_per_s: Interval | None = None
    speedup: Interval | None = None
    efficiency: Interval | None = None
    step_ms: float | None = None
    split: Split | None = None
    time_to_target_s: float | None = None
    samples_to_target: float | None = None
    accuracy: float | None = None
    staleness_max: int | None = None
    weights_sha256: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """Of samples/s with `workers` workers; `measured` and `error` (of the prediction, relative) where that was done."""

    workers: int
    samples_per_s: float
    bound_by: str
    loss_ms: Mapping[str, float]
    measured: float | None

    @property
    def error(self) -> float | None:
        return None if self.measured is None else self.samples_per_s / self.measured - 1


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Of one series.

    knee:     the most workers with at least KNEE_EFFICIENCY, by the law that fits; None: there is none
    bound_by: what costs most there (LIMITS)
    fitted_on: the numbers of workers that the predictions know
    """

    series: Series
    amdahl: Law | None
    usl: Law | None
    knee: int | None
    bound_by: str | None
    fitted_on: tuple[int, ...]
    predictions: tuple[Prediction, ...]

    @property
    def law(self) -> Law | None:
        return self.usl or self.amdahl


@dataclass(frozen=True)
class Results:
    """An experiment, all of it."""

    experiment: Experiment
    rows: tuple[Row, ...]
    analyses: tuple[Analysis, ...]
    runs: tuple[Run, ...]


def results_of(
    experiment: Experiment, runs: Sequence[Run], *, batch_size: Callable[[int], int], cores: int | None
) -> Results:
    """
    batch_size: of a step, by the number of workers
    cores:      that the workers share; None: they use none
    """
    rows, analyses = [], []
    for series in dict.fromkeys(configuration.series for configuration in experiment.configurations):
        own = [run for run in runs if run.configuration.series == series]
        good = [run for run in own if run.reason is None]
        fewest = min((run.configuration.workers for run in good), default=None)
        base = {run.repeat: run for run in good if run.configuration.workers == fewest}
        rows += [
            _row(configuration, [run for run in own if run.configuration == configuration], base, experiment)
            for configuration in experiment.configurations
            if configuration.series == series
        ]
        analyses.append(_analysis(series, good, batch_size, cores))
    return Results(experiment, tuple(rows), tuple(analyses), tuple(runs))


def _row(configuration: Configuration, runs: list[Run], base: Mapping[int, Run], experiment: Experiment) -> Row:
    good = [run for run in runs if run.reason is None]
    reason = next((run.reason for run in runs if run.reason is not None), None)
    row = {"configuration": configuration, "runs": len(runs), "failed": len(runs) - len(good), "reason": reason}
    if not good:
        return Row(**row)  # type: ignore[arg-type]
    workers = configuration.workers
    # What ran in the same repeat is compared: a machine that is slower for a while slows both.
    ratios = [run.samples_per_s / base[run.repeat].samples_per_s for run in good if run.repeat in base]
    speedup = mean_of(ratios).times(next(iter(base.values())).configuration.workers) if ratios else None
    if speedup is not None and base[good[0].repeat].configuration == configuration:
        speedup = Interval(speedup.value)  # of itself
    splits = [run.split for run in good if run.split is not None]
    reached = [] if experiment.target_loss is None else [run.reached(experiment.target_loss) for run in good]
    points = [point for point in reached if point is not None]
    all_reached = bool(points) and len(points) == len(good)
    accuracies = [run.accuracy for run in good if run.accuracy is not None]
    return Row(
        **row,  # type: ignore[arg-type]
        samples_per_s=mean_of([run.samples_per_s for run in good]),
        speedup=speedup,
        efficiency=None if speedup is None else speedup.times(1 / workers),
        step_ms=mean(run.step_ms for run in good),
        split=Split.mean(splits) if splits else None,
        time_to_target_s=mean(point.time_s for point in points) if all_reached else None,
        samples_to_target=mean(point.samples for point in points) if all_reached else None,
        accuracy=mean(accuracies) if accuracies else None,
        staleness_max=max(run.staleness_max for run in good),
        weights_sha256=tuple(sorted({run.weights_sha256 for run in good if run.weights_sha256})),
    )


def _analysis(series: Series, good: list[Run], batch_size: Callable[[int], int], cores: int | None) -> Analysis:
    measured = {n: mean(run.samples_per_s for run in of) for n, of in _by_workers(good).items()}
    workers = [n for n in measured if measured[n] > 0]
    speeds = [measured[n] for n in workers]
    amdahl, usl = fit_amdahl(workers, speeds), fit_usl(workers, speeds)
    law = usl or amdahl
    points = {n: _mean_point(of) for n, of in _by_workers([run for run in good if run.point is not None]).items()}
    fitted_on = tuple(sorted(points)[:FIT_ON])
    predictions: tuple[Prediction, ...] = ()
    knee = law.workers_at(KNEE_EFFICIENCY) if law is not None else None
    bound_by = None
    if fitted_on:
        of_few = _simulation(series, [points[n] for n in fitted_on], cores)
        of_all = _simulation(series, list(points.values()), cores)
        most = max(points)
        microbatches = _microbatches(points)
        predictions = tuple(
            _prediction(of_few.predict(n, microbatches(n)), batch_size(n), measured.get(n))
            for n in sorted({*points, *(most * times for times in AHEAD)})
            if n not in fitted_on
        )
        at = most if knee is None else max(knee, 2)
        bound_by = of_all.predict(at, microbatches(at)).bound_by
    return Analysis(
        series=series,
        amdahl=amdahl,
        usl=usl,
        knee=knee,
        bound_by=bound_by,
        fitted_on=fitted_on,
        predictions=predictions,
    )


def _simulation(series: Series, points: list[Point], cores: int | None) -> Simulation:
    return Simulation(points, barrier=series.mode == "sync", cores=cores)


def _prediction(predicted: Predicted, batch_size: int, measured: float | None) -> Prediction:
    speed = 1e3 * batch_size / predicted.step_ms
    return Prediction(predicted.workers, speed, predicted.bound_by, dict(predicted.loss_ms), measured)


def _by_workers(runs: Iterable[Run]) -> dict[int, list[Run]]:
    by: dict[int, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.configuration.workers):
        by.setdefault(run.configuration.workers, []).append(run)
    return by


def _mean_point(runs: list[Run]) -> Point:
    points = [run.point for run in runs if run.point is not None]
    return Point(
        points[0].workers,
        points[0].microbatches,
        *(
            mean(getattr(point, name) for point in points)
            for name in ("microbatch_ms", "microbatch_sd_ms", "update_ms", "rest_ms")
        ),
    )


def _microbatches(points: Mapping[int, Point]) -> Callable[[int], int]:
    """Of a step, by the number of workers: always as many, or, in weak scaling, so many for each worker."""
    counts = {n: point.microbatches for n, point in points.items()}
    first = min(counts)
    each = counts[first] // first
    weak = len(set(counts.values())) > 1
    return lambda n: each * n if weak else counts[first]


# What is written


def to_json(results: Results, **about: Any) -> dict[str, Any]:
    """The contents of scaling.json; `about`: what else belongs into it."""
    return {
        **about,
        "experiment": asdict(results.experiment),
        "configurations": [_row_to_json(row) for row in results.rows],
        "series": [_analysis_to_json(analysis) for analysis in results.analyses],
    }


def _row_to_json(row: Row) -> dict[str, Any]:
    series = row.configuration.series
    return {
        "mode": series.mode,
        "wire": series.wire,
        "hosts": series.hosts,
        "workers": row.configuration.workers,
        "runs": row.runs,
        "failed": row.failed,
        "reason": row.reason,
        "samples_per_s": _interval_to_json(row.samples_per_s),
        "speedup": _interval_to_json(row.speedup),
        "efficiency": _interval_to_json(row.efficiency),
        "step_ms": row.step_ms,
        "split_ms": None if row.split is None else dict(row.split.ms),
        "slowest_worker": None if row.split is None else row.split.slowest_worker,
        "time_to_target_s": row.time_to_target_s,
        "samples_to_target": row.samples_to_target,
        "accuracy": row.accuracy,
        "staleness_max": row.staleness_max,
        "weights_sha256": list(row.weights_sha256),
    }


def _interval_to_json(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else interval._asdict()


def _analysis_to_json(analysis: Analysis) -> dict[str, Any]:
    return {
        "mode": analysis.series.mode,
        "wire": analysis.series.wire,
        "hosts": analysis.series.hosts,
        "amdahl": _law_to_json(analysis.amdahl),
        "usl": _law_to_json(analysis.usl),
        "knee_workers": analysis.knee,
        "knee_efficiency": KNEE_EFFICIENCY,
        "bound_by": None if analysis.bound_by is None else LIMITS[analysis.bound_by],
        "fitted_on": list(analysis.fitted_on),
        "predictions": [
            {
                "workers": prediction.workers,
                "samples_per_s": prediction.samples_per_s,
                "measured": prediction.measured,
                "error": prediction.error,
                "bound_by": LIMITS[prediction.bound_by],
                "loss_ms": dict(prediction.loss_ms),
            }
            for prediction in analysis.predictions
        ],
    }


def _law_to_json(law: Law | None) -> dict[str, float | None] | None:
    if law is None:
        return None
    return {
        "samples_per_s_of_one": law.rate,
        "sigma": law.sigma,
        "kappa": law.kappa,
        "peak_workers": law.peak,
        "speedup_limit": law.limit,
    }


def to_csv(results: Results) -> str:
    """scaling.csv: a line for each configuration; empty where something is not known."""
    lines = io.StringIO()
    plain = ("mode", "wire", "hosts", "workers", "runs", "failed", "step_ms", "time_to_target_s", "samples_to_target")
    intervals = ("samples_per_s", "speedup", "efficiency")
    bounds = [f"{name}_{bound}" for name in intervals for bound in ("low", "high")]
    header = [*plain, *intervals, *bounds, *(f"{part}_ms" for part in PARTS), "slowest_worker", "reason"]
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(header)
    for row in map(_row_to_json, results.rows):
        known = {name: row[name] for name in (*plain, "slowest_worker", "reason")}
        for name in intervals:
            interval = row[name] or {}
            known |= {name: interval.get("value"), **{f"{name}_{b}": interval.get(b) for b in ("low", "high")}}
        known |= {f"{part}_ms": (row["split_ms"] or {}).get(part) for part in PARTS}
        writer.writerow(["" if known[name] is None else known[name] for name in header])
    return lines.getvalue()
