"""Who may join a server: the refusals, over real sockets."""

from __future__ import annotations

import os
import secrets
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg_cluster.server.door import Door, Gone
from thalweg_cluster.server.server import _welcome
from thalweg_proto import descriptors, messages
from thalweg_proto.board import board_bytes
from thalweg_proto.deal import create_hands
from thalweg_proto.errors import ProtocolError
from thalweg_proto.layout import Layout
from thalweg_proto.permits import create_permits
from thalweg_proto.rendezvous import RendezvousFds
from thalweg_proto.shared_memory import MemoryPlan, create_segment
from thalweg_proto.v1 import exchange_pb2
from thalweg_worker.exchange import Connection, MeetingExchange, connection

LAYOUT = Layout.of({"w": (4,)})


class NoWork:
    """A worker that only joins does nothing of the server's."""

    shares = ()

    def __init__(self, *shared, rank, copies):
        pass

    def join(self, place, members):
        pass

    def pushed(self):
        pass

    def close(self):
        pass


def new_door(address: str, *, workers: int, microbatches: int, chunks: int) -> Door:
    plan = MemoryPlan(size=LAYOUT.size, microbatches=microbatches, slots=0)
    fds = (
        create_segment(plan.vector_bytes, plan.spare_bytes),
        create_segment(board_bytes(plan, workers)),
        *RendezvousFds.create(workers),
        os.eventfd(0),
        *create_hands(workers),
        *create_permits(workers),
    )
    return Door(
        address,
        job_id="job",
        layout=LAYOUT,
        ranks=range(workers),
        welcome=lambda _: _welcome(plan, workers, chunks),
        fds=fds,
    )


def join(address: str, **changed) -> Connection:
    return connection.join(address, **{"job_id": "job", "rank": 0, "layout": LAYOUT, **changed})


@pytest.fixture
def door():
    """A server's door for two workers, listened at in a thread until the test ends."""
    address = f"thalweg-test-{secrets.token_hex(8)}"
    door = new_door(address, workers=2, microbatches=3, chunks=5)
    door.address = address
    heard: list[object] = []
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            heard.extend(door.receive())

    thread = threading.Thread(target=listen)
    thread.start()
    door.heard = heard
    yield door
    over.set()
    door.interrupt()
    thread.join()
    door.close()


def test_a_worker_learns_what_is_its_own(door):
    """Worker 1 of 2 gets microbatches 1 and 2 of 3, and chunks 2 to 4 of 5."""
    with join(door.address, rank=0), join(door.address, rank=1) as joined, MeetingExchange(joined, NoWork) as exchange:
        exchange.board.seat((0, 1), at_s=0.0)
        door.broadcast(messages.pack_begin())
        assert exchange.meet()
        assert (exchange.microbatches, exchange.chunks) == (range(1, 3), range(2, 5))


def test_a_host_may_have_more_workers_than_descriptors_go_with_one_message():
    """Each worker gets the hands and permits of all others: they come in their order, and none is missing."""
    workers = descriptors.PACKET_MAX + 50
    address = f"thalweg-test-{secrets.token_hex(8)}"
    door = new_door(address, workers=workers, microbatches=workers, chunks=0)

    def admit_one() -> None:
        while not door.joined:
            list(door.receive())

    thread = threading.Thread(target=admit_one)
    thread.start()
    with join(address, rank=workers - 1) as joined:
        thread.join()
        assert len(joined.fds) == connection.MEETING_FDS + 2 * workers
        os.eventfd_write(door._fds[-1], 7)
        assert os.eventfd_read(joined.fds[-1]) == 7
        for fd in joined.fds:
            os.close(fd)
    door.close()


@pytest.mark.faults("worker of another job, rank or model", how="Unix socket", expected="refused, reason named")
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"job_id": "other"}, "expected a worker of job 'job'; found 'other'"),
        ({"rank": 2}, "expected a free rank of this host, 0 to 1; found 2"),
        ({"layout": Layout.of({"w": (5,)})}, r"expected a model of the tensors w \(4,\)"),
    ],
)
def test_a_stranger_is_refused_with_the_reason(door, changed, reason):
    """Another job, a rank that is not free, another model."""
    with pytest.raises(ProtocolError, match=reason):
        join(door.address, **changed)


def test_a_rank_that_is_taken_is_refused(door):
    """Two workers cannot have one rank."""
    with (
        join(door.address),
        pytest.raises(ProtocolError, match="expected a free rank of this host, 0 to 1; found 0"),
    ):
        join(door.address)


def ask(address: str, data: bytes) -> exchange_pb2.Welcome:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect("\0" + address)
        stranger.send(data)
        return exchange_pb2.Welcome.FromString(stranger.recv(messages.MESSAGE_BYTES_MAX))


def test_another_protocol_version_is_refused(door):
    """The answer names both versions."""
    hello = exchange_pb2.Hello(protocol_version=99, job_id="job", rank=0, layout_sha256=LAYOUT.names_sha256)
    assert "expected protocol version 6; found 99" in ask(door.address, hello.SerializeToString()).refused


@pytest.mark.faults("malformed hello of a worker", how="hypothesis", expected="refused, the door stays open")
@settings(max_examples=30, deadline=None)
@given(data=st.binary(min_size=1, max_size=200))
def test_malformed_hellos_are_refused_and_the_door_stays_open(data):
    """Whatever a stranger says first, it gets an answer, and a good worker still comes in afterwards."""
    address = f"thalweg-test-{secrets.token_hex(8)}"
    door = new_door(address, workers=1, microbatches=1, chunks=0)

    def admit_two() -> None:
        while not door.full:
            for _ in door.receive():
                pass

    thread = threading.Thread(target=admit_two)
    thread.start()
    assert ask(address, data).refused
    join(address).close()
    thread.join()
    door.close()


def test_a_worker_that_goes_away_is_noticed(door):
    """What it said before is heard first; then another one may take its rank, and say that it broke."""
    with join(door.address, rank=1) as first:
        first.leave()
    with pytest.raises(RuntimeError), join(door.address, rank=1):
        raise RuntimeError
    with join(door.address, rank=1):  # the one before is gone by now
        assert door.heard == [
            (1, messages.pack_left()),
            (1, Gone("it closed its connection")),
            (1, messages.pack_broke()),
            (1, Gone("it closed its connection")),
        ]


def test_descriptors_are_closed_with_the_door():
    """None stays open."""
    before = len(os.listdir("/proc/self/fd"))
    new_door(f"thalweg-test-{secrets.token_hex(8)}", workers=1, microbatches=1, chunks=0).close()
    assert len(os.listdir("/proc/self/fd")) == before
