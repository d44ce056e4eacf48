"""Who may join a server: the refusals, over real sockets."""

from __future__ import annotations

import os
import secrets
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg_cluster.server.door import Door, share
from thalweg_proto import messages
from thalweg_proto.errors import ProtocolError, WorkerError
from thalweg_proto.layout import Layout
from thalweg_proto.shared_memory import create_segment
from thalweg_proto.v1 import exchange_pb2
from thalweg_worker.exchange import Exchange

LAYOUT = Layout.of({"w": (4,)})


@pytest.fixture
def door():
    """A server's door for two workers, listened at in a thread until the test ends."""
    address = f"thalweg-test-{secrets.token_hex(8)}"
    segments = (create_segment(4096), create_segment(4096))
    door = Door(
        address, job_id="job", layout=LAYOUT, workers=2, microbatches=3, chunks=5, generation=1, segments=segments
    )
    door.address = address
    heard: list[object] = []

    def listen() -> None:
        try:
            while not door.interrupted:
                heard.extend(door.receive())
        except WorkerError as error:
            heard.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    door.heard = heard
    door.thread = thread
    yield door
    door.interrupt()
    thread.join()
    door.close()


@given(st.integers(0, 100), st.integers(1, 20))
def test_shares_are_contiguous_disjoint_and_even(of, workers):
    """All pieces are dealt out once, in order, and sizes differ by at most one."""
    shares = [share(of, rank, workers) for rank in range(workers)]
    assert [piece for part in shares for piece in part] == list(range(of))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_worker_learns_what_is_its_own(door):
    """Worker 1 of 2 gets microbatches 1 and 2 of 3, and chunks 2 to 4 of 5."""
    with Exchange(door.address, job_id="job", rank=1, layout=LAYOUT) as exchange:
        assert (exchange.microbatches, exchange.chunks) == (range(1, 3), range(2, 5))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"job_id": "other"}, "expected a worker of job 'job'; found 'other'"),
        ({"rank": 2}, "expected a free rank below 2; found 2"),
        ({"layout": Layout.of({"w": (5,)})}, r"expected a model of the tensors w \(4,\)"),
    ],
)
def test_a_stranger_is_refused_with_the_reason(door, changed, reason):
    """Another job, a rank that is not free, another model."""
    with pytest.raises(ProtocolError, match=reason):
        Exchange(door.address, **{"job_id": "job", "rank": 0, "layout": LAYOUT, **changed})


def test_a_rank_that_is_taken_is_refused(door):
    """Two workers cannot have one rank."""
    with (
        Exchange(door.address, job_id="job", rank=0, layout=LAYOUT),
        pytest.raises(ProtocolError, match="expected a free rank below 2; found 0"),
    ):
        Exchange(door.address, job_id="job", rank=0, layout=LAYOUT)


def ask(address: str, data: bytes) -> exchange_pb2.Welcome:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect("\0" + address)
        stranger.send(data)
        return exchange_pb2.Welcome.FromString(stranger.recv(messages.MESSAGE_BYTES_MAX))


def test_another_protocol_version_is_refused(door):
    """The answer names both versions."""
    hello = exchange_pb2.Hello(protocol_version=99, job_id="job", rank=0, layout_sha256=LAYOUT.names_sha256)
    assert "expected protocol version 1; found 99" in ask(door.address, hello.SerializeToString()).refused


@settings(max_examples=30, deadline=None)
@given(data=st.binary(min_size=1, max_size=200))
def test_malformed_hellos_are_refused_and_the_door_stays_open(data):
    """Whatever a stranger says first, it gets an answer, and a good worker still comes in afterwards."""
    address = f"thalweg-test-{secrets.token_hex(8)}"
    segments = (create_segment(4096), create_segment(4096))
    door = Door(
        address, job_id="job", layout=LAYOUT, workers=1, microbatches=1, chunks=0, generation=1, segments=segments
    )

    def admit_two() -> None:
        while not door.full:
            for _ in door.receive():
                pass

    thread = threading.Thread(target=admit_two)
    thread.start()
    assert ask(address, data).refused
    Exchange(address, job_id="job", rank=0, layout=LAYOUT).close()
    thread.join()
    door.close()


def test_a_worker_that_goes_away_is_noticed(door):
    """Its closed connection is a WorkerError with its rank."""
    Exchange(door.address, job_id="job", rank=1, layout=LAYOUT).close()
    door.thread.join()
    assert str(door.heard[-1]) == "worker 1 is gone: it closed its connection"


def test_segments_are_closed_with_the_door():
    """No descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    segments = (create_segment(4096), create_segment(4096))
    Door(
        f"thalweg-test-{secrets.token_hex(8)}",
        job_id="job", layout=LAYOUT, workers=1, microbatches=1, chunks=0, generation=1, segments=segments,
    ).close()  # fmt: skip
    assert len(os.listdir("/proc/self/fd")) == before
