"""A run on several hosts leaves nothing in its process: no thread, no descriptor, nothing in shared memory."""

from __future__ import annotations

import contextlib
import gc
import os
import threading

import grpc
import pytest
from tests.integration.grpc_client import standing
from tests.integration.local_run import train_locally
from tests.tiers import slow_but

from thalweg_proto.shared_memory import CHUNK

OPTIONS = {
    "workers": [1, 2, 1],
    "model": {"use": "mlp", "options": {"hidden": [300, 120]}},
    "of_server": {"block": CHUNK},
}
STALE = {"consistency": "async", "schedule": {"name": "constant", "learning_rate": 1e-3, "warmup_steps": 0}}


def ends_well():
    train_locally(**OPTIONS)


def ends_well_in_async():
    train_locally(**OPTIONS, **STALE)


def fails():
    """One host has nothing to say any more."""

    def broken(version, index):
        raise ZeroDivisionError("boom")

    with standing(**OPTIONS, ends_well=False) as job:
        job.run.servers[1].room_for_parameters = broken
    assert "boom" in job.run.result.error


def never_begins():
    """Nothing listens where the others should be."""
    of_server = OPTIONS["of_server"] | {"connect_s": 0.2}
    run = train_locally(**OPTIONS | {"of_server": of_server}, addresses=lambda *_: ["127.0.0.1:1"] * 3)
    assert "cannot reach" in run.result.error


def descriptors() -> list[str]:
    """What each open descriptor is: of sockets and files without their numbers."""
    what = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of the list itself
            what.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(what)


def there_is(others: set[threading.Thread]) -> tuple[set[str], list[str], set[threading.Thread]]:
    """Names in /dev/shm, open descriptors, threads; `others` were there before the first run."""
    for thread in set(threading.enumerate()) - others:
        thread.join(10)  # gRPC's own end a moment after the run
    gc.collect()  # a server and what belongs to it know each other
    return set(os.listdir("/dev/shm")), descriptors(), set(threading.enumerate())


@pytest.mark.parametrize("run", slow_but([ends_well, ends_well_in_async, fails, never_begins], 0, 3))
def test_nothing_is_left_after_a_run_on_several_hosts(run):
    """However it ended."""
    with grpc.insecure_channel("127.0.0.1:1"):  # while there is one, gRPC keeps what it shares among all
        others = set(threading.enumerate())
        run()  # warms up what stays for the process
        before = there_is(others)
        run()
        assert there_is(others) == before
