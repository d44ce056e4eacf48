"""File descriptors that go from one process of a host to another, over a Unix socket of packets, with a message.

Rules:
  - Linux lets PACKET_MAX of them go with one packet. Where there are more, packets that say nothing follow.
  - Whoever receives knows from the message how many there are to be.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

PACKET_MAX = 253
"""SCM_MAX_FD, man 7 unix."""
_MORE = b"\0"  # a packet of descriptors alone would be lost: it has to have a byte


def send(connection: socket.socket, message: bytes, fds: Sequence[int]) -> None:
    """Sends `message` and `fds`, which stay the caller's. OSError where the other end is gone."""
    socket.send_fds(connection, [message], fds[:PACKET_MAX])
    for begin in range(PACKET_MAX, len(fds), PACKET_MAX):
        socket.send_fds(connection, [_MORE], fds[begin : begin + PACKET_MAX])


def receive(connection: socket.socket, bytes_max: int, count: Callable[[bytes], int]) -> tuple[bytes, list[int]]:
    """A message of at most `bytes_max` bytes, b"" where the other end is gone, and its descriptors, which are the
    caller's to close.

    `count` says how many come with a message; there are fewer where the other end sends no more. Raises OSError.
    """
    message, fds, _, _ = socket.recv_fds(connection, bytes_max, PACKET_MAX)
    try:
        while len(fds) < count(message):
            _, more, _, _ = socket.recv_fds(connection, len(_MORE), PACKET_MAX)
            if not more:
                break
            fds += more
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return message, fds
