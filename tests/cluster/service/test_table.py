"""The table of jobs: what is in it stays, whatever happens to who writes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.cluster.service.rows import submission

from thalweg_cluster.service import schema
from thalweg_cluster.service.table import JobTable, WrongStateError
from thalweg_proto.errors import InputError
from thalweg_proto.jobs import State


def nowhere(job_id: int) -> None:
    """Nothing to place."""


@pytest.fixture
def table(tmp_path):
    found = JobTable(tmp_path / "jobs.sqlite3")
    yield found
    found.close()


def test_a_job_is_found_again_as_it_was_put_in(table):
    """By its id, by its request, among the newest, among those that have not ended; and after it was opened again."""
    job = table.add(submission(name="mnist", priority=-3), nowhere)
    assert (job.id, job.name, job.state, job.priority, job.worker_seconds) == (1, "mnist", State.QUEUED, -3, 0.0)
    other = JobTable(table._file)
    for each in (table, other):
        assert each.get(1) == each.by_request("request-1") == job
        assert each.newest(5) == each.alive() == [job]
        assert (each.ids(), each.count()) == ({1}, 1)
    other.close()
    assert table.get(2) is None
    assert table.by_request("another") is None


def test_a_request_makes_one_job(table):
    """The second time nothing is put in."""
    table.add(submission(), nowhere)
    with pytest.raises(sqlite3.IntegrityError):
        table.add(submission(), nowhere)
    assert table.count() == 1


def test_what_waits_is_cancelled_at_once_what_runs_is_asked_to_end_and_nothing_twice(table):
    """Each in one change; the counts are those of the states."""
    for number in range(3):
        table.add(submission(f"request-{number}"), nowhere)
    table.change(2, State.RUNNING, started_s=2.0)
    waited, ran = table.cancel(1, 5.0), table.cancel(2, 6.0)
    assert (waited.state, waited.ended_s, waited.cancelled_s) == (State.CANCELLED, 5.0, 5.0)
    assert (ran.state, ran.ended_s, ran.cancelled_s) == (State.CANCELLING, None, 6.0)
    for job_id, state in ((1, State.CANCELLED), (2, State.CANCELLING)):
        with pytest.raises(WrongStateError) as refused:
            table.cancel(job_id, 7.0)
        assert refused.value.job.state is state
    with pytest.raises(KeyError):
        table.cancel(4, 7.0)
    assert table.count_by_state() == {State.QUEUED: 1, State.CANCELLED: 1, State.CANCELLING: 1}


def test_a_job_that_could_not_be_placed_is_not_there(table):
    """What `place` raises is raised, and the id is given to the next one."""

    def full(job_id: int) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        table.add(submission(), full)
    assert table.count() == 0
    placed = []
    assert table.add(submission(), placed.append).id == placed[0] == 1


def test_a_state_changes_only_as_it_may(table):
    """What has come first stays, with all its columns."""
    table.add(submission(), nowhere)
    table.change(1, State.RUNNING, attempts=1)
    done = table.change(1, State.SUCCEEDED, loss=0.5)
    assert (done.state, done.attempts, done.loss) == (State.SUCCEEDED, 1, 0.5)
    with pytest.raises(WrongStateError) as caught:
        table.change(1, State.CANCELLING, loss=9.0)
    assert caught.value.job == done == table.get(1)
    with pytest.raises(KeyError):
        table.change(7, State.RUNNING)


def test_the_newest_come_first_page_by_page_and_by_state(table):
    """`before` is where the page before has ended."""
    for i in range(5):
        table.add(submission(f"request-{i}"), nowhere)
    table.change(2, State.CANCELLED)
    assert [job.id for job in table.newest(2)] == [5, 4]
    assert [job.id for job in table.newest(9, before=4)] == [3, 2, 1]
    assert [job.id for job in table.newest(9, state=State.CANCELLED)] == [2]
    assert [job.id for job in table.alive()] == [1, 3, 4, 5]


def test_many_threads_lose_and_double_nothing(table):
    """Eight of them, with requests of which each is made by two."""

    lost = []

    def many(start: int) -> None:
        for i in range(start, start + 25):
            with contextlib.suppress(sqlite3.IntegrityError):
                table.add(submission(f"request-{i}"), nowhere)
            if table.by_request(f"request-{i}") is None:
                lost.append(i)

    threads = [threading.Thread(target=many, args=(25 * (n // 2),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    assert table.ids() == set(range(1, 101))
    assert {job.request_id for job in table.newest(1000)} == {f"request-{i}" for i in range(100)}


WRITER = """
import sys, pathlib
from tests.cluster.service.rows import submission
from thalweg_cluster.service.table import JobTable
table = JobTable(pathlib.Path(sys.argv[1]))
folder = pathlib.Path(sys.argv[2])
for i in range(10**6):
    job = table.add(submission(f"request-{i}"), lambda job_id: (folder / str(job_id)).mkdir())
    print(job.id, flush=True)
