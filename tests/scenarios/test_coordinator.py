"""The coordinator of a run outlives the command that started it, and is itself replaced, on real Ray."""

from __future__ import annotations

import json
import re
import signal
from contextlib import ExitStack

import psutil
import pytest
from tests.scenarios.conftest import LONG, actors, ended, spawn, until

from thalweg_cluster.checkpoints import FileStore, newest

pytestmark = pytest.mark.slow
ALL = ("Worker", "ServerActor", "Coordinator")


def processes():
    return [process for name in ALL for process in actors(name)]


def kill_coordinator():
    """The newest one's process: that of a run before may still be there, for those who follow."""
    process = max(actors("Coordinator"), key=psutil.Process.create_time)
    process.kill()
    process.wait(30)


@pytest.mark.faults("command killed, on a cluster that is there", how="SIGKILL", expected="the run goes on, =bits")
def test_a_run_whose_command_is_killed_goes_on_to_the_same_bits(started, watch, undisturbed):
    """kill -9 of the command: the run writes everything, and `thalweg watch` shows it, and how it ended."""
    command = started(*LONG)
    command.kill()
    command.wait()
    seen = watch(command.folder)
    assert seen.status == 0, seen.output
    assert re.search(r"^step [\d]+/4000 ", seen.output, flags=re.MULTILINE), "it was still going on"
    assert (seen.summary["state"], seen.summary["resumed_from"]) == ("succeeded", None)
    assert seen.summary["weights_sha256"] == undisturbed(*LONG)
    assert f"weights sha256 {undisturbed(*LONG)}" in seen.output
    assert (seen.folder / "weights.safetensors").is_file()
    assert [row["step"] for row in seen.rows if row["evaluation"]] == list(range(400, 4001, 400))
    _, alive = psutil.wait_procs(processes(), timeout=60)
    assert alive == [], "nobody has to end the coordinator"
    again = watch(command.folder)
    assert (again.status, again.summary) == (0, seen.summary)
    assert "succeeded" in again.output


@pytest.mark.faults("coordinator killed", how="SIGKILL", expected="replaced, =bits")
def test_a_coordinator_that_is_killed_is_replaced_and_the_run_ends_in_the_same_bits(started, undisturbed):
    """The command goes on showing; it counts as a failure, and checkpoints say the generation."""
    command = started(*LONG)
    kill_coordinator()
    run = ended(command)
    assert run.status == 0, run.output
    assert run.summary["weights_sha256"] == undisturbed(*LONG)
    assert "lost the coordinator: its process died" in run.output
    assert re.search(r"^going on after step [\d,]+ of 4,000 \(failure 1 of 3\)", run.output, flags=re.MULTILINE)
    assert run.summary["restarts"] == {"worker": 0, "server": 0}
    steps = [row["step"] for row in run.rows]
    assert steps == sorted(set(steps)), "a step is told once"
    checkpoint, _ = newest(FileStore(run.folder / "checkpoints"))
    assert checkpoint.manifest.generation == 2
    assert json.loads((run.folder / "coordinator.json").read_text())["generation"] == 2


@pytest.mark.faults("coordinator and command killed together", how="SIGKILL", expected="the run goes on, =bits")
def test_coordinator_and_command_killed_together_leave_a_run_that_goes_on(started, watch, undisturbed):
    """Nothing that the new one needs has died with the command."""
    command = started(*LONG)
    command.kill()
    command.wait()
    kill_coordinator()
    seen = watch(command.folder)
    assert seen.status == 0, seen.output
    assert seen.summary["weights_sha256"] == undisturbed(*LONG)


@pytest.mark.faults("coordinator killed where no failure is allowed", how="SIGKILL", expected="failed, named")
def test_where_no_failure_is_allowed_a_killed_coordinator_fails_the_run(started):
    """Exit status 1, and a summary that says so: it is not started for ever."""
    command = started("train.steps=10000000", "cluster.max_failures=0")
    kill_coordinator()
    run = ended(command)
    assert run.status == 1, run.output
    assert run.summary["error"] == "the coordinator failed: its process died"


def test_resume_takes_over_a_run_that_still_goes_on(endless, ray_address, resume, train):
    """It says so, refuses changes, and what interrupts it ends the run, with a checkpoint; nothing is left."""
    endless.kill()
    endless.wait()
    refused = resume(endless.folder, "train.steps=20")
    assert refused.status == 2
    assert "--set: expected nothing, since the run in" in refused.output
    with ExitStack() as stack:
        command = spawn(stack, endless.folder, "resume", str(endless.folder), RAY_ADDRESS=ray_address)
        until(command, f"the run in {endless.folder} still goes on: following it")
        until(command, "step ")
        command.send_signal(signal.SIGTERM)
        run = ended(command)
    assert run.status == 130, run.output
    assert (run.summary["state"], run.summary["resumed_from"]) == ("cancelled", None)
    checkpoint, _ = newest(FileStore(run.folder / "checkpoints"))
    assert checkpoint.manifest.step == run.summary["steps"]
    _, alive = psutil.wait_procs(processes(), timeout=30)
    assert alive == []
    assert train("cluster.workers=4", "train.steps=3", out="after").status == 0, "the CPUs are free again"


def test_who_only_watches_ends_nothing(endless, watch):
    """Ctrl-C in `thalweg watch`: exit status 130, the run goes on; when it ends, watch has its exit status."""
    with ExitStack() as stack:
        watching = spawn(stack, endless.folder, "watch", str(endless.folder))
        until(watching, "step ")
        watching.send_signal(signal.SIGINT)
        seen = ended(watching)
        assert seen.status == 130, seen.output
        assert f"no longer watching; the run in {endless.folder} goes on" in seen.output
        until(endless, "step ")
        endless.send_signal(signal.SIGTERM)
        assert ended(endless).status == 130
        assert watch(endless.folder).status == 130


@pytest.mark.faults("command killed, on a cluster of its own", how="SIGKILL", expected="resumed =bits")
def test_a_run_on_a_cluster_of_its_own_ends_with_its_command_and_can_be_resumed(job, tmp_path, watch, train):
    """Ray ends with who started it; `thalweg watch` then says what to type."""
    folder = tmp_path / "own"
    with ExitStack() as stack:
        sets = ("--set", "train.steps=10000000", "--set", "checkpoint.every_steps=20")
        command = spawn(stack, folder, "train", str(job), "--out", str(folder), *sets)
        until(command, "step ")
        own = processes()
        assert len(own) >= len(ALL)
        command.kill()
        command.wait()
        _, alive = psutil.wait_procs(own, timeout=60)  # Ray's own agents may take longer
        assert alive == []
    lost = watch(folder)
    assert lost.status == 1
    assert "nothing of it is alive" in lost.output
    assert f"thalweg resume {folder}" in lost.output
    checkpoint, _ = newest(FileStore(folder / "checkpoints"))
    steps = f"train.steps={checkpoint.manifest.step + 30}"
    with ExitStack() as stack:
        resumed = ended(spawn(stack, folder, "resume", str(folder), "--set", steps))
    assert resumed.status == 0, resumed.output
    assert resumed.summary["weights_sha256"] == train(steps, out="whole").summary["weights_sha256"]


def test_a_folder_that_no_run_has_is_refused(watch, tmp_path):
    """Exit status 2."""
    refused = watch(tmp_path)
    assert refused.status == 2
    assert f"{tmp_path}: expected the folder of a run; found one without coordinator.json" in refused.output
