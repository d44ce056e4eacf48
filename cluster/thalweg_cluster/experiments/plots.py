"""The plots of an experiment, as PNG. Needs matplotlib (the extra `plots`)."""

from __future__ import annotations

import io
from itertools import cycle
from typing import Any

import numpy as np

from thalweg_cluster.experiments.grid import Configuration, Series
from thalweg_cluster.experiments.parts import MEANING, PARTS
from thalweg_cluster.experiments.results import Results, Row
from thalweg_cluster.experiments.runs import Run

# Told apart also where colours are not seen (Okabe and Ito, 2008).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DOTS: dict[str, Any] = {"marker": "o", "markersize": 4, "linestyle": "-"}
_PARTS = dict(zip(PARTS, ("#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#E69F00"), strict=True))


def plots(results: Results) -> dict[str, bytes]:
    """PNG files by name. ImportError where matplotlib is not installed."""
    from matplotlib.figure import Figure

    drawn = {"speedup.png": _speedup, "split.png": _split, "loss.png": _loss}
    files = {}
    for name, draw in drawn.items():
        figure = Figure(figsize=(8, 4.8), dpi=120, layout="constrained")
        if draw(figure, results):
            stream = io.BytesIO()
            figure.savefig(stream, format="png", metadata={"Software": None})
            files[name] = stream.getvalue()
    return files


def _by_series(results: Results) -> dict[Series, list[Row]]:
    by: dict[Series, list[Row]] = {}
    for row in results.rows:
        if row.speedup is not None:
            by.setdefault(row.configuration.series, []).append(row)
    return by


def _speedup(figure: Any, results: Results) -> bool:
    by = _by_series(results)
    if not by:
        return False
    axes = figure.subplots()
    most = max(row.configuration.workers for rows in by.values() for row in rows)
    axes.plot([1, most], [1, most], color="grey", linestyle="--", label="ideal")
    laws = {analysis.series: analysis.law for analysis in results.analyses}
    for (series, rows), colour in zip(by.items(), cycle(_COLOURS), strict=False):
        workers = [row.configuration.workers for row in rows]
        values = [row.speedup.value for row in rows if row.speedup is not None]
        axes.errorbar(workers, values, yerr=_errors(rows), fmt="o", capsize=4, color=colour, label=str(series))
        if (law := laws[series]) is not None:
            n = np.linspace(min(workers), most, 100)
            unit = workers[0] / law.throughput(workers[0])
            axes.plot(n, [law.throughput(x) * unit for x in n], color=colour, linewidth=1)
    axes.set(
        xlabel="workers", ylabel="speed-up", title="speed-up, 95 % intervals and the fitted law", ylim=(0, 1.25 * most)
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return True


def _errors(rows: list[Row]) -> list[list[float]]:
    below, above = [], []
    for row in rows:
        assert row.speedup is not None
        value, low, high = row.speedup
        below.append(0.0 if low is None else value - low)
        above.append(0.0 if high is None else high - value)
    return [below, above]


def _split(figure: Any, results: Results) -> bool:
    rows = [row for row in results.rows if row.split is not None]
    if not rows:
        return False
    axes = figure.subplots()
    bottom = np.zeros(len(rows))
    for part in PARTS:
        ms = np.array([row.split.ms[part] for row in rows if row.split is not None])
        if ms.any():
            axes.bar(range(len(rows)), ms, bottom=bottom, color=_PARTS[part], label=f"{part}: {MEANING[part]}")
            bottom += ms
    axes.set_xticks(range(len(rows)), [str(row.configuration).replace(", ", "\n") for row in rows])
    axes.set(ylabel="ms of a worker's mean step", title="where the time of a step goes", ylim=(0, 1.35 * bottom.max()))
    axes.legend(loc="upper right", fontsize="small")
    return True


def _loss(figure: Any, results: Results) -> bool:
    first: dict[Configuration, Run] = {}
    for run in sorted(results.runs, key=lambda run: (run.configuration, run.repeat)):
        if run.reason is None and run.training and results.experiment.compute_ms is None:
            first.setdefault(run.configuration, run)
    if not first:
        return False
    axes = figure.subplots()
    for (configuration, run), colour in zip(first.items(), cycle(_COLOURS), strict=False):
        for curve, style in ((run.training, {"linewidth": 0.8, "alpha": 0.6}), (run.held_out, _DOTS)):
            axes.plot([p.time_s for p in curve], [p.loss for p in curve], color=colour, **style)
        axes.plot([], [], color=colour, label=str(configuration))
    axes.plot([], [], color="grey", label="held-out", **_DOTS)
    target = results.experiment.target_loss
    if target is not None:
        axes.axhline(target, color="grey", linestyle="--", label=f"target {target:g}")
    axes.set(xlabel="seconds since step 0", ylabel="loss", title="loss against time (the first repeat)")
    if all(p.loss > 0 for run in first.values() for p in (*run.training, *run.held_out)):
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    return True
