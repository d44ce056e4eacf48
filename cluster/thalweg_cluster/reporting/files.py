"""The files that a run leaves in its folder (DESIGN section 5).

Each is written whole beside its name and then renamed, so that a reader never sees half a file; metrics.jsonl grows
line by line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from thalweg_cluster.checkpoints import FileStore, write_whole
from thalweg_cluster.reporting.sources import SOURCE, UserSource, copies
from thalweg_cluster.server.spec import Row
from thalweg_proto import faults, ledger
from thalweg_proto.errors import InputError, Problem, StorageError
from thalweg_proto.layout import Layout

CHECKPOINTS, PREVIOUS = "checkpoints", "checkpoints.previous"
JOB, WEIGHTS = "job.toml", "weights.safetensors"
SUMMARY, RECORD, METRICS = "summary.json", "coordinator.json", "metrics.jsonl"


def check_folder(path: Path) -> list[Problem]:
    """Whether the folder of a run can be made and written; makes nothing."""
    why = why_not_writable(path)
    return [] if why is None else [Problem("--out", "a folder that can be written", why)]


def why_not_writable(path: Path) -> str | None:
    """Why the folder `path` cannot be made or written, in the words of a problem's `found`; None: it can."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    return f"{there}, which cannot be written" if there.is_dir() else f"{there}, which is a file"


def read_summary(path: Path) -> dict[str, Any] | None:
    """What the run in the folder `path` came to; None where it has not ended. ValueError where it is no JSON."""
    try:
        summary: dict[str, Any] = json.loads((path / SUMMARY).read_bytes())
    except FileNotFoundError:
        return None
    return summary


def may_go_on(path: Path) -> bool:
    """Whether there was a run in the folder `path` that has not ended, as far as the folder tells."""
    return (path / RECORD).is_file() and not (path / SUMMARY).is_file()


class RunFolder:
    """The folder of one run. What an earlier run left under the same names is replaced.

    A run that goes on from a checkpoint keeps the lines of metrics.jsonl up to it. One that begins anew keeps the
    checkpoints of the one before as `checkpoints.previous`: nobody loses them by typing `train` for `resume`.

    What writes raises StorageError where the storage fails; what was there before stays.
    """

    def __init__(self, path: Path, first: int = 0, *, replace: bool = True, with_ledger: bool = False) -> None:
        """Makes the folder. OSError where that fails after all.

        first:   steps that were taken before
        replace: False where nothing is trained: what is there stays
        with_ledger: whether workers will write down which samples they take
        """
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        if not replace:
            return
        if not first and (path / CHECKPOINTS).exists():
            shutil.rmtree(path / PREVIOUS, ignore_errors=True)
            (path / CHECKPOINTS).replace(path / PREVIOUS)
        if not first:
            (path / faults.RECORD).unlink(missing_ok=True)
            for file in (path / ledger.FOLDER).glob(f"*{ledger.SUFFIX}"):
                file.unlink()
        if with_ledger:
            (path / ledger.FOLDER).mkdir(exist_ok=True)
        for name in (SUMMARY, WEIGHTS, "ca.pem"):
            (path / name).unlink(missing_ok=True)
        self.rewind(first)

    def rewind(self, step: int) -> None:
        """The run goes on after step `step`: what metrics.jsonl says of later steps is removed."""
        metrics = self.path / METRICS
        kept = _lines_until(metrics.read_bytes(), step) if step and metrics.is_file() else b""
        if kept:
            self._write(metrics.name, kept)
        else:
            metrics.unlink(missing_ok=True)

    def write_job(self, toml: str) -> None:
        """The job with every default filled in."""
        self._write(JOB, toml.encode())

    def write_sources(self, sources: Mapping[str, UserSource]) -> None:
        """The user's files that the run runs, by key of the job that names them, in place of those of a run before."""
        shutil.rmtree(self.path / SOURCE, ignore_errors=True)
        for name, data in copies(sources).items() if sources else ():
            with self._storing(f"{SOURCE}/{name}", data):
                write_whole(self.path / SOURCE / name, data)

    def write_ca(self, pem: bytes) -> None:
        """The authority that clients of the run have to trust."""
        self._write("ca.pem", pem)

    def append_rows(self, rows: Iterable[Row]) -> None:
        """A line of metrics.jsonl for each row."""
        data = "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows).encode()
        if data:
            with self._storing(METRICS, data), (self.path / METRICS).open("ab") as stream:
                stream.write(data)

    def write_weights(self, layout: Layout, flat: NDArray[np.float32]) -> None:
        """The parameters by name; `flat` has shape (layout.size,)."""
        self._write(WEIGHTS, save(layout.views(flat)))

    def write_summary(self, summary: dict[str, Any]) -> None:
        self._write(SUMMARY, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        with self._storing(name, data):
            FileStore(self.path).write(name, data)

    @contextmanager
    def _storing(self, name: str, data: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(self.path).free
            raise StorageError(
                f"{self.path / name}: expected room for {len(data):,} bytes; found {error.strerror}, {free:,} bytes "
                f"free. Make room there; then `thalweg resume {self.path}` goes on from the newest checkpoint, if any"
            ) from error


def _lines_until(lines: bytes, step: int) -> bytes:
    """The lines of metrics.jsonl of steps up to `step`; none after one that a crash has cut."""
    kept = []
    for line in lines.splitlines(keepends=True):
        try:
            if json.loads(line)["step"] > step or not line.endswith(b"\n"):
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
    return b"".join(kept)


def steps_published(folder: Path) -> int:
    """How many steps the run in `folder` had published when it ended. InputError where it has not ended."""
    file, expected = folder / SUMMARY, "the summary of a run that has ended"
    try:
        summary = read_summary(folder)
        steps = None if summary is None else summary["steps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError([Problem(str(file), expected, repr(error))]) from None
    if summary is None:
        raise InputError([Problem(str(file), expected, "no such file")])
    if not isinstance(steps, int) or steps < 0:
        raise InputError([Problem(f"{file}: steps", "a whole number", repr(steps))])
    return steps