"""


def test_kill_9_of_a_writer_loses_nothing_that_was_answered(tmp_path):
    """What it had said is there, once, and so is its folder; at most one folder is there without its job."""
    file, folder = tmp_path / "jobs.sqlite3", tmp_path / "jobs"
    folder.mkdir()
    told = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file), str(folder)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        last = 0
        for _, line in zip(range(40), writer.stdout, strict=False):
            last = int(line)
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.stdout.close()
        writer.wait()
        told = max([told, last, *map(int, rest[:-1])])
        table = JobTable(file)
        assert table.ids() == set(range(1, table.count() + 1))
        assert table.count() >= told > 0
        without = {int(path.name) for path in folder.iterdir()} - table.ids()
        assert len(without) <= 1
        for job_id in without:
            (folder / str(job_id)).rmdir()
        table.close()
        file.unlink()
        for path in folder.iterdir():
            path.rmdir()
        told = 0


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_table_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    """It says which version was expected, and what to do; not a byte has changed."""
    file = tmp_path / "jobs.sqlite3"
    JobTable(file).close()
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = digest(file)
    with pytest.raises(InputError, match=f"expected a table of jobs of version {schema.VERSION} or older; found"):
        JobTable(file)
    assert digest(file) == before


def test_a_file_that_is_no_table_is_refused_and_left_as_it_is(tmp_path):
    """Somebody's notes."""
    file = tmp_path / "jobs.sqlite3"
    file.write_text("no database at all, but text that is long enough for a header of one" * 30)
    before = digest(file)
    with pytest.raises(InputError, match="file is not a database"):
        JobTable(file)
    assert digest(file) == before


def test_a_table_that_another_program_holds_is_refused(tmp_path, monkeypatch):
    """After some time; it says what to do."""
    file = tmp_path / "jobs.sqlite3"
    monkeypatch.setattr(schema, "LOCKED_S", 0.1)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match=r"database is locked\n +another program has it open"):
        JobTable(file)
    other.execute("ROLLBACK")
    other.close()
    JobTable(file).close()


def test_an_older_table_is_brought_to_this_version_step_by_step(tmp_path, monkeypatch):
    """A step that fails in its middle leaves the version before, and all that is in it."""
    file = tmp_path / "jobs.sqlite3"
    old = JobTable(file)
    job = old.add(submission(), nowhere)
    old.close()
    broken = "ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'; SELECT nonsense;"
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, broken))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(InputError, match="no such column: nonsense"):
        JobTable(file)
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION - 1,)
    assert "colour" not in [column[1] for column in connection.execute("PRAGMA table_info(jobs)")]
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS[:-1], broken.replace("SELECT nonsense;", "")))
    opened = schema.open_table(file)
    found = opened.execute("SELECT id, request_id, colour FROM jobs").fetchall()
    assert [tuple(row) for row in found] == [(job.id, job.request_id, "blue")]
    assert schema.version_of(opened) == schema.VERSION
    opened.close()
    connection.close()


def test_jobs_of_a_table_from_before_gpus_need_none(tmp_path, monkeypatch):
    """They are as they were submitted."""
    file = tmp_path / "jobs.sqlite3"
    monkeypatch.setattr(schema, "STEPS", schema.STEPS[:1])
    monkeypatch.setattr(schema, "VERSION", 1)
    old = schema.open_table(file)
    old.execute(
        "INSERT INTO jobs (request_id, digest, name, state, priority, workers, max_failures, submitted_s) "
        "VALUES ('request-1', 'd', 'digits', 'queued', 0, 2, 3, 1.0)"
    )
    old.close()
    monkeypatch.undo()
    opened = JobTable(file)
    [job] = opened.alive()
    opened.close()
    assert (job.name, job.workers, job.gpus) == ("digits", 2, 0.0)


def test_a_disk_that_is_full_changes_nothing(table):
    """The error says so, and the table goes on when there is room again."""
    table.add(submission(), nowhere)
    pages = table._writer.execute("PRAGMA page_count").fetchone()[0]
    table._writer.execute(f"PRAGMA max_page_count = {pages}")
    long = "x" * 100_000
    with pytest.raises(sqlite3.OperationalError, match="full"):
        table.add(submission("request-2", name=long), nowhere)
    assert table.count() == 1
    table._writer.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert table.add(submission("request-2", name=long), nowhere).id == 2


def test_nothing_that_is_asked_often_walks_through_the_whole_table(table):
    """What is asked of one job, of those that have not ended, and of the newest goes by an index."""
    asked = []
    table._reader.set_trace_callback(asked.append)
    table.get(1)
    table.by_request("request-1")
    table.newest(100)
    table.newest(100, before=7)
    table.alive()
    table._reader.set_trace_callback(None)
    assert len(asked) == 5
    for query in asked:
        steps = [row["detail"] for row in table._reader.execute(f"EXPLAIN QUERY PLAN {query}")]
        by_id = "ORDER BY id DESC LIMIT" in query  # which stops after so many
        assert by_id or not any(step.startswith("SCAN") for step in steps), (query, steps)
        assert by_id or "INDEX" in steps[0] or "PRIMARY KEY" in steps[0], (query, steps)
