"""`thalweg scale`: runs the grid, goes on where an interrupted experiment stopped, and writes what it comes to.

OUT/experiment.json              what was asked for, and of which job; what it is compared with to go on
OUT/jobs/, OUT/runs/             runs.py
OUT/scaling.json, scaling.csv, report.html, speedup.png, split.png, loss.png
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from thalweg_cluster.experiments.grid import Configuration, Experiment, configured
from thalweg_cluster.experiments.plots import plots
from thalweg_cluster.experiments.report import report
from thalweg_cluster.experiments.results import Results, results_of, to_csv, to_json
from thalweg_cluster.experiments.runs import Run, carry_out, folder_of, is_done, job_file, read_run
from thalweg_cluster.experiments.table import print_results
from thalweg_cluster.launch.preparation import prepare
from thalweg_cluster.launch.ray_cluster import ray_cluster
from thalweg_cluster.launch.train import interruptible
from thalweg_cluster.reporting.wording import warning
from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job import Draft, Job, job_to_toml, load_job_text

EXPERIMENT, REPORT = "experiment.json", "report.html"
EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


def scale(draft: Draft, experiment: Experiment, out: Path, console: Console, *, address: str | None) -> int:
    """Carries the experiment out; returns the exit status: 0 where at least one configuration could be measured.

    address: of the Ray cluster; None for one of our own

    Raises InputError with all that is wrong with the job in any configuration, or where `out` has another experiment;
    nothing was started then.
    """
    job = draft.job
    cores = len(os.sched_getaffinity(0))
    batch_size = _check(draft, experiment, out, cores if address is None else None)
    _same_as_before(out, experiment, job)
    for configuration in experiment.configurations:
        file = job_file(out, configuration)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(job_to_toml(configured(experiment, configuration, job)))
    runs: list[Run] = []
    interrupted = False
    # Our own cluster is made for the most workers. In one that is there already what does not fit fails by itself.
    workers = min(experiment.workers) if address else max(experiment.workers)
    try:
        with ray_cluster(replace(job.cluster, workers=workers), address) as doubt, interruptible():
            if doubt is not None and experiment.compute_ms is None:
                console.print(warning(doubt), highlight=False)
            if address is not None:
                cores = _cpus()
            _runs(experiment, out, ray.get_runtime_context().gcs_address, console, runs)
    except KeyboardInterrupt:
        interrupted = True
    if not any(run.reason is None for run in runs):
        if interrupted:
            raise KeyboardInterrupt
        for run in runs:
            console.print(f"failed: {run.configuration}: {run.reason}", style="red", markup=False, soft_wrap=True)
        return EXIT_FAILED
    results = results_of(
        experiment,
        runs,
        batch_size=lambda workers: batch_size * workers if experiment.weak else batch_size,
        cores=cores if experiment.compute_ms is None else None,
    )
    print_results(console, results)
    _write(results, out, console, job, complete=not interrupted)
    if interrupted:
        console.print(f"interrupted; the same command goes on where it stopped: --out {out}", soft_wrap=True)
        return EXIT_INTERRUPTED
    return 0


def _check(draft: Draft, experiment: Experiment, out: Path, cores: int | None) -> int:
    """The batch size, where the job can run in each configuration. InputError where not."""
    if draft.problems:
        raise InputError(draft.problems)
    problems: list[Problem] = []
    if experiment.weak and not isinstance(draft.job.train.batch_size, int):
        problems.append(Problem("--weak", "a train.batch_size, that of one worker", "full", "use --strong"))
    for configuration in experiment.configurations:
        text = job_to_toml(configured(experiment, configuration, draft.job))
        problems += [p for p in load_job_text(text, (), Path.cwd()).problems if p not in problems]
    # Data, model and folder are the same for all.
    most = max(experiment.configurations, key=lambda configuration: configuration.workers)
    last = replace(draft, job=configured(experiment, most, draft.job))
    size = prepare(last, out, cores, problems).lengths.batch_size
    return size // most.workers if experiment.weak else size


def _same_as_before(out: Path, experiment: Experiment, job: Job) -> None:
    """Writes down what the experiment is; InputError where `out` holds another one."""
    asked = json.dumps({"experiment": asdict(experiment), "job": job_to_toml(job)}, indent=2) + "\n"
    file = out / EXPERIMENT
    if file.is_file():
        if file.read_text() != asked:
            changed = ", ".join(_changed(json.loads(file.read_text()), json.loads(asked))) or "its form"
            hint = "choose another folder with --out"
            raise InputError(
                [Problem("--out", f"a folder without another experiment ({file})", f"changed: {changed}", hint)]
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(asked)
    part.replace(file)


def _changed(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for key, value in now["experiment"].items():
        if before.get("experiment", {}).get(key) != value:
            yield f"{key} {before.get('experiment', {}).get(key)} to {value}"
    if before.get("job") != now["job"]:
        yield "the job"


def _cpus() -> int:
    """Of the cluster that is there."""
    cpus: float = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]  # Ray gives it no type
    return int(cpus)


def _runs(experiment: Experiment, out: Path, address: str, console: Console, runs: list[Run]) -> None:
    """Makes each run that is not done, and adds all to `runs`."""
    order = list(experiment.order())
    known = [is_done(folder_of(out, configuration, repeat)) for repeat, configuration in order]
    took: list[float] = []
    with _progress(console, len(order)) as show:
        for done, (repeat, configuration) in enumerate(order):
            which = f"{configuration}, repeat {repeat + 1}"
            show(done, f"{which}{_left(took, known[done:].count(False))}")
            reason = None
            if not known[done]:
                began = monotonic()
                reason = carry_out(out, configuration, repeat, address)
                took.append(monotonic() - began)
            run = _read(out, configuration, repeat, reason)
            runs.append(run)
            said = "measured before" if known[done] else "measured"
            text = f"{said}, {run.samples_per_s:,.0f} samples/s" if run.reason is None else f"failed: {run.reason}"
            line = f"run {done + 1} of {len(order)}  {which}: {text}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _read(out: Path, configuration: Configuration, repeat: int, reason: str | None) -> Run:
    if reason is None:
        try:
            return read_run(out, configuration, repeat)
        except ValueError as error:
            reason = str(error)
    return Run(configuration=configuration, repeat=repeat, reason=reason)


def _left(took: list[float], runs: int) -> str:
    if not took:
        return ""
    seconds = sum(took) / len(took) * runs
    return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Any]:
    """What shows how far the grid is: `show(done, text)`."""
    if not console.is_terminal:
        yield lambda done, text: None
        return
    with Progress(
        TextColumn("run"), MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.description}"),
        console=console, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("", total=total)
        yield lambda done, text: progress.update(task, completed=done, description=text)


def _write(results: Results, out: Path, console: Console, job: Job, *, complete: bool) -> None:
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}"
    when = datetime.now().astimezone().isoformat(timespec="seconds")
    about = {"name": job.name, "when": when, "machine": machine, "complete": complete}
    (out / "scaling.json").write_text(json.dumps(to_json(results, **about), indent=2, allow_nan=False) + "\n")
    (out / "scaling.csv").write_text(to_csv(results))
    try:
        pictures = plots(results)
    except ImportError:
        pictures = {}
        console.print("no plots: they need matplotlib: pip install 'thalweg\\[plots]'", highlight=False)
    for name, png in pictures.items():
        (out / name).write_bytes(png)
    page = report(results, pictures, name=job.name, about=(f"{when}, {machine}",), job=job_to_toml(job))
    (out / REPORT).write_text(page)
    files = ", ".join(("scaling.json", "scaling.csv", REPORT, *pictures))
    console.print(f"written to {out}: {files}", highlight=False, soft_wrap=True)
