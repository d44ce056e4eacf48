"""The job files that the benchmarks write are right ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.benchmarks.accuracy import IMAGES, LABELS, TRIALS, accuracy_job
from tests.benchmarks.launch import write_job
from tests.benchmarks.slow_worker import MODES, share_of_others, slow_job
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


@pytest.mark.parametrize("mode", MODES)
def test_slow_worker_job_is_accepted(mode: str, tmp_path: Path) -> None:
    """Thalweg reads the job as it was meant: a time and a microbatch for each worker."""
    write_data(tmp_path, rows=32)
    draft = load_job(write_job(slow_job([20.0, 20.0, 200.0], steps=20, mode=MODES[mode]), tmp_path / "job.toml"), [])
    assert draft.problems == ()
    assert draft.job.cluster.emulated_ms == (20.0, 20.0, 200.0)
    assert draft.job.train.microbatches == draft.job.cluster.workers == 3


def test_share_of_the_others() -> None:
    """Of 4 workers with 400 samples/s: 300 are what 3 do alone; 40 are left where all wait for one."""
    assert share_of_others(400, 300, 4) == 1.0
    assert share_of_others(400, 40, 4) == pytest.approx(0.133, abs=0.001)
