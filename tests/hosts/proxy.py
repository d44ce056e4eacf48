"""A TCP proxy that misbehaves on command, to put between two parts whose faults are to be tested.

    with Proxy(("10.77.0.2", port), host=hosts[0], delay_s=0.01) as proxy:
        ...connect to proxy.address instead...
        proxy.hang()
        proxy.resume()
        proxy.cut()

It is a thread of this process, with the network of the host that it stands on. What is commanded holds when the call
returns.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import TracebackType

from tests.hosts.host import Host

CHUNK_BYTES = 64 << 10
CHUNKS_MAX = 1024  # on their way in one direction of a connection; then the sender has to wait
TIMEOUT_S = 10.0
# On close, throw away what is not sent and reset the connection: struct linger { on, seconds }.
RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Carries each connection to `address` on to `target`, from `__enter__` to `__exit__`.

    target:  host and port, as reached from `host`
    host:    where it listens and connects from; None: this machine, on loopback
    delay_s: how long each byte is under way, in each direction; may be changed at any time, for bytes that come later

    connections: how many were accepted
    cuts:        how many were cut; for tests to see that the fault happened
    """

    def __init__(self, target: tuple[str, int], *, host: Host | None = None, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.connections = self.cuts = 0
        self._target, self._host = target, host
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}  # client's end, then target's
        self._left: int | None = None  # bytes until the next cut
        self._started = threading.Event()

    def __enter__(self) -> Proxy:
        listener = self._host.listen() if self._host else socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = listener.getsockname()[:2]
        with self._host.network() if self._host else nullcontext():  # which a thread has from the one that starts it
            self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listener)), daemon=True)
            self._thread.start()
        self._started.wait(TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._ended.set)
        self._thread.join(TIMEOUT_S)

    def hang(self) -> None:
        """Forward nothing more, and keep all connections; new ones are accepted and hang, too."""
        self._do(self._flowing.clear)

    def resume(self) -> None:
        """End `hang`: what waited goes on, nothing is lost."""
        self._do(self._flowing.set)

    def cut(self) -> None:
        """Reset all connections, at both ends. What was on its way is lost; new connections are carried."""
        self._do(self._cut_all)

    def cut_after(self, size_bytes: int) -> None:
        """Let `size_bytes` >= 1 more bytes through to the target, of all connections together, then cut in mid-stream.

        The connection that carried the last of them is closed towards the target, which gets all that came before, and
        reset towards the client.
        """
        self._do(lambda: setattr(self, "_left", size_bytes))

    def _do(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(TIMEOUT_S)

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._flowing, self._ended = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._carry, sock=listener)
        self._started.set()
        async with server:
            await self._ended.wait()
            self._cut_all()

    async def _carry(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection, to the end of both directions."""
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        ends = self._open[task] = [to_client]
        directions: list[asyncio.Task[None]] = []
        try:
            from_target, to_target = await asyncio.open_connection(*self._target)
            ends.append(to_target)
            directions.append(asyncio.create_task(self._forward(from_client, to_target, client=to_client)))
            directions.append(asyncio.create_task(self._forward(from_target, to_client)))
            await asyncio.gather(*directions)
        except (OSError, asyncio.CancelledError):  # one end cannot be reached or reset the connection, or we cut it
            for end in ends:
                _reset(end)
        finally:
            del self._open[task]
            for direction in directions:
                direction.cancel()
            for end in ends:
                end.close()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: asyncio.StreamWriter | None = None
    ) -> None:
        """One direction; with `client` it is the one to the target, whose bytes `cut_after` counts."""
        under_way: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(CHUNKS_MAX)

        async def take() -> None:
            chunk: bytes | OSError = b"."
            while chunk and not isinstance(chunk, OSError):
                await self._flowing.wait()
                try:
                    chunk = await reader.read(CHUNK_BYTES)
                except OSError as error:
                    chunk = error
                await under_way.put((self._loop.time() + self.delay_s, chunk))

        taking = asyncio.create_task(take())
        try:
            while True:
                due_s, chunk = await under_way.get()
                await asyncio.sleep(due_s - self._loop.time())
                await self._flowing.wait()
                if isinstance(chunk, OSError):
                    raise chunk
                if not chunk:
                    writer.write_eof()
                    return
                if client is not None and self._left is not None:
                    chunk = chunk[: self._left]
                    self._left -= len(chunk)
                writer.write(chunk)
                await writer.drain()
                if client is not None and self._left == 0:
                    self._left = None
                    self.cuts += 1
                    writer.close()
                    _reset(client)
                    return
        finally:
            taking.cancel()

    def _cut_all(self) -> None:
        for task, ends in self._open.items():
            self.cuts += 1
            for end in ends:
                _reset(end)
            task.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):  # closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
