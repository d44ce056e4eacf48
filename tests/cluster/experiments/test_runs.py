"""What is read from the folder of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thalweg_cluster.experiments.grid import Configuration, Series
from thalweg_cluster.experiments.runs import folder_of, is_done, read_run

JOB = """
name = "small"
[data]
train = "digits"
[model]
use = "linear"
[train]
steps = 20
batch_size = 64
microbatches = 4
"""
WORKER = {
    "steps": 10, "microbatches": 20, "sample_ms": 1.0, "compute_ms": 3.0, "push_ms": 0.0, "wait_ms": 2.0,
    "apply_ms": 1.0, "microbatch_ms": 2.0, "microbatch_sd_ms": 0.5,
}  # fmt: skip
SUMMARY = {
    "state": "succeeded", "steps": 20, "samples": 1280, "samples_per_s": 100.0, "hosts": 1, "step_ms": {"p50": 6.0},
    "by_worker": [{"rank": 0, **WORKER}, {"rank": 1, **WORKER}], "eval": {"loss": 0.4, "accuracy": 0.9},
    "weights_sha256": "ab", "staleness": {"max": 2},
}  # fmt: skip
ROWS = [
    {"step": 10, "time_s": 1.0, "train_loss": 0.9, "evaluation": None},
    {"step": 20, "time_s": 2.0, "train_loss": None, "evaluation": {"loss": 0.4, "accuracy": 0.9}},
]


def left(out: Path, configuration: Configuration, **changes: object) -> None:
    """The files of a run."""
    folder = folder_of(out, configuration, 0)
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(SUMMARY | changes))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "job.toml").write_text(JOB)


def test_a_run(tmp_path):
    configuration = Configuration(Series("sync", "float32"), 2)
    left(tmp_path, configuration)
    run = read_run(tmp_path, configuration, 0)
    assert (run.samples_per_s, run.step_ms, run.accuracy, run.staleness_max) == (100.0, 6.0, 0.9, 2)
    assert [(p.time_s, p.samples, p.loss) for p in run.training] == [(1.0, 640, 0.9)]
    assert [(p.time_s, p.samples, p.loss) for p in run.held_out] == [(2.0, 1280, 0.4)]
    assert run.split.ms == {"compute": 4.0, "slowest": 0.0, "update": 1.0, "wire": 0.0, "exchange": 1.0}
    point = run.point
    assert (point.workers, point.microbatches, point.microbatch_ms, point.microbatch_sd_ms) == (2, 4, 2.0, 0.5)
    assert (point.update_ms, point.rest_ms) == (1.0, 1.0)


def test_workers_on_other_hosts_are_not_compared(tmp_path):
    configuration = Configuration(Series("sync", "float32", hosts=1), 2)
    left(tmp_path, configuration, hosts=2)
    with pytest.raises(ValueError, match="expected workers on 1 host; found them on 2"):
        read_run(tmp_path, configuration, 0)


def test_a_run_of_the_warm_up_alone_tells_nothing(tmp_path):
    configuration = Configuration(Series("sync", "float32"), 1)
    left(tmp_path, configuration, samples_per_s=0.0, steps=5)
    with pytest.raises(ValueError, match="found 5: train longer"):
        read_run(tmp_path, configuration, 0)


@pytest.mark.parametrize("written", [None, "", "{", "{}", '{"state": "cancelled"}', '{"state": "failed"}'])
def test_only_what_succeeded_is_done(tmp_path, written):
    if written is not None:
        (tmp_path / "summary.json").write_text(written)
    assert not is_done(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    assert is_done(tmp_path)
