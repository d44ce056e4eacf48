"""What one host saves: its part of checkpoints, on storage, and of replicas, in the memory of hosts.

Both go the same way: the state is copied while nothing changes, a thread writes it, the lead hears of it, and has the
manifest written when it has heard of all hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.checkpoints.manifest import ShardFile
from thalweg_cluster.checkpoints.replicas import ReplicaStore
from thalweg_cluster.checkpoints.saver import Saver
from thalweg_cluster.checkpoints.state import RESIDUAL, ShardState
from thalweg_cluster.hosts.events import ReplicaEnded, ShardSaved
from thalweg_cluster.hosts.flow import Name
from thalweg_cluster.hosts.shard import Shard
from thalweg_cluster.hosts.spec import ServedSpec
from thalweg_cluster.server.telemetry import Telemetry
from thalweg_proto.faults import Faults
from thalweg_proto.v1.coordination_pb2 import HostMessage


class Saving:
    """Of one server, in the thread that decides."""

    def __init__(
        self,
        spec: ServedSpec,
        shard: Shard,
        telemetry: Telemetry,
        faults: Faults,
        post: Callable[[ShardSaved | ReplicaEnded], None],
    ) -> None:
        """`post`: hands an event to the thread that decides. OSError where there is no such storage."""
        self._spec = spec
        self._shard = shard
        self._post = post
        self._going = 0  # parts of checkpoints of which the lead has not heard
        self._checkpoints = self._replicas = None
        if spec.save is not None:
            self._checkpoints = Saver.to_storage(spec.save, telemetry.checkpoints, faults)
        if spec.save is not None and spec.replicate_every_s:
            in_memory = ReplicaStore(spec.memories, spec.host, faults)
            self._replicas = Saver(replace(spec.save, keep=1), in_memory, telemetry.replicas)

    def clear(self, after: int) -> None:
        """On the lead, before any host saves: removes what no run goes on from any more. OSError as above."""
        for saver in (self._checkpoints, self._replicas):
            if saver is not None:
                saver.clear(after)

    @property
    def done(self) -> bool:
        """Whether the lead has heard of all parts of checkpoints."""
        return not self._going

    def save(
        self,
        version: int,
        *,
        updates: int,
        residuals: Mapping[str, NDArray[np.float32]],
        workers: Mapping[str, NDArray[np.float32]],
        names: Iterable[Name],
        final: bool,
        replica: bool,
    ) -> HostMessage | None:
        """Copies what this host has, and begins to write it; what the lead is to hear at once.

        workers: by its name in checkpoints, what belongs to this host's workers
        others:  as in HostView.save
        """
        saver = self._replicas if replica else self._checkpoints
        if saver is None:
            return None
        if saver.busy and not final:
            return skipped(version, replica=replica)
        of_host = {RESIDUAL + name: array.copy() for name, array in residuals.items()}
        of_host |= {name: array.copy() for name, array in workers.items()}
        state = ShardState(
            begin=self._shard.begin,
            end=self._shard.end,
            parameters=self._shard.parameters.copy(),
            slots={name: array.copy() for name, array in self._shard.state.items()},
            updates=updates,
            of_host=of_host,
            names=tuple(names),
        )
        self._going += not replica
        saver.save_shard(
            self._spec.step.steps_done(version),
            state,
            host=self._spec.host,
            then=lambda file: self._post(ShardSaved(version, file, replica)),
        )
        return None

    def on_saved(self, saved: ShardSaved) -> HostMessage:
        """This host's part is written, or could not be; what the lead is to hear."""
        version, file, replica = saved
        self._going -= not replica
        error, text = (file, "") if isinstance(file, str) else ("", file.to_json())
        return HostMessage(saved=HostMessage.Saved(version=version, error=error, file=text, replica=replica))

    def commit(self, version: int, parts: Sequence[HostMessage.Saved]) -> None:
        """On the lead: all hosts are done with their parts."""
        replica = parts[0].replica
        saver = self._replicas if replica else self._checkpoints
        assert saver is not None  # else no host had saved anything
        step = self._spec.step.steps_done(version)
        if any(part.skipped for part in parts):
            saver.skip()
            saver.later(partial(saver.discard, step))
        else:
            files = [part.error or ShardFile.from_json(part.file) for part in parts]
            saver.later(partial(saver.commit, step, version, files))
        if replica:
            saver.later(lambda: self._post(ReplicaEnded()))

    def close(self) -> None:
        """Waits until all checkpoints are written that were begun. A replica is needed only where the run goes on."""
        if self._checkpoints is not None:
            self._checkpoints.close()
        if self._replicas is not None:
            self._replicas.close(wait=False)


def skipped(version: int, *, replica: bool) -> HostMessage:
    """What a host says that has not copied what it has."""
    return HostMessage(saved=HostMessage.Saved(version=version, skipped=True, replica=replica))
