"""The exchange where the server of the host does its part of a step itself.

Rules:
  - The server says what to compute (Work), and how much of the parameters is there (Ready); the worker waits for what
    it is about to read, and for nothing more.
  - A gradient belongs to this worker from Work until it has said that its last element is final; what is final already
    may be read by the server at any time. Where another worker began it, and is gone, only the rest of it does.
  - Another worker may be told to compute the same part, elsewhere, where this one is slow. What is then first is used,
    and a step may be over before this worker is done with its part.
"""

from __future__ import annotations

import os
import select
from collections import deque
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from thalweg_proto import messages
from thalweg_proto.faults import NO_FAULTS, Faults
from thalweg_proto.messages import FromServer, Ready, Stop, Work
from thalweg_proto.shared_memory import ServedPlan, ServedVectors
from thalweg_worker.exchange.connection import Connection


class StoppedError(Exception):
    """The server ended the run while this worker was waiting in the middle of a step."""


class ServedExchange:
    """One worker's end.

    waited_s: how long it has waited for parameters, in all, in seconds
    faults:  what is planned for this worker
    """

    def __init__(self, connection: Connection, faults: Faults = NO_FAULTS) -> None:
        """Maps what the server handed over."""
        self.connection = connection
        self.faults = faults
        self.waited_s = 0.0
        welcome = connection.welcome
        plan = ServedPlan(
            size=welcome.size,
            versions=welcome.versions,
            gradients=welcome.gradients,
            slots=welcome.slots,
            spares=welcome.spares,
        )
        self._vectors = ServedVectors(plan, connection.fds[0], server=False)
        os.close(connection.fds[0])
        self._parameters = [connection.layout.views(row) for row in self._vectors.versions]
        self._ready = Ready(0, 0)
        self._heard: deque[FromServer] = deque()  # ahead of its turn
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def receive(self) -> FromServer:
        """The next word of the server; Ready is taken note of, and not returned."""
        while not self._heard:
            self._hear()
        return self._heard.popleft()

    def _hear(self) -> None:
        message = self.connection.receive()
        if isinstance(message, Ready):
            self._ready = message
        else:
            self._heard.append(message)

    def superseded(self, work: Work) -> bool:
        """Whether what is not pushed of `work` by now comes too late: the server has gone on to a later step, or the
        next version begins to be there, for which it has all parts of this one. What this worker reads may be of
        several versions then."""
        while self._poll.poll(0):
            self._hear()
        return self._ready.version > work.version or any(
            isinstance(m, Stop) or (isinstance(m, Work) and m.step > work.step) for m in self._heard
        )

    def leave_part(self, step: int, part: int) -> None:
        """Says that it will not compute a part."""
        self.connection.send(messages.pack_part_left(messages.PartLeft(step, part)))

    def wait(self, version: int, end: int) -> None:
        """Waits until the elements [0, end) of `version` are there. StoppedError where the server ends the run."""
        if self._ready >= (version, end):
            return
        begin = perf_counter()
        while self._ready < (version, end):
            self._hear()
            if self._heard and isinstance(self._heard[-1], Stop):
                raise StoppedError
        self.waited_s += perf_counter() - begin

    def vector(self, version: int) -> NDArray[np.float32]:
        """Where the parameters of `version` are, flat, read-only."""
        return self._vectors.version(version)

    def parameters(self, version: int) -> dict[str, NDArray[np.float32]]:
        """The same by name; those of version t and t + versions are the same arrays."""
        return self._parameters[version % len(self._parameters)]

    @property
    def versions(self) -> int:
        """How many versions have a place of their own."""
        return len(self._parameters)

    def gradient(self, index: int) -> NDArray[np.float32]:
        """The `index`-th gradient in the memory of this host, flat, writable; Work says which are this worker's."""
        return self._vectors.gradients[index]

    def state(self, index: int, version: int) -> list[NDArray[np.float32]]:
        """The state, at `version`, of the own rule of the worker whose gradient is the `index`-th, each array flat,
        writable."""
        return self._vectors.state(index, version)

    def final(self, step: int, part: int, begin: int, loss: float) -> None:
        """Says that the elements from `begin` on of a part's gradient are final; with begin = 0, its loss."""
        self.connection.send(messages.pack_final(messages.PartFinal(step, part, begin, loss)))
