"""A command that runs on a host, with the signals and the end that one expects of a `subprocess.Popen`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

POLL_S = 0.001
END_TIMEOUT_S = 10.0


class HostError(Exception):
    """A host cannot be made, or does not do what it must."""


def until_gone(living: Callable[[], list[int]]) -> None:
    """Wait until none of the killed processes `living` is left; HostError where some are still there after a while."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while left := living():
        if time.monotonic() > deadline:
            raise HostError(f"still there after SIGKILL: {left}")
        time.sleep(POLL_S)


def living() -> Iterator[tuple[int, int]]:
    """PID and process group of every process that this one sees, without zombies."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # ended meanwhile
                state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                if state not in "ZX":
                    yield int(folder.name), int(group)


def children(pid: int) -> list[int]:
    """The children of a process with one thread; none where it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []


class HostProcess(subprocess.Popen[Any]):
    """`command` in the namespaces that `enter`, an `nsenter` command line without a program, leads to.

    A PID namespace is entered by a fork, so `pid` is that of the nsenter that waits for the command. Its status is the
    command's. Signals go to the command itself. Both are in a process group of their own, which is killed at the end of
    a `with` block, with what the command started there and left behind.
    """

    def __init__(self, enter: Sequence[str], command: Sequence[str | os.PathLike[str]], **options: Any) -> None:
        options = {"stdin": subprocess.DEVNULL, "text": True} | options
        # A mount namespace is entered at its root.
        folder = os.path.abspath(options.pop("cwd", None) or os.getcwd())
        super().__init__([*enter, "env", f"--chdir={folder}", *command], start_new_session=True, **options)

    def send_signal(self, sig: int) -> None:
        """Send `sig` to the command; nothing where it has ended."""
        while self.poll() is None:
            if command := children(self.pid):
                with suppress(ProcessLookupError):
                    os.kill(command[0], sig)
                if sig == signal.SIGCONT:  # nsenter stops when its child does
                    super().send_signal(sig)
                return
            time.sleep(POLL_S)  # nsenter has not forked yet, or is about to end

    def kill_group(self) -> None:
        """Kill the command and all that it left in its process group, and wait until they are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()
            until_gone(lambda: [pid for pid, group in living() if group == self.pid])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_group()
        super().__exit__(kind, error, trace)
