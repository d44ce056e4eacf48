"""Who calls a door: hosts of the job at one, which say who they are in the metadata of their calls; clients at another.

Rules:
  - Each host has one stream of each kind for the life of a run. A second one is refused, whoever opens it: two streams
    would take each other's messages.
  - All clients share OUTSIDE_STREAMS_MAX streams, each for a bounded time: what they hold of memory is bounded, too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from thalweg_cluster.hosts.checks import Refusal, RefusedError

HOST_KEY = "thalweg-host"
"""Under this key of the metadata a server of the job says which host it is; at the hosts' door, whose token it has."""
HOST_STREAMS = ("Push", "Follow", "Attend")
FETCHES_MAX = 8
"""How many Pulls a host makes at the same time."""
OUTSIDE_STREAMS_MAX = 8
SHORT_CALLS_MAX = 16
"""Status and Health, and what is only refused."""


class Hosts:
    """The callers of a hosts' door."""

    def __init__(self, host: int, hosts: int) -> None:
        """The door is that of `host`, of so many."""
        self._others = [other for other in range(hosts) if other != host]
        self._lock = threading.Lock()
        self._taken: set[tuple[str, int]] = set()

    @property
    def calls_max(self) -> int:
        """How many calls are answered at the same time."""
        return len(self._others) * (len(HOST_STREAMS) + FETCHES_MAX) + SHORT_CALLS_MAX

    def host(self, context: grpc.ServicerContext) -> int:
        """The host that calls. RefusedError where the job has no such other host."""
        said = dict(context.invocation_metadata() or ()).get(HOST_KEY)
        known = {str(host): host for host in self._others}
        if said not in known:
            found = "nothing" if said is None else repr(said)
            raise _invalid(f"{HOST_KEY} (metadata): expected one of {', '.join(known)}; found {found}")
        return known[said]

    def take(self, host: int, stream: str) -> None:
        """The host's stream of a kind begins. RefusedError where it has one."""
        with self._lock:
            if (stream, host) in self._taken:
                details = f"{HOST_KEY} (metadata): expected one {stream} of host {host}; found another one"
                raise RefusedError(Refusal(grpc.StatusCode.ALREADY_EXISTS, details))
            self._taken.add((stream, host))


class Outsiders:
    """The callers of a clients' door."""

    def __init__(self, stream_s: float, streams_max: int = OUTSIDE_STREAMS_MAX) -> None:
        """`stream_s`: how long a stream of theirs may last; `streams_max`: so many at the same time."""
        self._stream_s = stream_s
        self._streams_max = streams_max
        self._room = threading.BoundedSemaphore(streams_max)

    @contextmanager
    def stream(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Within the block a client's stream lasts, and no longer than its time. RefusedError if there are too many."""
        if not self._room.acquire(blocking=False):
            expected = f"at most {self._streams_max} streams of others than hosts at the same time"
            raise RefusedError(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, f"expected {expected}; found one more"))
        over = threading.Timer(self._stream_s, context.cancel)
        over.daemon = True
        released = threading.Lock()

        def release() -> None:
            if released.acquire(blocking=False):
                over.cancel()
                self._room.release()

        over.start()
        # The block does not end where the client is gone while gRPC sends to it.
        if not context.add_callback(release):
            release()
        try:
            yield
        finally:
            release()


def _invalid(details: str) -> RefusedError:
    return RefusedError(Refusal(grpc.StatusCode.INVALID_ARGUMENT, details))
