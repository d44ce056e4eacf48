"""The files that a run leaves in its folder (DESIGN section 5).

Each is written whole beside its name and then renamed, so that a reader never sees half a file; metrics.jsonl grows
line by line.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from thalweg_cluster.server.spec import Row
from thalweg_proto.errors import Problem
from thalweg_proto.layout import Layout


def check_folder(path: Path) -> list[Problem]:
    """Whether the folder of a run can be made and written; makes nothing."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return []
    found = f"{there}, which cannot be written" if there.is_dir() else f"{there}, which is a file"
    return [Problem("--out", "a folder that can be written", found)]


class RunFolder:
    """The folder of one run. What an earlier run left under the same names is replaced."""

    def __init__(self, path: Path) -> None:
        """Makes the folder. OSError where that fails after all."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        for name in ("summary.json", "metrics.jsonl", "weights.safetensors", "ca.pem"):
            (path / name).unlink(missing_ok=True)

    def write_job(self, toml: str) -> None:
        """The job with every default filled in."""
        self._write("job.toml", toml.encode())

    def write_ca(self, pem: bytes) -> None:
        """The authority that clients of the run have to trust."""
        self._write("ca.pem", pem)

    def append_rows(self, rows: Iterable[Row]) -> None:
        """A line of metrics.jsonl for each row."""
        lines = [json.dumps(dataclasses.asdict(row)) + "\n" for row in rows]
        if lines:
            with (self.path / "metrics.jsonl").open("a") as stream:
                stream.writelines(lines)

    def write_weights(self, layout: Layout, flat: NDArray[np.float32]) -> None:
        """The parameters by name; `flat` has shape (layout.size,)."""
        self._write(
            "weights.safetensors",
            save({name: np.ascontiguousarray(a) for name, a in layout.views(flat).items()}),
        )

    def write_summary(self, summary: dict[str, Any]) -> None:
        self._write("summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        part = self.path / f".{name}.part"
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self.path / name)
