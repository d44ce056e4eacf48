"""`thalweg resume` on real Ray, after whatever ended the run before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import psutil
import pytest
from tests.scenarios.conftest import actors, end_run, ended

from thalweg_cluster.checkpoints import FileStore, newest

pytestmark = pytest.mark.slow


def newest_step(folder):
    checkpoint, refused = newest(FileStore(folder / "checkpoints"))
    assert refused == []
    return checkpoint.manifest.step


@pytest.mark.faults("SIGTERM", how="SIGTERM to the command", expected="checkpoint, exit status 130, resumed =bits")
def test_an_interrupted_run_goes_on_to_the_same_bits(endless, train, resume):
    """SIGTERM: exit status 130, and a checkpoint of the last step; then with another number of workers."""
    endless.send_signal(signal.SIGTERM)
    stopped = ended(endless)
    assert stopped.status == 130, stopped.output
    step = stopped.summary["steps"]
    assert newest_step(stopped.folder) == stopped.summary["checkpoints"]["step"] == step
    resumed = resume(stopped.folder, f"train.steps={step + 50}", "cluster.workers=3")
    assert resumed.status == 0, resumed.output
    assert (resumed.summary["steps"], resumed.summary["resumed_from"]) == (step + 50, step)
    whole = train(f"train.steps={step + 50}", out="whole")
    assert resumed.summary["weights_sha256"] == whole.summary["weights_sha256"]
    steps = [row["step"] for row in resumed.rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == step + 50


@pytest.mark.faults("command and coordinator killed, nothing alive", how="SIGKILL", expected="resumed =bits")
def test_a_run_of_which_nothing_is_alive_goes_on_from_its_last_checkpoint_to_the_same_bits(endless, train, resume):
    """kill -9 of the command, and the end of the coordinator, with whom Ray ends all others."""
    endless.kill()
    killed = ended(endless)
    end_run(killed.folder)
    psutil.wait_procs(actors("Worker") + actors("ServerActor"), timeout=30)
    step = newest_step(killed.folder)
    assert step >= 20
    resumed = resume(killed.folder, f"train.steps={step + 30}")
    assert resumed.status == 0, resumed.output
    assert resumed.summary["weights_sha256"] == train(f"train.steps={step + 30}", out="whole").summary["weights_sha256"]


@pytest.mark.faults(
    "resumed with another model or rule", how="--set", expected="refused, shapes named, nothing overwritten"
)
def test_another_model_is_refused_and_nothing_overwritten(train, resume):
    """Expected and found shapes; so is a rule with another state."""
    run = train("train.steps=10")
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    refused = resume(run.folder, "model.hidden=[16]", "optimizer = { rule = 'adam' }", "train.steps=20")
    assert refused.status == 2
    assert (
        "model: hidden1.weight: expected shape (64, 32), as in the checkpoint; found shape (64, 16)" in refused.output
    )
    assert (
        "optimizer.rule: expected momentum, or one with the same state (momentum_buffer); found adam" in refused.output
    )
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


@pytest.mark.faults(
    "bit flipped in the newest checkpoint, then resumed", how="by hand", expected="refused by name, =bits"
)
def test_a_broken_checkpoint_is_named_and_the_one_before_taken(train, resume):
    """A bit flipped in the newest one."""
    run = train("train.steps=60", "checkpoint.every_steps=20")
    shard = run.folder / "checkpoints" / "checkpoint_000060" / "shard_00000_of_00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    resumed = resume(run.folder)
    assert resumed.status == 0, resumed.output
    assert "warning not used: checkpoint_000060: shard_00000_of_00001.safetensors: expected SHA-256" in resumed.output
    assert resumed.summary["resumed_from"] == 40
    assert resumed.summary["weights_sha256"] == run.summary["weights_sha256"]


def test_a_finished_run_has_nothing_to_go_on_with(train, resume):
    """It says so, with what to type to train on, and exit status 0; nothing is lost."""
    run = train("train.steps=10")
    again = resume(run.folder)
    assert again.status == 0
    assert "finished before: all 10 steps were taken" in again.output
    assert again.summary == run.summary


def test_a_folder_without_checkpoints_is_refused(resume, tmp_path):
    """Exit status 2, with the place that was looked at."""
    refused = resume(tmp_path)
    assert refused.status == 2
    assert f"{tmp_path / 'checkpoints'}: expected a whole checkpoint; found none" in refused.output


def test_train_in_the_folder_of_an_earlier_run_keeps_its_checkpoints_aside(train):
    """Nobody loses them by typing `train` for `resume`."""
    train("train.steps=10")
    run = train("train.steps=20")
    assert newest_step(run.folder) == 20
    assert [path.name for path in (run.folder / "checkpoints.previous").iterdir()] == ["checkpoint_000010"]


needs_mount = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounts a small tmpfs, which needs root: run as root"
)


@pytest.mark.faults(
    "disk full during a checkpoint",
    how="tmpfs for 1.6 of them",
    expected="training goes on, the old one whole, counted",
)
@needs_mount
def test_a_full_disk_fails_a_checkpoint_and_not_the_run(train, tmp_path):
    """A tmpfs that holds one checkpoint and not two: the first stays whole, the run goes on, failures are counted."""
    whole = train("train.steps=60", out="whole")
    size = sum(path.stat().st_size for path in (whole.folder / "checkpoints").rglob("*") if path.is_file())
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(1.6 * size / 1024)}k", "tmpfs", small], check=True)
    try:
        run = train("train.steps=60", "checkpoint.every_steps=20", f"checkpoint.url='file://{small}'")
        assert run.status == 0, run.output
        assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]
        counts = run.summary["checkpoints"]
        assert (counts["saved"], counts["step"]) == (1, 20)
        assert counts["failed"] + counts["skipped"] == 2
        assert counts["failed"] >= 1
        assert "warning the checkpoint after step" in run.output
        assert "No space left on device" in run.output
        checkpoint, _ = newest(FileStore(small))
        assert checkpoint.manifest.step == 20
    finally:
        subprocess.run(["umount", small], check=True)
