"""One run of an experiment: `thalweg train` as a process of its own, and what its folder says of it.

OUT/jobs/sync-float32-2w.toml    the job of a configuration
OUT/runs/sync-float32-2w/0/      the folder of its first repeat, as `thalweg train` leaves it; and log.txt
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg_cluster.experiments.grid import Configuration
from thalweg_cluster.experiments.parts import Split, split_of
from thalweg_cluster.experiments.simulation import Point
from thalweg_cluster.reporting.files import JOB, METRICS, read_summary
from thalweg_proto.job import load_job_text
from thalweg_proto.job.sections import MICROBATCHES

INTERRUPTED = 130
LOG = "log.txt"


@dataclass(frozen=True)
class CurvePoint:
    """The loss after `samples` samples, `time_s` seconds after step 0 began."""

    time_s: float
    samples: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run came to.

    reason:     why it failed; None: it did not, and the rest is known
    held_out, training: losses where they were evaluated, and of the batches
    split, point: where the time of its steps went; None where it had no step after the warm-up
    """

    configuration: Configuration
    repeat: int
    reason: str | None = None
    samples_per_s: float = 0.0
    step_ms: float = 0.0
    held_out: tuple[CurvePoint, ...] = ()
    training: tuple[CurvePoint, ...] = ()
    split: Split | None = None
    point: Point | None = None
    accuracy: float | None = None
    weights_sha256: str | None = None
    staleness_max: int = 0

    def reached(self, loss: float) -> CurvePoint | None:
        """When the held-out loss was at most `loss` for the first time, that of the batches where none was evaluated;
        None: never."""
        return next((point for point in self.held_out or self.training if point.loss <= loss), None)


def folder_of(out: Path, configuration: Configuration, repeat: int) -> Path:
    """Where a run's files are."""
    return out / "runs" / configuration.folder / str(repeat)


def job_file(out: Path, configuration: Configuration) -> Path:
    """Where a configuration's job is."""
    return out / "jobs" / f"{configuration.folder}.toml"


def is_done(folder: Path) -> bool:
    """Whether the run in `folder` was measured to its end."""
    return (_summary(folder) or {}).get("state") == "succeeded"


def _summary(folder: Path) -> dict[str, Any] | None:
    """None where there is none that can be read."""
    try:
        return read_summary(folder)
    except (OSError, ValueError):
        return None


def carry_out(out: Path, configuration: Configuration, repeat: int, address: str) -> str | None:
    """Trains, on the Ray cluster at `address`; returns why it failed, None where it did not. What an interrupted or
    failed run left in its folder is removed first.

    KeyboardInterrupt where it was interrupted; the run has ended then.
    """
    folder = folder_of(out, configuration, repeat)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{repeat}-{LOG}"
    command = [sys.executable, "-m", "thalweg_cluster.cli", "train", str(job_file(out, configuration))]
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--out", str(folder)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"RAY_ADDRESS": address},
            start_new_session=True,  # Ctrl-C reaches it through us alone
        )
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if folder.is_dir():
        log = log.replace(folder / LOG)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return None if status == 0 else _why(folder, log, status)


def _why(folder: Path, log: Path, status: int) -> str:
    if (error := (_summary(folder) or {}).get("error")) is not None:
        return str(error)
    said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "; ".join(said[-3:]) or f"thalweg train ended with exit status {status} and said nothing ({log})"


def read_run(out: Path, configuration: Configuration, repeat: int) -> Run:
    """What the folder of a run that is done says.

    Raises ValueError where it cannot be compared: its workers were on more or fewer hosts than they should, or it ended
    within the warm-up.
    """
    folder = folder_of(out, configuration, repeat)
    summary = _summary(folder)
    assert summary is not None  # of a run that is done
    hosts = configuration.series.hosts
    if hosts is not None and summary["hosts"] != hosts:
        expected = "1 host" if hosts == 1 else f"{hosts} hosts"
        raise ValueError(f"expected workers on {expected}; found them on {summary['hosts']}: Ray had no other room")
    if not summary["samples_per_s"] > 0:
        raise ValueError(f"expected more steps than those of the warm-up; found {summary['steps']}: train longer")
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    job = load_job_text((folder / JOB).read_text(), (), folder).job
    return _of(summary, rows, job.train.microbatches or MICROBATCHES, configuration, repeat)


def _of(
    summary: Mapping[str, Any],
    rows: list[Mapping[str, Any]],
    microbatches: int,
    configuration: Configuration,
    repeat: int,
) -> Run:
    sync = configuration.series.mode == "sync"
    by_worker = summary["by_worker"]
    batch_size = summary["samples"] // summary["steps"]
    return Run(
        configuration=configuration,
        repeat=repeat,
        samples_per_s=summary["samples_per_s"],
        step_ms=summary["step_ms"]["p50"],
        held_out=_curve(((row, row["evaluation"]["loss"]) for row in rows if row["evaluation"]), batch_size),
        training=_curve(((row, row["train_loss"]) for row in rows), batch_size),
        split=(split := split_of(by_worker, sync=sync, hosts=summary["hosts"])),
        point=None if split is None else _point(by_worker, split, configuration.workers, microbatches),
        accuracy=(summary["eval"] or {}).get("accuracy"),
        weights_sha256=summary["weights_sha256"],
        staleness_max=int(summary["staleness"]["max"]),
    )


def _curve(losses: Iterable[tuple[Mapping[str, Any], float | None]], batch_size: int) -> tuple[CurvePoint, ...]:
    return tuple(CurvePoint(row["time_s"], row["step"] * batch_size, loss) for row, loss in losses if loss is not None)


def _point(by_worker: list[Mapping[str, Any]], split: Split, workers: int, microbatches: int) -> Point:
    measured = [worker for worker in by_worker if worker["microbatches"]]
    count = sum(worker["microbatches"] for worker in measured) or 1

    def mean(key: str) -> float:
        return float(sum(worker[key] * worker["microbatches"] for worker in measured) / count)

    return Point(
        workers=workers,
        microbatches=microbatches,
        microbatch_ms=mean("microbatch_ms"),
        microbatch_sd_ms=mean("microbatch_sd_ms"),
        update_ms=split.ms["update"],
        rest_ms=split.step_ms - split.ms["compute"] - split.ms["update"],
    )
