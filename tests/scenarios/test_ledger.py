"""`--ledger` on real Ray, whatever happens: each sample exactly once an epoch."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest
from tests.scenarios.conftest import THALWEG, actors, ended, until

pytestmark = pytest.mark.slow

STEPS = 10000


def account(folder) -> tuple[int, dict[str, int]]:
    """Exit status and figures of `thalweg ledger`."""
    done = subprocess.run([*THALWEG, "ledger", str(folder)], capture_output=True, text=True, check=False)
    words = (
        r"([\d,]+) samples in ([\d,]+) steps, ([\d,]+) whole epochs of ([\d,]+)\n([\d,]+) microbatches computed again"
    )
    found = re.match(words, done.stdout)
    assert found, done.stdout + done.stderr
    assert done.stdout.endswith(f"each sample exactly once an epoch: {'no' if done.returncode else 'yes'}\n")
    figures = (int(word.replace(",", "")) for word in found.groups())
    return done.returncode, dict(zip(("samples", "steps", "epochs", "of", "again"), figures, strict=True))


@pytest.mark.faults("workers and server killed, with a ledger", how="SIGKILL", expected="each sample once an epoch")
def test_each_sample_once_an_epoch_though_workers_and_the_server_are_killed(started):
    """kill -9 of a worker, of the server, of all workers: four losses, each with a new process."""
    command = started(f"train.steps={STEPS}", "checkpoint.every_steps=100", "cluster.max_failures=4", "--ledger")
    for victim, how_many in (("Worker", 1), ("ServerActor", 1), ("Worker", 2)):
        processes = actors(victim)
        assert len(processes) >= how_many
        for process in processes[:how_many]:
            process.kill()
        lost = until(command, "lost ")
        if lost.startswith("lost the server"):  # all are started anew; what is said before is of the old ones
            until(command, "parameters at ")
        while " loss " not in until(command, "step "):  # only what was computed has a loss
            pass
    run = ended(command)
    assert run.status == 0, run.output
    assert sum(run.summary["restarts"].values()) == 4
    status, figures = account(run.folder)
    assert status == 0
    assert figures["steps"] == STEPS
    assert figures["epochs"] == STEPS * 64 // figures["of"] > 100
    assert figures["again"] > 0, "what was computed before a kill was computed again"
    assert len(list((run.folder / "ledger").iterdir())) >= 6, "each process has a file of its own"


def test_each_sample_once_an_epoch_over_a_resume_with_more_workers(started, resume):
    """SIGTERM, then 3 workers in place of 2, then 1."""
    command = started("train.steps=10000000", "checkpoint.every_steps=20", "--ledger")
    command.send_signal(signal.SIGTERM)
    stopped = ended(command)
    assert stopped.status == 130, stopped.output
    assert account(stopped.folder)[0] == 0
    step = stopped.summary["steps"]
    for more, workers in ((50, 3), (100, 1)):
        resumed = resume(stopped.folder, f"train.steps={step + more}", f"cluster.workers={workers}", "--ledger")
        assert resumed.status == 0, resumed.output
        status, figures = account(stopped.folder)
        assert (status, figures["steps"]) == (0, step + more)
    assert len(list((stopped.folder / "ledger").iterdir())) == 2 + 3 + 1


def test_a_resume_without_the_ledger_leaves_a_gap_that_is_told(train, resume):
    """And a run that begins anew begins a new ledger."""
    run = train("train.steps=20", "--ledger")
    assert account(run.folder)[0] == 0
    assert resume(run.folder, "train.steps=40").status == 0
    assert account(run.folder)[0] == 1
    again = train("train.steps=30", "--ledger")
    status, figures = account(again.folder)
    assert (status, figures["steps"], figures["again"]) == (0, 30, 0)


def test_a_ledger_is_refused_where_steps_leave_out_what_comes_late(train):
    """With backup workers nobody knows which samples went into a step."""
    refused = train("train.backup_workers=1", "--ledger")
    assert refused.status == 2
    assert "train.backup_workers: expected 0 with --ledger; found 1" in refused.output
