"""The table of jobs in SQLite: its versions, and the way from each to the next.

Rules:
  - `PRAGMA user_version` is the number of steps that were taken. Each step is one transaction: a process that is killed
    in the middle of one leaves the version before.
  - A step that has been released is never changed: another one is added.
  - A table of a newer version is refused before anything is written.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from thalweg_proto.errors import InputError, Problem

LOCKED_S = 5.0
"""How long another program may hold the table."""
STEPS: Final = (
    """
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice
        request_id TEXT NOT NULL UNIQUE,
        digest TEXT NOT NULL,                  -- SHA-256 of what was submitted
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        priority INTEGER NOT NULL,
        workers INTEGER NOT NULL,              -- at least
        max_failures INTEGER NOT NULL,         -- -1: no bound
        failures INTEGER NOT NULL DEFAULT 0,   -- so often its command was lost
        attempts INTEGER NOT NULL DEFAULT 0,   -- so often a command was started
        error TEXT NOT NULL DEFAULT '',
        submitted_s REAL NOT NULL,             -- since 1970, as all times
        started_s REAL,                        -- of the newest attempt
        ended_s REAL,
        cancelled_s REAL,                      -- when it was asked to end
        worker_seconds REAL NOT NULL DEFAULT 0,  -- of the attempts that have ended
        step INTEGER, loss REAL, samples_per_s REAL,  -- when it ended
        cluster TEXT NOT NULL DEFAULT ''       -- address of the Ray cluster of the newest attempt
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state, priority DESC, id);
    """,
    """
    ALTER TABLE jobs ADD COLUMN gpus REAL NOT NULL DEFAULT 0;  -- at least, of all its workers
    """,
)
VERSION: Final = len(STEPS)


def open_table(file: Path) -> sqlite3.Connection:
    """A connection to the table in `file`, which is made, or brought to this version, where needed.

    It is in autocommit mode, for use by one thread at a time. InputError where the file is that of a newer version, no
    database, or held by another program: it is left as it is.
    """
    try:
        if file.exists():
            _check_version(file)
        connection = connect(file)
        connection.execute("PRAGMA journal_mode = WAL")
        for version in range(version_of(connection), VERSION):
            _take(connection, version)
    except sqlite3.Error as error:
        hint = "another program has it open: end that one" if "locked" in str(error) else ""
        raise InputError([Problem(str(file), "a table of jobs that can be written", str(error), hint)]) from None
    return connection


def connect(file: Path) -> sqlite3.Connection:
    """Another connection to a table that is open."""
    # Autocommit: each transaction begins and ends where we say.
    connection = sqlite3.connect(file, timeout=LOCKED_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    # A job that was taken is there after a loss of power, too.
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def version_of(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _check_version(file: Path) -> None:
    reading = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=LOCKED_S)
    try:
        version = version_of(reading)
    finally:
        reading.close()
    if version > VERSION:
        hint = "it was written by a newer release of Thalweg: use that one, or another --state"
        raise InputError([Problem(str(file), f"a table of jobs of version {VERSION} or older", f"{version}", hint)])


def _take(connection: sqlite3.Connection, version: int) -> None:
    """From `version` to the next, or not at all."""
    script = f"BEGIN IMMEDIATE; {STEPS[version]} PRAGMA user_version = {version + 1}; COMMIT;"
    try:
        connection.executescript(script)
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
