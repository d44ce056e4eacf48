"""The proxy of the fault tests does to a connection what it is told to, and nothing else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.hosts.needs import needs_hosts
from tests.hosts.network import Hosts
from tests.hosts.proxy import Proxy

TIMEOUT_S = 10.0
HANGS_S = 0.2


@contextmanager
def through(proxy: Proxy, listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a connection that the proxy carries."""
    with socket.create_connection(proxy.address, timeout=TIMEOUT_S) as near:
        listener.settimeout(TIMEOUT_S)
        far, _ = listener.accept()
        with far:
            far.settimeout(TIMEOUT_S)
            yield near, far


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def everything(connection: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_carries_both_ways_and_the_end(listener: socket.socket) -> None:
    """Bytes arrive unchanged in both directions, and so does the end of one direction while the other goes on."""
    sent = bytes(range(256)) * 4000
    with Proxy(listener.getsockname()) as proxy, through(proxy, listener) as (near, far):
        near.sendall(sent[:100_000])
        near.shutdown(socket.SHUT_WR)
        assert everything(far) == sent[:100_000]
        far.sendall(b"pull")
        assert near.recv(4) == b"pull"
        assert (proxy.connections, proxy.cuts) == (1, 0)


def test_delays_each_direction(listener: socket.socket) -> None:
    """An answer is not there before twice the delay."""
    with Proxy(listener.getsockname(), delay_s=0.1) as proxy, through(proxy, listener) as (near, far):
        begin = time.monotonic()
        near.sendall(b"push")
        assert far.recv(4) == b"push"
        far.sendall(b"pull")
        assert near.recv(4) == b"pull"
        assert time.monotonic() - begin >= 0.2


def test_hang_keeps_connections_and_loses_nothing(listener: socket.socket) -> None:
    """While it hangs nothing arrives and nothing is closed, and after it all arrives; also on a new connection."""
    with Proxy(listener.getsockname()) as proxy, through(proxy, listener) as old:
        proxy.hang()
        with through(proxy, listener) as new:
            for near, far in (old, new):
                near.sendall(b"push")
                far.settimeout(HANGS_S)
                with pytest.raises(TimeoutError):
                    far.recv(4)
                far.settimeout(TIMEOUT_S)
            proxy.resume()
            assert [far.recv(4) for _, far in (old, new)] == [b"push", b"push"]


def test_cut_resets_both_ends(listener: socket.socket) -> None:
    """Both ends see a reset, and the next connection is carried."""
    with Proxy(listener.getsockname()) as proxy:
        with through(proxy, listener) as (near, far):
            near.sendall(b"push")
            assert far.recv(4) == b"push"
            proxy.cut()
            for end in (near, far):
                with pytest.raises(ConnectionResetError):
                    end.recv(1)
        with through(proxy, listener) as (near, far):
            near.sendall(b"push")
            assert far.recv(4) == b"push"
        assert (proxy.connections, proxy.cuts) == (2, 1)


@pytest.mark.parametrize("size_bytes", [1, 70_000])
def test_cut_in_mid_stream_lets_exactly_so_much_through(listener: socket.socket, size_bytes: int) -> None:
    """The target gets the first bytes and then the end, the client a reset; what the target sent is not counted."""
    sent = bytes(range(256)) * 400
    with Proxy(listener.getsockname()) as proxy, through(proxy, listener) as (near, far):
        far.sendall(b"y" * 1000)
        assert near.recv(1000, socket.MSG_WAITALL) == b"y" * 1000
        proxy.cut_after(size_bytes)
        near.sendall(sent)
        assert everything(far) == sent[:size_bytes]
        with pytest.raises(ConnectionError):
            everything(near)
        assert proxy.cuts == 1


def test_target_that_cannot_be_reached_resets_the_client() -> None:
    """Where nobody listens, the client hears so at once."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with (
        Proxy(address) as proxy,
        pytest.raises(ConnectionResetError),  # while it connects or after it
        socket.create_connection(proxy.address, timeout=TIMEOUT_S) as near,
    ):
        near.recv(1)


@needs_hosts
def test_stands_on_a_host() -> None:
    """On a host, it listens at the host's address and connects from it."""
    with Hosts(2) as (a, b), b.listen() as listener, Proxy(listener.getsockname(), host=a) as proxy:
        with b.connect(proxy.address, TIMEOUT_S) as near:
            far, seen = listener.accept()
            with far:
                near.sendall(b"push")
                assert far.recv(4) == b"push"
        assert (proxy.address[0], seen[0]) == (a.address, a.address)
