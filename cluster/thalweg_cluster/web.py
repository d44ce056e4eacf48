"""An HTTP server with bounds on everything: behind /metrics of each process, and behind the page of the service.

Rules:
  - Each connection has a thread of its own and one answer. So many at a time, one more is closed at once; each has
    SILENT_S to say all that it wants.
  - What goes wrong with a connection ends it, and is no event. A mistake of ours is logged.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import ssl
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore, Condition, Thread, Timer
from typing import Any

from thalweg_cluster.security.guard import Tls

SILENT_S = 10.0
"""How long somebody who has connected may take to say what he wants, and to take in a piece of the answer."""
CONNECTIONS_MAX = 64
CLOSE_S = 5.0
LOG = logging.getLogger(__name__)


class Answering(BaseHTTPRequestHandler):
    """Of one connection: `get` and `post` answer what was asked."""

    timeout = SILENT_S
    server_version, sys_version = "thalweg", ""
    error_message_format, error_content_type = "%(message)s\n", "text/plain; charset=utf-8"

    def get(self) -> None:
        self.answer(405, "text/plain", b"there is nothing to get\n")

    def post(self) -> None:
        self.answer(405, "text/plain", b"nothing is taken\n")

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        self.post()

    def setup(self) -> None:
        super().setup()
        self.begun = False  # an answer
        # The timeout of a socket begins anew with each byte.
        self._late = Timer(SILENT_S, self._give_up)
        self._late.daemon = True
        self._late.start()

    def finish(self) -> None:
        self._late.cancel()
        super().finish()

    def send_response(self, code: int, message: str | None = None) -> None:
        self._late.cancel()  # what was asked is known
        self.begun = True
        super().send_response(code, message)

    def answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        """The whole answer. `kind`: its Content-Type; `headers`: with `_` for `-`."""
        self.begin(status, kind, Content_Length=str(len(body)), **headers)
        self.wfile.write(body)

    def begin(self, status: int, kind: str, **headers: str) -> None:
        """The head of an answer, which ends when `get` or `post` returns."""
        self.send_response(status)
        for name, value in ({"Content_Type": kind} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a request is no event."""

    def _give_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class HttpServer(ThreadingHTTPServer):
    """Listens on one address.

    server_port: that it listens on
    """

    daemon_threads = True  # a process that ends waits for none of them

    def __init__(
        self,
        host: str,
        port: int,
        answering: type[Answering],
        *,
        name: str,
        tls: Tls | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """Binds `port` of `host`, 0: a free one. OSError where that is taken, or not of this machine."""
        bare = host.strip("[]")
        self.address_family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        self._tls = None if tls is None else _context(tls)
        self._room = BoundedSemaphore(connections_max)
        self._changed = Condition()  # guards _open
        self._open: set[Any] = set()
        super().__init__((bare, port), answering)
        self._thread = Thread(target=self.serve_forever, daemon=True, name=name)

    def open(self) -> None:
        """Starts to answer."""
        self._thread.start()

    def close(self) -> None:
        """Ends all connections."""
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, CLOSE_S)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer asks for the name of its own address, which may take long
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self._tls is not None:
            # It shakes hands in the thread of the connection.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._open.discard(request)
                self._changed.notify_all()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a connection that broke, TLS that is none
            LOG.error("a mistake in an answer to %s", client_address, exc_info=error)


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls.ca is not None:
        context.load_verify_locations(cadata=tls.ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    with tempfile.TemporaryDirectory(prefix="thw") as folder:  # for the owner only; it is read from files alone
        chain = Path(folder, "chain.pem")
        chain.write_bytes(tls.certificate + b"\n" + tls.key)
        context.load_cert_chain(chain)
    return context
