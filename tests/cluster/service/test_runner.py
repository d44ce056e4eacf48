"""Commands that outlive who has started them, and are found again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from time import monotonic, sleep

import psutil
import pytest

from thalweg_cluster.service import runner
from thalweg_cluster.service.runner import Commands, command_for

SAY = "import os, sys; print(os.environ['RAY_ADDRESS'], flush=True); sys.stdin.read(); "


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """`commands(code)` starts Python with that code as the command of the job in tmp_path; returns the runner."""
    made = Commands(os.environ)

    def start(code: str) -> Commands:
        monkeypatch.setattr(runner, "command_for", lambda folder, again: [sys.executable, "-c", code])
        made.start(tmp_path, "there:1", again=False, same=False)
        return made

    yield start
    for process in made._ours.values():  # whatever became of its lock
        process.kill()
    made.status(tmp_path)


def process_of(folder) -> psutil.Process:
    """The command's, once it has said its id."""
    path = folder / "command.pid"
    until = monotonic() + 30
    while not (path.is_file() and path.read_text().strip()) and monotonic() < until:
        sleep(0.01)
    return psutil.Process(int(path.read_text()))


def test_a_command_says_how_it_ended(commands, tmp_path):
    """Its exit status, or the signal; what it printed is in the log; it is told which Ray cluster to use."""
    made = commands(SAY + "sys.exit(3)")
    assert made.status(tmp_path) == 3
    assert not made.going_on(tmp_path)
    assert (tmp_path / "log.txt").read_text() == "there:1\n"


def test_another_service_finds_a_command_that_goes_on(commands, tmp_path):
    """And that it has ended; how, only its parent knows."""
    first, other = commands("import signal; signal.pause()"), Commands(os.environ)
    process_of(tmp_path)
    assert other.going_on(tmp_path)
    assert first.going_on(tmp_path)
    assert other.signal(tmp_path, signal.SIGTERM)
    assert first.status(tmp_path) == -signal.SIGTERM
    assert not other.going_on(tmp_path)
    assert other.status(tmp_path) is None
    assert not other.signal(tmp_path, signal.SIGTERM)


def test_a_command_has_a_session_of_its_own_and_sigkill_ends_all_of_it(commands, tmp_path):
    """What it has started, too."""
    code = "import subprocess, sys, signal; subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])"
    made = commands(code + "; print('started', flush=True); signal.pause()")
    process = process_of(tmp_path)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    until = monotonic() + 30
    while not (tmp_path / "log.txt").read_text() and monotonic() < until:
        sleep(0.01)
    [child] = process.children()
    made.signal(tmp_path, signal.SIGKILL)
    assert psutil.wait_procs([child], timeout=30)[1] == []
    assert made.status(tmp_path) == -signal.SIGKILL


def test_a_process_id_that_is_somebody_elses_now_gets_no_signal(tmp_path):
    """Nobody holds the lock: the command has ended, whatever its file says."""
    bystander = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    (tmp_path / "command.pid").write_text(str(bystander.pid))
    (tmp_path / "command.lock").touch()
    assert not Commands({}).signal(tmp_path, signal.SIGKILL)
    assert bystander.poll() is None
    bystander.kill()
    assert bystander.wait() == -signal.SIGKILL


def test_a_command_cannot_be_started_twice(commands, tmp_path):
    """The lock is held."""
    made = commands("import signal; signal.pause()")
    process_of(tmp_path)
    with pytest.raises(BlockingIOError):
        made.start(tmp_path, "there:1", again=True, same=True)


def test_what_is_typed_for_a_job(tmp_path):
    """`train` at first; `resume` where there is something to go on from, or a run that may still go on."""
    train = [*command_for(tmp_path, again=False)[2:]]
    assert train == ["thalweg_cluster.cli", "train", str(tmp_path / "submitted/job.toml"), "--out", str(tmp_path)]
    resume = ["thalweg_cluster.cli", "resume", str(tmp_path)]
    assert [*command_for(tmp_path, again=True)[2:]] == train
    (tmp_path / "coordinator.json").touch()
    assert [*command_for(tmp_path, again=True)[2:]] == resume
    assert [*command_for(tmp_path, again=False)[2:]] == train
    (tmp_path / "coordinator.json").unlink()
    checkpoint = tmp_path / "checkpoints" / "checkpoint_000100"
    checkpoint.mkdir(parents=True)
    assert [*command_for(tmp_path, again=True)[2:]] == train
    (checkpoint / "manifest.json").touch()
    assert [*command_for(tmp_path, again=True)[2:]] == resume


def test_a_job_whose_checkpoints_are_elsewhere_may_have_some(tmp_path):
    """On an object store: `resume` looks."""
    (tmp_path / "job.toml").write_text('[checkpoint]\nurl = "s3://bucket/there"\n')
    assert command_for(tmp_path, again=True)[3] == "resume"
    (tmp_path / "job.toml").write_text("[checkpoint]\nkeep = 3\n")
    assert command_for(tmp_path, again=True)[3] == "train"


@pytest.mark.parametrize("same", [True, False])
def test_what_an_attempt_before_has_left_does_not_mislead(same, commands, tmp_path):
    """Its summary is gone; where its cluster is gone, so is the record of its coordinator."""
    for name in ("summary.json", "coordinator.json"):
        (tmp_path / name).touch()
    made = commands(SAY)
    made.status(tmp_path)
    assert not (tmp_path / "summary.json").exists()
    assert not (tmp_path / "coordinator.json").exists()
    (tmp_path / "coordinator.json").touch()
    made.start(tmp_path, "there:1", again=True, same=same)
    made.status(tmp_path)
    assert (tmp_path / "coordinator.json").exists() == same
    for name in ("summary.json", "coordinator.json"):
        (tmp_path / name).touch()
    made.start(tmp_path, "there:1", again=True, same=same)
    made.status(tmp_path)
    assert not (tmp_path / "coordinator.json").exists(), "its run has ended, and nothing of it can be joined"
