"""What a flow (barrier_flow.py, stale_flow.py) and the server that runs it are to each other.

All methods are called in the one thread that decides, but where it says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.hosts.events import OutsidePush, ParametersArrived, PartArrived
from thalweg_cluster.hosts.in_hand import InHand, Part, Piece
from thalweg_cluster.hosts.shard import Shard
from thalweg_cluster.hosts.spec import ServedSpec
from thalweg_proto.blocks import Shards
from thalweg_proto.faults import Faults
from thalweg_proto.formats import WireFormat
from thalweg_proto.messages import PartFinal, Ready, Work
from thalweg_proto.shared_memory import ServedVectors
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage
from thalweg_proto.wire import Bytes, Make

Name = tuple[int, int]
"""Step and part: of a push from outside."""


class WorkersView(Protocol):
    """What a flow sees of its host's workers.

    in_hand: what each is to do
    """

    in_hand: InHand

    def deal(self, pieces: Iterable[Piece]) -> None:
        """Deals these to the workers that are there; `on_dealt` follows for each that gets parts."""
        ...

    def evaluate(self, version: int) -> None:
        """Has this host's share of the held-out set evaluated as `version`."""
        ...

    def finish(self, version: int, *, evaluate: bool) -> None:
        """`version` is the last one: lets the workers go, after they have evaluated it where they should."""
        ...

    def send(self, rank: int, message: Work | Ready) -> None:
        """Work is in its hand from now on."""
        ...

    def broadcast(self, message: Ready) -> None: ...

    def reserve(self, gradient: int) -> bool:
        """Takes the memory of a spare gradient; False where there is no room."""
        ...

    def copy_ended(self, *, won: bool) -> None:
        """A copy was whole first, or was not."""
        ...

    def came_late(self) -> None:
        """A worker has a result of a part that another one had done before."""
        ...


class HostView(Protocol):
    """What a flow sees of its host.

    vectors: the memory that is shared with this host's workers
    shard:   what this host owns
    size:    elements of the flat vector
    ranks:   of this host's workers
    faults:  what is planned for this host's server
    workers: of this host; not there yet when the flow is made
    """

    spec: ServedSpec
    shards: Shards
    shard: Shard
    vectors: ServedVectors
    size: int
    ranks: range
    faults: Faults
    gradient_format: WireFormat
    parameters_format: WireFormat

    @property
    def workers(self) -> WorkersView: ...

    def to_lead(self, message: HostMessage) -> None: ...

    def pack(self, index: int, *, data: Any, **header: Any) -> list[Bytes]:
        """A block, to be sealed as a message; from any thread."""
        ...

    def push(self, owner: int, urgency: tuple[int, ...], make: Make) -> None:
        """Sends a block of a gradient to its owner; `make` is called in the thread that sends it."""
        ...

    def publish(self, urgency: tuple[int, ...], make: Make) -> None:
        """Sends a block of parameters to all other hosts that have workers; `make` as for `push`."""
        ...

    def answer(self, host: int, step: int, part: int) -> None:
        """Tells a host that its push is applied."""
        ...

    def refresh(self, rank: int) -> None:
        """Fetches what other hosts own of the parameters; `on_refreshed(rank)` follows."""
        ...

    def save(
        self,
        version: int,
        *,
        updates: int,
        residuals: Mapping[str, NDArray[np.float32]],
        names: Iterable[Name] = (),
        final: bool = False,
        replica: bool = False,
    ) -> None:
        """Copies what this host has of a checkpoint at `version`, while nothing changes, and begins to write it.

        final:   also where the one before is still being written
        replica: into the memory of hosts
        """
        ...

    def not_finite(self, step: int, begin: int, parameters: NDArray[np.float32]) -> None:
        """The block that begins at `begin` would have become `parameters`, which are not all finite: ends the run."""
        ...


class Flow(Protocol):
    """The way of gradients and parameters on one host.

    version:   the newest version that is whole on this host
    gradients: how many lie in this host's memory; spares: for how many copies there is a place
    """

    version: int
    VERSIONS: int

    @property
    def gradients(self) -> int: ...

    @property
    def spares(self) -> int: ...

    def gradients_of(self, rank: int) -> range:
        """Which of them are a worker's."""
        ...

    def begin(self) -> None:
        """All workers of all hosts are there."""
        ...

    def on_joined(self, rank: int) -> None:
        """A worker has joined in the place of one that is gone; what waits to be dealt is dealt after this."""
        ...

    def on_gone(self, rank: int, parts: list[Part]) -> list[Part]:
        """A worker is gone that had `parts` in hand; returns those that others of this host are to compute."""
        ...

    def on_dealt(self, rank: int, parts: list[Part]) -> None:
        """A worker gets these to compute, in order."""
        ...

    def on_final(self, rank: int, message: PartFinal) -> None: ...

    def on_part_left(self, rank: int, part: Part) -> None:
        """A worker will not compute a part: its step is over."""
        ...

    def copy(self, part: Part, rank: int) -> bool:
        """Has a worker compute a part, too, that another one is in the middle of; False where that cannot be."""
        ...

    def on_part(self, event: PartArrived) -> None: ...

    def on_parameters(self, event: ParametersArrived) -> None: ...

    def on_answered(self, owner: int, step: int, part: int) -> None: ...

    def on_refreshed(self, rank: int) -> None: ...

    def on_outside(self, push: OutsidePush) -> None: ...

    @property
    def compression_error(self) -> float:
        """Euclidean norm of what the wire's format still owes of this host's gradients."""
        ...

    def on_lead(self, message: LeadMessage) -> None: ...

    def room_for_part(self, host: int, step: int, parts: tuple[int, int], index: int) -> NDArray[np.float32]:
        """Where a block of a gradient is decoded to; from any thread. ProtocolError where none is expected."""
        ...

    def room_for_parameters(self, version: int, index: int) -> NDArray[np.float32]:
        """Where a block of parameters is decoded to; from any thread. ProtocolError where none is expected."""
        ...
