"""Who calls a door: a host of the job, which says so in the metadata of its calls, or anybody else.

Rules:
  - Each host has one stream of each kind for the life of a run. A second one is refused, whoever opens it: two streams
    would take each other's messages.
  - All others share OUTSIDE_STREAMS_MAX streams, so that however many there are, the hosts find a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from thalweg_cluster.hosts.checks import Refusal, RefusedError

HOST_KEY = "thalweg-host"
"""Under this key of the metadata a server of the job says which host it is."""
HOST_STREAMS = ("Push", "Pull", "Attend")
FETCHES_MAX = 8
"""How many Pulls without `follow` a host makes at the same time."""
OUTSIDE_STREAMS_MAX = 8
SHORT_CALLS_MAX = 16
"""Status and Health, and what is only refused."""


class Callers:
    """Of one door."""

    def __init__(self, host: int, hosts: int) -> None:
        """The door is that of `host`, of so many."""
        self._others = [other for other in range(hosts) if other != host]
        self._outside = threading.BoundedSemaphore(OUTSIDE_STREAMS_MAX)
        self._lock = threading.Lock()
        self._taken: set[tuple[str, int]] = set()

    @property
    def calls_max(self) -> int:
        """How many calls are answered at the same time."""
        return len(self._others) * (len(HOST_STREAMS) + FETCHES_MAX) + OUTSIDE_STREAMS_MAX + SHORT_CALLS_MAX

    def host_of(self, context: grpc.ServicerContext) -> int | None:
        """The host that calls; None: somebody else. RefusedError where the job has no such other host."""
        said = dict(context.invocation_metadata() or ()).get(HOST_KEY)
        if said is None:
            return None
        known = {str(host): host for host in self._others}
        if said not in known:
            expected = f"one of {', '.join(known)}" if known else "none, since the job has no other host"
            raise _invalid(f"{HOST_KEY} (metadata): expected {expected}; found {said!r}")
        return known[said]

    def host(self, context: grpc.ServicerContext) -> int:
        """The host that calls. RefusedError where it is none."""
        host = self.host_of(context)
        if host is None:
            raise _invalid(f"{HOST_KEY} (metadata): expected a host of the job; found nothing")
        return host

    def take(self, host: int, stream: str) -> None:
        """The host's stream of a kind begins. RefusedError where it has one."""
        with self._lock:
            if (stream, host) in self._taken:
                details = f"{HOST_KEY} (metadata): expected one {stream} of host {host}; found another one"
                raise RefusedError(Refusal(grpc.StatusCode.ALREADY_EXISTS, details))
            self._taken.add((stream, host))

    @contextmanager
    def outside(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Within the block somebody else's stream lasts. RefusedError where there are too many."""
        if not self._outside.acquire(blocking=False):
            expected = f"at most {OUTSIDE_STREAMS_MAX} streams of others than hosts at the same time"
            raise RefusedError(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, f"expected {expected}; found one more"))
        released = threading.Lock()

        def release() -> None:
            if released.acquire(blocking=False):
                self._outside.release()

        # The block does not end where the client is gone while gRPC sends to it.
        if not context.add_callback(release):
            release()
        try:
            yield
        finally:
            release()


def _invalid(details: str) -> RefusedError:
    return RefusedError(Refusal(grpc.StatusCode.INVALID_ARGUMENT, details))
