"""The table of jobs: what is kept of each, and every change of it.

Rules:
  - Each change is one transaction, on the disk before its method returns.
  - A job's state changes only as `State.may_become` says: what has come first stays.
  - One thread writes at a time. Readers have connections of their own, and wait for nobody.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg_cluster.service.schema import connect, open_table
from thalweg_proto.jobs import State


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job that was checked, before it is in the table.

    request_id:   by which the client will know it again
    digest:       of all that was submitted, SHA-256 in hexadecimal
    workers:      at least
    gpus:         of all these workers
    max_failures: so often its command may be lost; -1: no bound
    submitted_s:  seconds since 1970
    """

    request_id: str
    digest: str
    name: str
    priority: int
    workers: int
    gpus: float = 0.0
    max_failures: int
    submitted_s: float


@dataclass(frozen=True, kw_only=True)
class JobRow(Submission):
    """A job in the table; times in seconds since 1970.

    failures:       so often its command was lost
    attempts:       so often a command was started
    error:          of the newest attempt that failed, "": none did
    started_s:      of the newest attempt
    cancelled_s:    when it was asked to end
    worker_seconds: of the attempts that have ended
    step, loss, samples_per_s: when it ended
    cluster:        address of the Ray cluster of the newest attempt; "": there was none
    """

    id: int
    state: State
    failures: int = 0
    attempts: int = 0
    error: str = ""
    started_s: float | None = None
    ended_s: float | None = None
    cancelled_s: float | None = None
    worker_seconds: float = 0.0
    step: int | None = None
    loss: float | None = None
    samples_per_s: float | None = None
    cluster: str = ""


class WrongStateError(Exception):
    """A job's state does not allow a change; `job` is as it is."""

    def __init__(self, job: JobRow) -> None:
        super().__init__(job.state.value)
        self.job = job


class JobTable:
    """The table in one file. Any thread may call.

    sqlite3.Error where the file cannot be read or written: nothing has changed then.
    """

    def __init__(self, file: Path) -> None:
        """InputError where the file is not ours to use (`open_table`)."""
        self._file = file
        self._writer = open_table(file)
        self._lock = threading.Lock()
        self._own = threading.local()
        self._readers: list[sqlite3.Connection] = []

    def close(self) -> None:
        with self._lock:
            for connection in (*self._readers, self._writer):
                connection.close()

    def add(self, submission: Submission, place: Callable[[int], None]) -> JobRow:
        """A new job, in the queue.

        place: called with its id before the job is there, and on the disk; what it raises leaves the table as it was

        sqlite3.IntegrityError where the request id is known.
        """
        values = {**dataclasses.asdict(submission), "state": State.QUEUED.value}
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        with self._changing() as writer:
            job_id = writer.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", values).lastrowid
            assert job_id is not None  # a row was inserted
            place(job_id)
            return _found(writer, job_id)

    def change(self, job_id: int, state: State, **values: Any) -> JobRow:
        """The job in another state, with these columns changed, too. WrongStateError where it may not come to that;
        KeyError where there is no such job."""
        with self._changing() as writer:
            return _changed(writer, _found(writer, job_id), state, values)

    def cancel(self, job_id: int, now_s: float) -> JobRow:
        """A job that waits is over; of one that runs it is known from now on that it is to end. WrongStateError where
        it has ended, or was cancelled before; KeyError where there is no such job."""
        with self._changing() as writer:
            job = _found(writer, job_id)
            if job.state is State.QUEUED:
                return _changed(writer, job, State.CANCELLED, {"ended_s": now_s, "cancelled_s": now_s})
            return _changed(writer, job, State.CANCELLING, {"cancelled_s": now_s})

    def get(self, job_id: int) -> JobRow | None:
        row = self._reader.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _job(row)

    def by_request(self, request_id: str) -> JobRow | None:
        row = self._reader.execute("SELECT * FROM jobs WHERE request_id = ?", (request_id,)).fetchone()
        return None if row is None else _job(row)

    def newest(self, limit: int, before: int | None = None, state: State | None = None) -> list[JobRow]:
        """At most `limit` jobs, the newest first; only those with an id below `before`, and in `state`; None: all."""
        conditions = {"id < :before": before is not None, "state = :state": state is not None}
        where = " AND ".join(text for text, holds in conditions.items() if holds) or "TRUE"
        values = {"before": before, "state": None if state is None else state.value, "limit": limit}
        rows = self._reader.execute(f"SELECT * FROM jobs WHERE {where} ORDER BY id DESC LIMIT :limit", values)
        return [_job(row) for row in rows]

    def alive(self) -> list[JobRow]:
        """All that have not ended, in the order in which they were submitted."""
        states = [state.value for state in State if not state.ended]
        marks = ", ".join("?" * len(states))
        # By the index: ended jobs are many.
        rows = self._reader.execute(f"SELECT * FROM jobs WHERE state IN ({marks}) ORDER BY +id", states)
        return [_job(row) for row in rows]

    def ids(self) -> set[int]:
        return {row[0] for row in self._reader.execute("SELECT id FROM jobs")}

    def count(self) -> int:
        count: int = self._reader.execute("SELECT count(*) FROM jobs").fetchone()[0]
        return count

    def count_by_state(self) -> dict[State, int]:
        """How many jobs are in each state in which there are any."""
        rows = self._reader.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        return {State(state): count for state, count in rows}

    def oldest_queued_s(self) -> float | None:
        """When the first of the jobs that wait was submitted; None: none does."""
        row = self._reader.execute(
            "SELECT min(submitted_s) FROM jobs WHERE state = ?", (State.QUEUED.value,)
        ).fetchone()
        oldest_s: float | None = row[0]
        return oldest_s

    @property
    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "reader", None)
        if connection is None:
            connection = self._own.reader = connect(self._file)
            with self._lock:
                self._readers.append(connection)
        return connection

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Within the block a transaction of ours goes on; what is raised in it leaves everything as it was."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise


def _found(connection: sqlite3.Connection, job_id: int) -> JobRow:
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise KeyError(job_id)
    return _job(row)


def _changed(writer: sqlite3.Connection, job: JobRow, state: State, values: dict[str, Any]) -> JobRow:
    if not job.state.may_become(state):
        raise WrongStateError(job)
    changes = {**values, "state": state.value}
    sets = ", ".join(f"{name} = :{name}" for name in changes)
    writer.execute(f"UPDATE jobs SET {sets} WHERE id = :id", {**changes, "id": job.id})
    return _found(writer, job.id)


def _job(row: sqlite3.Row) -> JobRow:
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - a Row iterates over its values
    return JobRow(**values | {"state": State(values["state"])})
