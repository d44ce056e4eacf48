"""What Watch and Logs tell: files of a run that grow, read from where they were left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thalweg_proto.jobs import LOG_BYTES_MAX

LOOK_S = 0.5
"""How often those who tell of files look whether they have grown."""
NEWEST_BYTES = 64 << 10
"""A row of the metrics has some hundred, and some 70 more for each worker."""


class Lines:
    """The lines of a file that grows, each once.

    anew: how often the file was begun anew, as a run does that goes back: then its lines come from the first one on
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._offset = -1, 0
        self.anew = 0

    def new(self) -> Iterator[bytes]:
        """Those that were added since the last time. A line that is not whole yet is left for the next."""
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            inode = os.fstat(stream.fileno()).st_ino
            if inode != self._inode or stream.seek(0, 2) < self._offset:
                self.anew += self._offset > 0
                self._inode, self._offset = inode, 0
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield line


class Rows:
    """The rows of a metrics.jsonl, each step once, also where the run goes back and writes it anew."""

    def __init__(self, path: Path, after_step: int = 0) -> None:
        """Only those of steps after `after_step`."""
        self._lines = Lines(path)
        self._step = after_step

    def new(self) -> Iterator[dict[str, Any]]:
        """Those that were added since the last time."""
        for line in self._lines.new():
            row = row_of(line)
            if row is not None and row["step"] > self._step:
                self._step = row["step"]
                yield row


def newest_row(path: Path) -> dict[str, Any] | None:
    """The last whole line of a metrics.jsonl; None where there is none."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - NEWEST_BYTES))
            lines = stream.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    return row_of(lines[-1]) if lines else None


def row_of(line: bytes) -> dict[str, Any] | None:
    """None where the line is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return row


def log_from(path: Path, offset: int) -> bytes:
    """What a log has from `offset` on, at most LOG_BYTES_MAX; b"": nothing yet."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(LOG_BYTES_MAX)
    except FileNotFoundError:
        return b""
