"""What other threads tell the one that decides."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.checkpoints.manifest import ShardFile
from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.hosts.checks import Refusal, RefusedError
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage


class PartArrived(NamedTuple):
    """A block of a gradient came from host `host`, for step `step`, computed on version `version`.

    parts:    the sum over the parts parts[0] <= m < parts[1]
    block:    its index
    gradient: its elements
    """

    host: int
    step: int
    version: int
    parts: tuple[int, int]
    block: int
    gradient: NDArray[np.float32]


class ParametersArrived(NamedTuple):
    """A block of version `version` came from its owner."""

    version: int
    block: int


class Answered(NamedTuple):
    """Host `owner` has applied its shard of this host's push."""

    owner: int
    step: int
    part: int


class Refreshed(NamedTuple):
    """What other hosts own was fetched for worker `rank`."""

    rank: int


class HostSaid(NamedTuple):
    host: int
    message: HostMessage


class LeadSaid(NamedTuple):
    message: LeadMessage


class Lost(NamedTuple):
    """A peer is gone, or hangs."""

    host: int
    error: str


class ShardSaved(NamedTuple):
    """This host's part of the checkpoint, or of the replica, at `version` is written; or, as text, why not."""

    version: int
    file: ShardFile | str
    replica: bool


class ReplicaEnded(NamedTuple):
    """The replica of which the lead told all hosts is there, or came to nothing."""


class StopAsked(NamedTuple):
    """The run is asked to end soon."""


@dataclass(frozen=True)
class OutsidePush:
    """Somebody who is no host of the job pushed a gradient for this shard.

    verdict: takes the answer; it is cancelled where nobody waits for it any more
    """

    step: int
    version: int
    parts: tuple[int, int]
    gradient: NDArray[np.float32]
    verdict: Future[Verdict]

    def begin(self) -> bool:
        """Whether somebody waits for the answer, which has to follow then; else nothing may be done."""
        return self.verdict.set_running_or_notify_cancel()

    def answer(self, verdict: Verdict) -> None:
        """What became of it."""
        self.verdict.set_result(verdict)

    def refuse(self, status: grpc.StatusCode, details: str) -> None:
        """It was not let in."""
        self.verdict.set_exception(RefusedError(Refusal(status, details)))


Event = (
    ShardSaved
    | PartArrived
    | ParametersArrived
    | Answered
    | Refreshed
    | HostSaid
    | LeadSaid
    | Lost
    | ReplicaEnded
    | StopAsked
    | OutsidePush
)
