"""The command of each job that runs: `thalweg train`, or `thalweg resume`, in a session of its own.

Rules:
  - A command belongs to nobody: it outlives the service, and the next one finds it.
  - Whether it goes on is told by a lock on a file of the job's folder, which the command holds from before it is there
    until its process is gone. So no process id is ever mistaken for another's, whatever was killed when.
  - The id in `command.pid` is that of the command whenever the lock is held: the process writes it itself, before
    anything else.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from thalweg_cluster.reporting.files import CHECKPOINTS, RECORD, SUMMARY
from thalweg_cluster.service.shipping import JOB_FILE
from thalweg_proto.job.loading import read_table

SUBMITTED, LOG = "submitted", "log.txt"
_LOCK, _PID = "command.lock", "command.pid"


class Runner(Protocol):
    """Of commands, by the folder of their job."""

    def start(self, folder: Path, cluster: str, *, again: bool, same: bool) -> None:
        """
        cluster: address of the Ray cluster
        again:   a command of the job was started before
        same:    on the same Ray cluster, where something of it may go on

        OSError where it cannot be started.
        """
        ...

    def going_on(self, folder: Path) -> bool: ...

    def status(self, folder: Path) -> int | None:
        """The exit status of a command that has ended; negative: the signal that ended it; None: not known."""
        ...

    def signal(self, folder: Path, number: int) -> bool:
        """Sends a signal; SIGKILL goes to all that the command has started, too. False where it was not sent: the
        command has ended, or is not there yet."""
        ...


class Commands:
    """The real ones."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment`: of all commands, but for the Ray cluster."""
        self._environment = dict(environment)
        self._ours: dict[Path, subprocess.Popen[bytes]] = {}

    def start(self, folder: Path, cluster: str, *, again: bool, same: bool) -> None:
        if not same or (folder / SUMMARY).exists():
            # It says where the coordinator of a run is that is gone with its cluster, or has ended.
            (folder / RECORD).unlink(missing_ok=True)
        (folder / SUMMARY).unlink(missing_ok=True)  # what an attempt before came to is not what this one does
        words = command_for(folder, again=again)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / _PID).unlink(missing_ok=True)
            with (folder / LOG).open("ab") as log:
                # The shell becomes the command: its process id is the same.
                self._ours[folder] = subprocess.Popen(
                    ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(folder / _PID), *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env={**self._environment, "RAY_ADDRESS": cluster},
                    start_new_session=True,
                    pass_fds=[lock],  # the command has the lock, too, and keeps it when ours is closed
                )
        finally:
            os.close(lock)

    def going_on(self, folder: Path) -> bool:
        if folder in self._ours:
            self._ours[folder].poll()  # else what has ended would stay in the table of processes
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def status(self, folder: Path) -> int | None:
        process = self._ours.pop(folder, None)
        return None if process is None else process.wait()

    def signal(self, folder: Path, number: int) -> bool:
        if not self.going_on(folder):
            return False
        try:
            process = int((folder / _PID).read_text())
            (os.killpg if number == signal.SIGKILL else os.kill)(process, number)
        except (ValueError, FileNotFoundError, ProcessLookupError):
            return False
        return True


def has_checkpoint(folder: Path) -> bool:
    """Whether the run in `folder` may have a checkpoint to go on from."""
    if next((folder / CHECKPOINTS).glob("*/manifest.json"), None) is not None:
        return True
    if not (folder / JOB_FILE).is_file():
        return False
    section = read_table(folder / JOB_FILE).get("checkpoint")
    return isinstance(section, dict) and bool(section.get("url"))


def may_be_joined(folder: Path) -> bool:
    """Whether a run in `folder` may go on without its command."""
    return (folder / RECORD).is_file()


def start_anew(folder: Path) -> None:
    """The next command is `train` again: what was found in `folder` is nothing to go on from."""
    (folder / RECORD).unlink(missing_ok=True)


def command_for(folder: Path, *, again: bool) -> Sequence[str]:
    """What to type for the job in `folder`."""
    thalweg = (sys.executable, "-m", "thalweg_cluster.cli")
    if again and (has_checkpoint(folder) or may_be_joined(folder)):
        return (*thalweg, "resume", str(folder))
    return (*thalweg, "train", str(folder / SUBMITTED / JOB_FILE), "--out", str(folder))
