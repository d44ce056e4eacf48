"""Processes that die while a job trains, on real Ray: others take their place, and the weights have the same bits."""

from __future__ import annotations

import re

import pytest
from tests.scenarios.conftest import LONG, STEPS, actors, ended, until

from thalweg_cluster.checkpoints import FileStore, newest

pytestmark = pytest.mark.slow


@pytest.mark.faults("{id} killed between two steps", how="SIGKILL from outside", expected="=bits")
@pytest.mark.parametrize(
    ("victims", "restarts"),
    [
        (["Worker"], {"worker": 1, "server": 0}),
        (["ServerActor"], {"worker": 0, "server": 1}),
        (["Worker", "Worker"], {"worker": 2, "server": 0}),
    ],
    ids=["a worker", "the server", "all workers"],
)
def test_a_run_goes_on_after_kill_9_to_the_same_bits(victims, restarts, started, undisturbed):
    """Exit status 0; what was lost is told, and counted in the summary."""
    command = started(*LONG)
    for name, process in zip(victims, actors(victims[0]), strict=False):
        assert process.cmdline()[0].startswith(f"ray::{name}")
        process.kill()
    run = ended(command)
    assert run.status == 0, run.output
    assert (run.summary["state"], run.summary["error"]) == ("succeeded", None)
    assert run.summary["restarts"] == restarts
    assert run.summary["weights_sha256"] == undisturbed(*LONG)
    if restarts["server"]:
        assert re.search(r"^lost the server of host 0: its process died", run.output, flags=re.MULTILINE)
        assert re.search(r"^going on after step [\d,]+ of 4,000 \(failure 1 of 3\)", run.output, flags=re.MULTILINE)
    else:
        told = r"^lost worker [01]: its process died.*; the others go on, and another one .* \(failure \d of 3\)$"
        assert len(re.findall(told, run.output, flags=re.MULTILINE)) == len(victims)
        assert "going on after step" not in run.output
    steps = [row["step"] for row in run.rows]
    assert steps == sorted(set(steps)), "a step is told once"
    assert steps[-1] == STEPS


ASYNC = (
    "train.steps=1500",
    "train.consistency=async",
    "optimizer.learning_rate=0.001",
    "checkpoint.every_steps=0",
    "cluster.lease_s=1",
)


@pytest.mark.faults("worker {id} in async", how="signal from outside", expected="replaced, the others go on")
@pytest.mark.parametrize("dies", [True, False], ids=["killed", "that hangs"])
def test_in_async_another_worker_takes_the_place_of_one_that_is_lost(dies, started):
    """SIGKILL, or SIGSTOP past the lease. Nothing is computed again: there is no checkpoint to go on from."""
    command = started(*ASYNC)
    victim = actors("Worker")[0]
    victim.kill() if dies else victim.suspend()
    run = ended(command)
    assert run.status == 0, run.output
    assert (run.summary["state"], run.summary["steps"]) == ("succeeded", 1500)
    assert run.summary["restarts"] == {"worker": 1, "server": 0}
    why = "its process died" if dies else "it hung, and was killed: it was at one piece of work for"
    assert re.search(rf"^lost worker [01]: {why}.*; the others go on", run.output, flags=re.MULTILINE)
    assert "going on after step" not in run.output
    assert not victim.is_running()


def test_a_worker_that_hangs_is_killed_and_the_run_goes_on_to_the_same_bits(started, undisturbed):
    """SIGSTOP: past its lease it is ended for good, so that it cannot wake up and write where others are at work."""
    command = started(*LONG, "cluster.lease_s=1")
    victim = actors("Worker")[0]
    victim.suspend()
    run = ended(command)
    assert run.status == 0, run.output
    assert run.summary["restarts"] == {"worker": 1, "server": 0}
    assert run.summary["weights_sha256"] == undisturbed(*LONG)
    assert re.search(r"lost worker [01]: it hung, and was killed: it was at one piece of work for", run.output)
    assert not victim.is_running()


@pytest.mark.faults(
    "killed more often than max_failures",
    how="SIGKILL, twice",
    expected="failed, causes named, newest checkpoint loads",
)
def test_more_failures_than_allowed_end_the_run_with_all_causes(started, resume):
    """Killed a second time where one failure is allowed: failed, the causes by kind and rank; the checkpoint loads."""
    command = started("train.steps=10000000", "checkpoint.every_steps=20", "cluster.max_failures=1")
    actors("ServerActor")[0].kill()
    until(command, "going on after step")
    until(command, "step ")
    actors("Worker")[0].kill()
    run = ended(command)
    assert run.status == 1, run.output
    assert run.summary["state"] == "failed"
    assert "more than cluster.max_failures = 1 failures:" in run.summary["error"]
    assert "1 x the server of host 0: its process died" in run.summary["error"]
    assert re.search(r"1 x worker [01]: its process died", run.summary["error"])
    checkpoint, refused = newest(FileStore(run.folder / "checkpoints"))
    assert refused == []
    # The server lived, and saved the last whole version.
    assert checkpoint.manifest.step == run.summary["steps"]
    resumed = resume(run.folder, f"train.steps={run.summary['steps'] + 10}")
    assert resumed.status == 0, resumed.output


@pytest.mark.faults(
    "worker killed where no failure is allowed", how="SIGKILL", expected="failed, rank named, weights kept"
)
def test_where_no_failure_is_allowed_a_killed_worker_fails_the_run_with_its_rank(started):
    """Exit status 1, the rank in the error, the weights of the last whole step kept."""
    command = started("train.steps=10000000", "cluster.max_failures=0")
    actors("Worker")[0].kill()
    run = ended(command)
    assert run.status == 1, run.output
    assert run.summary["state"] == "failed"
    assert re.match(r"worker [01] failed after [\d,]+ steps: its process died", run.summary["error"])
    assert run.summary["restarts"] == {"worker": 0, "server": 0}
    assert (run.folder / "weights.safetensors").exists()


@pytest.mark.faults("server killed where no failure is allowed", how="SIGKILL", expected="failed, named")
def test_where_no_failure_is_allowed_a_killed_server_fails_the_run(started):
    """Exit status 1, and a summary that says so."""
    command = started("train.steps=10000000", "cluster.max_failures=0")
    actors("ServerActor")[0].kill()
    run = ended(command)
    assert run.status == 1, run.output
    assert run.summary["error"].startswith("the server failed: its process died")
