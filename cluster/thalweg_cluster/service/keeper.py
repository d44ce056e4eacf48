"""Starts jobs, ends them, and settles those whose command has ended: one thread, which looks and acts.

Rules:
  - What the table says is decided first, and done then: a service that is killed between the two finds a job that runs
    without a command, and lets it go on.
  - A disk that is full, or a table that is locked, stops nothing that runs: it is tried again at the next look.
"""

from __future__ import annotations

import json
import logging
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any, Protocol

from thalweg_cluster.reporting.files import SUMMARY
from thalweg_cluster.service.attempts import WRONG_INPUT, Ended, settle
from thalweg_cluster.service.cluster import Seen
from thalweg_cluster.service.queue import decide, room_of
from thalweg_cluster.service.runner import LOG, Runner, has_checkpoint, start_anew
from thalweg_cluster.service.table import JobRow, JobTable, WrongStateError
from thalweg_proto.jobs import State

LOG_ = logging.getLogger(__name__)
LOOK_S = 0.2
"""How often it is looked whether a command has ended."""
INSIST_S = 120.0
"""After so long a command that was asked to end is asked again, which leaves the last checkpoint out."""
KILL_S = 180.0
"""After so long it is killed."""
LEAVE_S = 60.0
"""How long the commands have to end, with a checkpoint, when the service ends and their cluster with it."""
TAIL_BYTES = 2000


class Holder(Protocol):
    """Of the Ray cluster."""

    own: bool
    why_not: str

    @property
    def seen(self) -> Seen | None: ...


class Changes:
    """Tells all who wait that something may have changed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def tell(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait(self, known: int, timeout_s: float) -> int:
        """Until there was a change after the `known` one, or the time is over; the newest one."""
        with self._changed:
            self._changed.wait_for(lambda: self._count != known, timeout_s)
            return self._count


class Keeper:
    """why: for each job in the queue, what it waits for, as was found at the last look."""

    def __init__(
        self,
        table: JobTable,
        jobs: Path,
        runner: Runner,
        cluster: Holder,
        changes: Changes,
        now: Callable[[], float] = time,
    ) -> None:
        """`jobs`: the folder that has those of the jobs; `now`: seconds since 1970."""
        self._table = table
        self._jobs = jobs
        self._runner = runner
        self._cluster = cluster
        self._changes = changes
        self._now = now
        self.why: dict[int, str] = {}
        self._asked: dict[int, int] = {}  # by job: the strongest signal that its command was sent
        self._found: set[int] = set()  # jobs that this service has started, or found
        self._leaving = False
        self._stopped = False
        self._thread = threading.Thread(target=self._keep, daemon=True, name="thalweg-keeper")

    def folder(self, job_id: int) -> Path:
        """Of a job."""
        return self._jobs / str(job_id)

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Starts no more jobs. Where the cluster ends with the service, so do those that run, with a checkpoint, and
        they go on when there is a service again; else they go on now."""
        until = self._now() + LEAVE_S
        self._leaving = True
        known = 0
        while self._cluster.own and self._now() < until and any(job.state.started for job in self._table.alive()):
            known = self._changes.wait(known, LOOK_S)
        self._stopped = True
        self._changes.tell()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        known = 0
        while not self._stopped:
            try:
                self.look()
            except (OSError, sqlite3.Error) as error:
                LOG_.error("jobs are not looked after as long as this lasts: %s", error)
            except Exception:
                LOG_.exception("a mistake in looking after jobs; it is tried again")
            known = self._changes.wait(known, LOOK_S)

    def look(self) -> None:
        """Does what there is to do now."""
        seen = self._cluster.seen
        jobs = self._table.alive()
        for job in jobs:
            if job.state.started:
                self._look_at(job, seen)
        jobs = self._table.alive()
        started = [job for job in jobs if job.state.started]
        waiting = [job for job in jobs if job.state is State.QUEUED]
        room = None if seen is None else room_of(seen.all, seen.unused, started)
        decision = decide(waiting, room)
        why = decision.why
        if self._leaving:
            why = {job.id: "the service ends" for job in waiting}
        elif seen is None:
            why = {job.id: f"no Ray cluster: {self._cluster.why_not}" for job in waiting}
        by_id = {job.id: job for job in waiting}
        if why != self.why:
            self.why = why
            self._changes.tell()
        if seen is not None and not self._leaving:
            for job_id in decision.start:
                self._start(by_id[job_id], seen.address)

    def _start(self, job: JobRow, cluster: str) -> None:
        try:
            self._table.change(
                job.id, State.RUNNING, started_s=self._now(), attempts=job.attempts + 1, cluster=cluster, error=""
            )
        except WrongStateError:  # it was cancelled meanwhile
            return
        self._found.add(job.id)
        self._asked.pop(job.id, None)
        self._runner.start(self.folder(job.id), cluster, again=job.attempts > 0, same=job.cluster == cluster)
        self._changes.tell()

    def _look_at(self, job: JobRow, seen: Seen | None) -> None:
        """At a job that was started."""
        folder = self.folder(job.id)
        elsewhere = seen is not None and job.cluster != seen.address
        if self._runner.going_on(folder):
            if elsewhere and self._cluster.own:
                # Its cluster was one of ours, and is gone; the command may hang on to it for a minute.
                self._runner.signal(folder, signal.SIGKILL)
                return
            self._end_if_wanted(job, folder)
            self._found.add(job.id)
            return
        summary = read_json(folder / SUMMARY)
        if seen is None and summary is None and job.state is State.RUNNING and not self._leaving:
            return  # whether the cluster was lost with it will be known when there is one again
        status = self._runner.status(folder)
        if status == WRONG_INPUT and job.attempts > 1 and not has_checkpoint(folder):
            start_anew(folder)
            status = None
        ended = Ended(
            status=status,
            summary=summary,
            log=tail(folder / LOG),
            excused=elsewhere or job.id not in self._found,
            leaving=self._leaving,
            at=self._now(),
        )
        change = settle(job, ended)
        try:
            self._table.change(job.id, change.state, **change.values)
        except WrongStateError as other:  # it was cancelled meanwhile
            change = settle(other.job, ended)
            self._table.change(job.id, change.state, **change.values)
        self._changes.tell()

    def _end_if_wanted(self, job: JobRow, folder: Path) -> None:
        if job.state is State.CANCELLING:
            since = self._now() - (job.cancelled_s or 0.0)
            wanted = 3 if since > KILL_S else 2 if since > INSIST_S else 1
        elif self._leaving and self._cluster.own:
            wanted = 1
        else:
            return
        if self._asked.get(job.id, 0) < wanted and self._runner.signal(
            folder, signal.SIGKILL if wanted == 3 else signal.SIGTERM
        ):
            self._asked[job.id] = wanted


def read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no such file, or it is not what a run writes."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def tail(path: Path) -> str:
    """The last lines of a text."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    if size > TAIL_BYTES:
        text = text.partition("\n")[2]
    return text.strip()
