"""`thalweg train` on a Ray cluster that is there already."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import urllib.request

import psutil
import pytest
from safetensors.numpy import load_file
from tests.scenarios.conftest import CPUS, REPOSITORY, actors, ended

from thalweg_proto.job import load_job

CONTRACT = {
    "state", "error", "steps", "samples", "parameters", "workers", "servers", "hosts", "wall_s", "train_s",
    "samples_per_s", "step_ms", "phase_ms", "train_loss", "eval", "weights_sha256", "restarts", "duplicates",
    "staleness", "skipped",
}  # fmt: skip


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_the_weights(train):
    """1, 2, 3 and 4 workers end in one weights_sha256."""
    runs = [train(f"cluster.workers={workers}", out=f"out{workers}") for workers in (1, 2, 3, 4)]
    assert [run.status for run in runs] == [0] * 4, runs[0].output
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
    assert [run.summary["workers"] for run in runs] == [1, 2, 3, 4]


def test_a_run_leaves_the_files_of_the_contract(train, resume):
    """summary.json has every key, and agrees with metrics.jsonl, job.toml and weights.safetensors. Its job.toml, run
    again from there with another number of workers and in two parts, ends in the same weights."""
    run = train()
    summary = run.summary
    assert summary.keys() >= CONTRACT
    assert (summary["state"], summary["error"], summary["steps"], summary["samples"]) == ("succeeded", None, 60, 3840)
    assert summary["eval"]["accuracy"] > 0.8
    assert summary["step_ms"].keys() == {"p50", "p95", "max"}
    assert summary["phase_ms"].keys() == {"sample", "compute", "push", "wait"}
    assert [row["step"] for row in run.rows if row["evaluation"]] == [30, 60]
    assert run.rows[-1]["evaluation"] == summary["eval"]
    job = load_job(run.folder / "job.toml").job
    assert "microbatches = 8" in (run.folder / "job.toml").read_text()  # defaults, filled in
    assert job.optimizer.momentum == 0.9
    weights = load_file(run.folder / "weights.safetensors")
    assert sum(array.size for array in weights.values()) == summary["parameters"]
    data = b"".join(weights[name].tobytes() for name in sorted(weights))
    assert hashlib.sha256(data).hexdigest() == summary["weights_sha256"]

    begun = train("train.steps=30", "cluster.workers=3", file=run.folder / "job.toml", out="again")
    assert begun.status == 0, begun.output
    again = resume(begun.folder, "train.steps=60", "cluster.workers=1")
    assert again.status == 0, again.output
    assert again.summary["weights_sha256"] == summary["weights_sha256"]


@pytest.mark.slow
def test_files_named_like_our_packages_do_no_harm(train, tmp_path):
    """A folder with worker.py, cluster.py and proto.py in it: driver and Ray actors still import ours."""
    for name in ("worker", "cluster", "proto", "thalweg"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')\n")
    run = train("train.steps=3", cwd=tmp_path)
    assert run.status == 0, run.output


def test_proto_is_still_proto_plus():
    """`import proto`, which ray[default] needs, gives proto-plus, from the repository's folder too."""
    done = subprocess.run(
        [sys.executable, "-c", "import proto; print(proto.Message.__module__)"],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.stdout == "proto.message\n", done.stderr


def test_more_workers_than_the_cluster_has_cpus_are_refused(train):
    """Exit status 2, how many CPUs there are, and no summary."""
    run = train(f"cluster.workers={CPUS + 1}")
    assert run.status == 2
    assert f"cluster.workers: expected at most {CPUS}" in run.output
    assert not (run.folder / "summary.json").exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_keeps_its_results_and_leaves_no_process(endless, sign):
    """Ctrl-C or SIGTERM: exit status 130, state cancelled, weights of the last step, no actor left."""
    endless.send_signal(sign)
    run = ended(endless)
    assert run.status == 130, run.output
    assert (run.summary["state"], run.summary["error"]) == ("cancelled", None)
    assert run.summary["steps"] > 0
    assert sum(a.size for a in load_file(run.folder / "weights.safetensors").values()) == run.summary["parameters"]
    psutil.wait_procs(actors("Worker") + actors("ServerActor"), timeout=30)
    assert actors("Worker") + actors("ServerActor") == []


def test_metrics_can_be_scraped_while_it_trains(endless):
    """The address that was printed answers with counts that grow."""
    [address] = [line.split()[-1] for line in endless.lines if line.startswith("metrics at ")]

    def steps() -> float:
        with urllib.request.urlopen(address) as response:
            text = response.read().decode()
        return float(re.search(r"^thalweg_steps_total (\S+)", text, flags=re.MULTILINE)[1])

    first = steps()
    assert any(steps() > first for _ in range(1000))


@pytest.mark.slow
def test_a_model_that_raises_in_the_middle_names_the_rank_and_shows_the_users_line(train, tmp_path):
    """The user's own exception, with the line of the user's file, is what a person reads."""
    (tmp_path / "fragile.py").write_text(FRAGILE)
    # 60 samples in 8 microbatches: those of the second worker have 8 samples, three of the first one 7.
    run = train('model = { use = "fragile.py:build" }', "train.batch_size=60")
    assert run.status == 1, run.output
    assert "ValueError: seven samples are too many" in run.summary["error"]
    assert run.summary["restarts"] == {"worker": 0, "server": 0}  # it would only raise again
    assert "fragile.py" in run.summary["error"]


def test_a_model_that_is_too_large_for_the_memory_is_told_with_what_to_do(train, tmp_path):
    """The batch, the microbatch, the bytes of the model, and the advice; no traceback."""
    code = FRAGILE.replace('raise ValueError("seven samples are too many")', "np.empty(1 << 58)")
    (tmp_path / "large.py").write_text(f"import numpy as np\n{code}")
    run = train('model = { use = "large.py:build" }', "train.batch_size=60")
    assert run.status == 1, run.output
    assert "is out of memory: " in run.summary["error"]
    assert "a microbatch of 8 samples" in run.summary["error"]
    assert "train.batch_size = 60 in train.microbatches = 8) with 2,440 bytes" in run.summary["error"]
    assert "Raise train.microbatches" in run.summary["error"]
    assert run.summary["restarts"] == {"worker": 0, "server": 0}  # it would only do so again


FRAGILE = """
from thalweg_worker.models import mlp

def build(data_spec):
    model = mlp.build(data_spec, hidden=[8])

    class Fragile:
        def init(self, rng):
            return model.init(rng)

        def loss(self, params, batch):
            if batch.y.shape[0] == 7:
                raise ValueError("seven samples are too many")
            return model.loss(params, batch)

    return Fragile()
"""
