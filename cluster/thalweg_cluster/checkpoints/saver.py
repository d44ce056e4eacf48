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
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from thalweg_cluster.checkpoints.manifest import NAME, Manifest, ShardFile, step_of
from thalweg_cluster.checkpoints.state import ShardState
from thalweg_cluster.checkpoints.store import Point, Store, open_store
from thalweg_cluster.checkpoints.writing import clear, commit, discard, write_shard
from thalweg_cluster.server.telemetry import Saves
from thalweg_proto.faults import CORRUPT, Faults


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

    def __init__(self, spec: SaveSpec, store: Store, saves: Saves) -> None:
        """
        store: where they go
        saves: counts what becomes of them
        """
        self._spec = spec
        self._saves = saves
        self._store = store
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="thalweg-save")
        self._going: Future[None] | None = None
        self._began_s = 0.0

    @classmethod
    def to_storage(cls, spec: SaveSpec, saves: Saves, faults: Faults) -> Saver:
        """For the place of `spec`; `faults`: of the server. OSError, ValueError or ImportError where there is no such
        storage."""
        return cls(spec, open_store(spec.place, _points(faults)), saves)

    def clear(self, after: int) -> None:
        """Removes what no run goes on from any more; for one server, before any saves. OSError where storage fails."""
        clear(self._store, after=after)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._going is not None and not self._going.done()

    def skip(self) -> None:
        """A checkpoint fell due while one was being written."""
        self._saves.skipped()

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
            self.discard(step)
            self._saves.failed(step, str(error))
        else:
            self._saves.saved(step, perf_counter() - self._began_s)

    def discard(self, step: int) -> None:
        """Removes what some owners wrote of a checkpoint that came to nothing. Takes as long as that takes."""
        with suppress(OSError):  # the next one that is whole removes it, too
            discard(self._store, step)

    def later(self, call: Callable[[], None]) -> None:
        """Runs `call` in the saver's thread."""
        self._pool.submit(call)

    def close(self, *, wait: bool = True) -> None:
        """Waits until all that was begun is written; or leaves it, where nobody will need it."""
        self._pool.shutdown(wait=wait, cancel_futures=not wait)


def _points(faults: Faults) -> Point:
    """What is planned for a server, as the folder sees it in which it saves."""

    def at(act: str, path: Path) -> None:
        kind = "manifest" if path.name == NAME else "shard"
        due = faults.at(f"{kind}.{act}", step_of(path.parent.name))
        if due.do == CORRUPT:
            path.write_bytes(due.spoil(path.read_bytes()))

    return at
