"""The checks of `thalweg train`, for the service: each in a process of its own, which has all that is slow to import.

    python -m thalweg_cluster.service.checker

is a process that forks one for each line of its standard input, {"number": ..., "folder": ..., "nodes": [...]}, and
answers with a line when that has ended: {"number": ..., "ended": "..."}. What it found is in the folder's verdict.json.

Rules:
  - A user's model runs there, and nowhere else: what it does, to the memory, to the process, for ever, it does there.
  - The parent has one thread: it forks.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from thalweg_cluster.resources import Resources, gpus_for
from thalweg_proto.errors import InputError, Problem, RunError, ThalwegError

VERDICT = "verdict.json"
CHECK_S = 120.0
"""How long a check may take, its data read."""
AT_ONCE = 2


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a job that may start needs to be known by: its name, the least of its workers and their GPUs, how often it
    may be lost."""

    name: str
    workers: int
    gpus: float
    max_failures: int


class Checker:
    """Checks jobs. Any thread may call."""

    def __init__(self, check_s: float = CHECK_S) -> None:
        self._check_s = check_s
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._process: subprocess.Popen[str] | None = None
        self._waiting: dict[int, Future[str]] = {}
        self._number = 0
        self._closed = False

    def check(self, folder: Path, nodes: Sequence[Resources] | None) -> Checked:
        """Checks the job file in `folder` for a Ray cluster of these `nodes`; None: they are not known.

        InputError with all its mistakes, in which paths in the folder are relative. RunError where it comes to nothing.
        """
        with self._room:
            ended = self._asked({"folder": str(folder), "nodes": nodes, "check_s": self._check_s}).result()
        try:
            verdict = json.loads((folder / VERDICT).read_bytes())
        except FileNotFoundError:
            raise InputError([Problem("job", "one that can be checked", f"a check that {ended}")]) from None
        (folder / VERDICT).unlink()
        if problems := verdict["problems"]:
            inside = f"{folder}/"
            raise InputError([Problem(*(text.replace(inside, "") for text in problem)) for problem in problems])
        return Checked(**verdict["checked"])

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()  # it ends, then
        if self._process is not None:
            self._process.wait()

    def start(self) -> None:
        """Starts what is slow to start."""
        with self._lock:
            self._living()

    def _asked(self, question: dict[str, Any]) -> Future[str]:
        answer: Future[str] = Future()
        with self._lock:
            process = self._living()
            self._number += 1
            assert process.stdin is not None  # it is a pipe
            try:
                process.stdin.write(json.dumps({**question, "number": self._number}) + "\n")
                process.stdin.flush()
            except OSError:
                raise _died() from None
            self._waiting[self._number] = answer  # before the lock is given back: the reader needs it
        return answer

    def _living(self) -> subprocess.Popen[str]:
        if self._closed:
            raise RunError("the service ends")
        if self._process is None or self._process.poll() is not None:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
            self._waiting = {}  # who waited for the one before hears of its end from its own reader
            self._process = subprocess.Popen(
                [sys.executable, "-m", "thalweg_cluster.service.checker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the service
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},  # it forks
            )
            threading.Thread(
                target=self._read, args=(self._process, self._waiting), daemon=True, name="thalweg-checker"
            ).start()
        return self._process

    def _read(self, process: subprocess.Popen[str], waiting: dict[int, Future[str]]) -> None:
        assert process.stdout is not None  # it is a pipe
        with process.stdout as lines:
            for line in lines:
                answer = json.loads(line)
                with self._lock:
                    asked = waiting.pop(answer["number"])
                asked.set_result(answer["ended"])
        process.wait()
        with self._lock:
            for asked in waiting.values():
                asked.set_exception(_died())
            waiting.clear()


def _died() -> RunError:
    return RunError("the checker of jobs has died: submit again")


def _checked(folder: Path, nodes: Sequence[Sequence[float]] | None) -> dict[str, Any]:
    """In a process of its own: what is found."""
    from thalweg_cluster.launch.preparation import prepare
    from thalweg_cluster.launch.ray_cluster import check_given
    from thalweg_cluster.service.shipping import JOB_FILE
    from thalweg_proto.job import load_job

    try:
        draft = load_job(folder / JOB_FILE)
        cluster = draft.job.cluster
        known = nodes is not None and draft.right("cluster.workers", "cluster.gpus_per_worker")
        there = [Resources(*node) for node in nodes or ()]
        prepare(draft, folder, None, check_given(cluster.least, cluster.gpus_per_worker, there) if known else [])
    except InputError as error:
        return {"problems": [[each.field, each.expected, each.found, each.hint] for each in error.problems]}
    except ThalwegError as error:
        return {"problems": [["job", "one that can start", str(error), ""]]}
    gpus = gpus_for(cluster.least, cluster.gpus_per_worker)
    checked = {"name": draft.job.name, "workers": cluster.least, "gpus": gpus, "max_failures": cluster.max_failures}
    return {"problems": [], "checked": checked}


def _forked(question: dict[str, Any]) -> int:
    """The process id of the check of a job."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()  # whatever it starts ends with it
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1):
            os.dup2(nothing, fd)
        folder = Path(question["folder"])
        verdict = json.dumps(_checked(folder, question["nodes"]))
        part = folder / f".{VERDICT}"
        part.write_text(verdict)
        part.replace(folder / VERDICT)
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Until standard input ends."""
    import thalweg_cluster.launch.preparation
    import thalweg_cluster.launch.ray_cluster  # noqa: F401 - before the first fork, so that no other one has to

    with contextlib.suppress(ImportError):
        __import__("sklearn.datasets")  # the built-in digits: the slowest of all
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    running: dict[int, tuple[int, int, float]] = {}  # by the descriptor of a process: number, process, until when
    rest = b""
    while True:
        until = min((until for _, _, until in running.values()), default=None)
        timeout = None if until is None else max(0.0, until - monotonic())
        ready = {key.fd for key, _ in selector.select(timeout)}
        for fd, (number, process, until) in list(running.items()):
            late = monotonic() >= until
            if fd not in ready and not late:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            selector.unregister(fd)
            os.close(fd)
            del running[fd]
            how = f"ended with exit status {os.waitstatus_to_exitcode(status)}"
            print(json.dumps({"number": number, "ended": "took too long" if late and fd not in ready else how}))
            sys.stdout.flush()
        if 0 not in ready:
            continue
        data = os.read(0, 1 << 16)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            question = json.loads(line)
            process = _forked(question)
            fd = os.pidfd_open(process)
            running[fd] = (question["number"], process, monotonic() + question["check_s"])
            selector.register(fd, selectors.EVENT_READ)
    for _, process, _ in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
