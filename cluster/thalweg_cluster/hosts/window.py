"""The gRPC door of a run whose workers meet on one host: it shows the parameters, and lets nothing in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.hosts.checks import Expected
from thalweg_cluster.hosts.clients_door import ClientsDoor
from thalweg_cluster.hosts.events import Event, OutsidePush
from thalweg_cluster.hosts.snapshot import snapshot
from thalweg_cluster.hosts.spec import LOOPBACK
from thalweg_cluster.hosts.status import status_of
from thalweg_cluster.server.server import Server
from thalweg_proto.blocks import Shards
from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import make_format
from thalweg_proto.v1 import parameter_server_pb2 as pb


class Window:
    """What stands behind the door: a server that takes no part in a step."""

    def __init__(self, server: Server) -> None:
        """Listens on loopback. RuntimeError where that fails."""
        self._server = server
        exact = make_format("float32")
        self._expected = Expected(
            job_id=server.spec.job_id,
            generation=1,
            host=0,
            hosts=1,
            shards=Shards.of(server.spec.layout.size, [True]),
            gradients=exact,
            parameters=exact,
        )
        server.account.telemetry.door = self._expected.counts
        self._door = ClientsDoor(LOOPBACK, self._expected, self, guard=server.spec.guard)
        self.address = f"{LOOPBACK}:{self._door.port}"

    def open(self) -> None:
        """Starts to answer."""
        self._door.open()

    def close(self) -> None:
        self._door.close()

    def post(self, event: Event) -> None:
        """The microbatches of a step are computed by the job's own workers: what else comes is one of them again."""
        if isinstance(event, OutsidePush) and event.begin():
            event.answer(Verdict.LATE if event.step < self._server.version else Verdict.DUPLICATE)

    def room_for_part(self, host: int, step: int, parts: tuple[int, int], index: int) -> NDArray[np.float32]:
        raise ProtocolError(f"sender: expected 0, since the job has one host; found {1 + host}")

    def room_for_parameters(self, version: int, index: int) -> NDArray[np.float32]:
        raise ProtocolError("the parameters of this job have no other owner")

    def newest(self, index: int) -> tuple[int, NDArray[np.float32]]:
        raise ProtocolError("the job has no other host that could ask")

    def snapshot(self) -> tuple[int, NDArray[np.float32]]:
        # A version stays whole until the next but one is published.
        return snapshot(lambda: self._server.version, self._server.parameters, spare=1)

    def status(self) -> pb.StatusReply:
        spec = self._server.spec
        return status_of(self._expected, spec.step, spec.layout, [self.address], version=self._server.version)
