"""The job files that the benchmarks write are right ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.benchmarks.accuracy import IMAGES, LABELS, TRIALS, accuracy_job
from tests.benchmarks.launch import write_job
from tests.benchmarks.workload import WORKLOADS, thalweg_job, write_data

from thalweg_proto.job import load_job


@pytest.mark.parametrize("hidden", WORKLOADS)
def test_comparison_job_is_accepted(hidden: int, tmp_path: Path) -> None:
    """Thalweg reads the job as it was meant: no key is unknown, and one microbatch is a rival's batch."""
    write_data(tmp_path, rows=10)
    draft = load_job(write_job(thalweg_job(WORKLOADS[hidden], steps=20), tmp_path / "job.toml"), [])
    assert draft.problems == ()
    job = draft.job
    assert job.train.batch_size == job.train.microbatches * WORKLOADS[hidden].batch
    assert (job.train.steps, job.train.eval_every, job.checkpoint.every_steps) == (20, 0, 0)


@pytest.mark.parametrize("name", TRIALS)
def test_accuracy_job_is_accepted(name: str, tmp_path: Path) -> None:
    """Thalweg reads the trial's job as it was meant, and for no more epochs than the target allows."""
    for file in (IMAGES, LABELS):
        (tmp_path / file).touch()
    draft = load_job(write_job(accuracy_job(name, TRIALS[name], tmp_path), tmp_path / "job.toml"), [])
    assert draft.problems == ()
    job = draft.job
    assert job.optimizer.rule == TRIALS[name].optimizer["rule"]
    assert job.train.epochs is not None
    assert job.train.epochs <= 10
