"""`thalweg scale` on a Ray cluster that is there already."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
from contextlib import ExitStack

import pytest
from tests.scenarios.conftest import CPUS, THALWEG, arguments, ended, environment, spawn, until

FILES = {"scaling.json", "scaling.csv", "report.html", "speedup.png", "split.png", "loss.png"}


@pytest.fixture
def scale(ray_address, job, tmp_path):
    """`scale("--workers", "1,2", ...)` runs the experiment to its end."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*THALWEG, "scale", str(job), *words, "--out", str(tmp_path / "scale")],
            env=environment(RAY_ADDRESS=ray_address), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip

    return run


def test_an_experiment_leaves_its_files_and_a_failing_configuration_is_a_row(scale, tmp_path):
    """More workers than the cluster has CPUs: that row has the reason, the other one its figures; once more, nothing is
    measured again."""
    words = ("--workers", f"1,{CPUS + 1}", "--repeats", "1", "--target-loss", "2.0", "--set", "train.steps=40")
    done = scale(*words)
    assert done.returncode == 0, done.stdout
    out = tmp_path / "scale"
    assert {file.name for file in out.iterdir()} >= FILES
    good, bad = json.loads((out / "scaling.json").read_text())["configurations"]
    assert good["samples_per_s"]["value"] > 0
    assert good["samples_to_target"] > 0
    assert sum(good["split_ms"].values()) > 0
    assert (bad["workers"], bad["samples_per_s"]) == (CPUS + 1, None)
    assert f"cluster.workers: expected at most {CPUS}" in bad["reason"]
    assert bad["reason"] in done.stdout
    with (out / "scaling.csv").open() as lines:
        assert [line["workers"] for line in csv.DictReader(lines)] == ["1", str(CPUS + 1)]
    before = (out / "runs" / "sync-float32-1w" / "0" / "summary.json").stat().st_mtime_ns
    again = scale(*words)
    assert "sync, 1 worker, repeat 1: measured before" in again.stdout
    assert (out / "runs" / "sync-float32-1w" / "0" / "summary.json").stat().st_mtime_ns == before


def test_another_experiment_in_the_same_folder_is_refused(scale, tmp_path):
    """It says what is different, and changes nothing."""
    file = tmp_path / "scale" / "experiment.json"
    file.parent.mkdir()
    file.write_text('{"experiment": {"workers": [1, 2], "repeats": 5}, "job": ""}\n')
    refused = scale("--workers", "1,2", "--repeats", "3")
    assert refused.returncode == 2
    assert "repeats 5 to 3" in refused.stdout
    assert "choose another folder with --out" in refused.stdout
    assert [each.name for each in file.parent.iterdir()] == ["experiment.json"]


def test_mistakes_in_the_job_are_those_of_train(scale):
    refused = scale("--workers", "1,2", "--set", "optimizer.learning_rate=-1")
    assert refused.returncode == 2
    assert "optimizer.learning_rate: expected" in refused.stdout


@pytest.mark.slow
def test_an_interrupted_experiment_goes_on_where_it_stopped(scale, ray_address, job, tmp_path):
    """Ctrl-C after the first run: exit status 130, its result kept; the same command measures the others."""
    words = ("--workers", "1,2", "--repeats", "2", "--set", "train.steps=200")
    with ExitStack() as stack:
        folder = tmp_path / "scale"
        command = spawn(stack, folder, "scale", str(job), *words, "--out", str(folder), RAY_ADDRESS=ray_address)
        first = until(command, "run 1 of 4")
        command.send_signal(signal.SIGINT)
        stopped = ended(command)
    assert stopped.status == 130, stopped.output
    assert "goes on where it stopped" in stopped.output
    assert json.loads((folder / "scaling.json").read_text())["complete"] is False
    done = scale(*words)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(": measured before,") == 1
    assert first.replace("measured", "measured before").rstrip() in done.stdout
    written = json.loads((folder / "scaling.json").read_text())
    assert written["complete"] is True
    assert [(each["runs"], each["failed"]) for each in written["configurations"]] == [(2, 0), (2, 0)]


@pytest.mark.slow
@pytest.mark.alone
def test_modes_and_predictions_with_emulated_workers(scale, tmp_path):
    """Calibrated with 1 and 2 workers, 4 are predicted to 20 %: what takes 50 ms a microbatch is little else."""
    done = scale(
        "--workers", "1,2,4", "--modes", "sync,async", "--repeats", "1", "--emulate-compute", "50ms",
        *arguments(("train.steps=25", "train.eval_every=0")),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    written = json.loads((tmp_path / "scale" / "scaling.json").read_text())
    assert [(each["mode"], each["workers"]) for each in written["configurations"]] == [
        (mode, workers) for mode in ("async", "sync") for workers in (1, 2, 4)
    ]
    for series in written["series"]:
        [four, *_] = series["predictions"]
        assert four["workers"] == 4
        assert abs(four["error"]) < 0.2, series
