"""Saves the checkpoints of one server while its run goes on.

Rules:
  - The state is copied by who has it in hand; all else happens in a thread of the saver's.
  - One checkpoint at a time: where the storage is slower than checkpoints fall due, one that falls due meanwhile is
    left out, and counted. The run waits for none.
  - Storage that fails fails a checkpoint, not the run; it is counted, and told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

from thalweg_cluster.checkpoints.manifest import NAME, Manifest, ShardFile, step_of
from thalweg_cluster.checkpoints.state import ShardState
from thalweg_cluster.checkpoints.store import Store, open_store
from thalweg_cluster.checkpoints.writing import clear, commit, write_shard
from thalweg_cluster.server.telemetry import Telemetry
from thalweg_proto.faults import CORRUPT, NO_FAULTS, Faults


@dataclass(frozen=True, kw_only=True)
class SaveSpec:
    """Where and how a run saves.

    place: a folder's path or a URL
    keep:  how many of the newest are kept
    of:    the manifest of each checkpoint, but for step, version and files
    """

    place: str
    keep: int
    of: Manifest

    def manifest(self, step: int, version: int, files: Sequence[ShardFile]) -> Manifest:
        """Of the checkpoint that these files make up."""
        in_order = tuple(sorted(files, key=lambda file: (file.begin, file.end)))
        return replace(self.of, step=step, version=version, files=in_order)


class Saver:
    """Of one server."""

    def __init__(self, spec: SaveSpec, telemetry: Telemetry, faults: Faults = NO_FAULTS) -> None:
        """`faults`: of the server. OSError, ValueError or ImportError where there is no such storage."""
        self._spec = spec
        self._telemetry = telemetry
        self._store: Store = open_store(spec.place, partial(_at, faults))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="thalweg-save")
        self._going: Future[None] | None = None
        self._began_s = 0.0

    def clear(self, after: int) -> None:
        """Removes what no run goes on from any more; for one server, before any saves. OSError where storage fails."""
        clear(self._store, after=after)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._going is not None and not self._going.done()

    def skip(self) -> None:
        """A checkpoint fell due while one was being written."""
        self._telemetry.checkpoint_skipped()

    def save_shard(
        self,
        step: int,
        state: ShardState,
        *,
        host: int,
        then: Callable[[ShardFile | str], None],
    ) -> None:
        """Writes what `host` has; `then`, in the saver's thread, gets its line of the manifest, or what went wrong."""

        def save() -> None:
            try:
                then(write_shard(self._store, step, state, host=host, hosts=self._spec.of.hosts))
            except OSError as error:
                then(str(error))

        self._began_s = perf_counter()
        self._going = self._pool.submit(save)

    def commit(self, step: int, version: int, files: Sequence[ShardFile | str]) -> None:
        """Makes a checkpoint of what the owners wrote, or counts a failed one. Takes as long as that takes."""
        wrong = [file for file in files if isinstance(file, str)]
        try:
            if wrong:
                raise OSError("; ".join(wrong))
            whole = [file for file in files if isinstance(file, ShardFile)]
            commit(self._store, self._spec.manifest(step, version, whole), keep=self._spec.keep)
        except OSError as error:
            self._telemetry.checkpoint_failed(step, str(error))
        else:
            self._telemetry.checkpoint_saved(step, perf_counter() - self._began_s)

    def later(self, call: Callable[[], None]) -> None:
        """Runs `call` in the saver's thread."""
        self._pool.submit(call)

    def close(self) -> None:
        """Waits until all that was begun is written."""
        self._pool.shutdown()


def _at(faults: Faults, act: str, path: Path) -> None:
    """A file of a checkpoint has come to a point."""
    kind = "manifest" if path.name == NAME else "shard"
    due = faults.at(f"{kind}.{act}", step_of(path.parent.name))
    if due.do == CORRUPT:
        path.write_bytes(due.spoil(path.read_bytes()))
