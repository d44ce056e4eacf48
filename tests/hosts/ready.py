"""Waits, as a driver on its host, until Ray knows a number of living hosts.

    python -m tests.hosts.ready ADDRESS HOSTS TIMEOUT_S

Exit status: 0 when there are exactly HOSTS; 1 after TIMEOUT_S, with what there is instead.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable

import ray

POLL_S = 0.05


def until(condition: Callable[[], bool], deadline: float) -> bool:
    """Whether `condition` became true before `deadline` of the monotonic clock."""
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True


def alive() -> list[str]:
    """The addresses of the hosts that Ray takes for living."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray gives it no type
    return [node["NodeManagerAddress"] for node in nodes if node["Alive"]]


def main(address: str, hosts: int, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    # Ray itself would try for minutes.
    if not until(lambda: answers(address), deadline):
        print(f"nothing listens at {address} after {timeout_s:.0f} s", file=sys.stderr)
        return 1
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    if not until(lambda: len(alive()) == hosts, deadline):
        print(f"after {timeout_s:.0f} s: expected {hosts} hosts; found {alive()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
