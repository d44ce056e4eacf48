"""What the wire between two hosts carries: bytes over one plain TCP connection, both ways at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from socket import IPPROTO_TCP, TCP_NODELAY, socket
from time import perf_counter

from tests.hosts.host import Host

CONNECT_TIMEOUT_S = 5.0
TRANSFER_TIMEOUT_S = 60.0


def exchange_s(a: Host, b: Host, size_bytes: int, repeats: int) -> list[float]:
    """Seconds until each of two hosts has all of the other's `size_bytes`, `repeats` times one after the other."""
    with b.listen() as listener:
        near = a.connect(listener.getsockname()[:2], CONNECT_TIMEOUT_S)
        far, _ = listener.accept()
    with near, far:
        for end in (near, far):
            end.settimeout(TRANSFER_TIMEOUT_S)
            end.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        payload, places = bytes(size_bytes), [bytearray(size_bytes) for _ in range(2)]
        return [_exchange(near, far, payload, places) for _ in range(repeats)]


def _exchange(near: socket, far: socket, payload: bytes, places: list[bytearray]) -> float:
    work: list[Callable[[], None]] = [
        lambda: near.sendall(payload),
        lambda: far.sendall(payload),
        lambda: _receive(near, places[0]),
        lambda: _receive(far, places[1]),
    ]
    errors: list[BaseException] = []

    def run(part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(part,)) for part in work]
    begin = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = perf_counter()
    if errors:
        raise errors[0]
    return end - begin


def _receive(connection: socket, place: bytearray) -> None:
    view, have = memoryview(place), 0
    while have < len(view):
        if (more := connection.recv_into(view[have:])) == 0:
            raise ConnectionError(f"closed after {have} of {len(view)} bytes")
        have += more
