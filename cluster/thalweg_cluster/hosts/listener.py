"""A gRPC server with bounds on everything: who is let in, how many at a time, and how long a message or a name may be.

There is no reflection: the .proto files say what can be called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from thalweg_cluster.hosts.access import Access
from thalweg_cluster.security.guard import Guard, Tls, why_not_listen
from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX
from thalweg_proto.errors import ServerError
from thalweg_proto.shared_memory import FLOAT_BYTES
from thalweg_proto.wire import HEADER_BYTES_MAX

MESSAGE_BYTES_MAX = BLOCK_ELEMENTS_MAX * FLOAT_BYTES * 2 + HEADER_BYTES_MAX  # topk of everything: index and value
METADATA_BYTES_MAX = 8 << 10
"""Of a call. By default gRPC refuses some calls with more, and all with twice as much; here it is one bound."""
WINDOW_BYTES = 16 << 20
"""How much of a stream may be on its way, or wait to be read. By default it is 64 KiB, and grows only as the other side
says so: that word would wait behind all the data that goes the other way."""
TRANSPORT = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.max_frame_size", 1 << 20),
]
PATIENCE_S = 30.0


def keepalive(patience_s: float) -> list[tuple[str, int]]:
    """Options of a connection that is given up when the other end says nothing for about `patience_s`: one ping after
    two thirds of it, and the rest for the answer. So who hangs is told from who has nothing to say.

    gRPC pings for its own reasons, too, and waits a minute for the answer to such a ping, and for that before it sends
    one of ours; `ping_timeout_ms` bounds that.
    """
    third_ms = int(1e3 * patience_s / 3)
    return [
        ("grpc.keepalive_time_ms", 2 * third_ms),
        ("grpc.keepalive_timeout_ms", third_ms),
        ("grpc.http2.ping_timeout_ms", third_ms),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.key, tls.certificate)], root_certificates=tls.ca, require_client_auth=tls.ca is not None
    )


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)


class Listener:
    """Listens on one address.

    server: to add services to, before `open`
    port:   that it listens on
    """

    def __init__(
        self,
        bind: str,
        guard: Guard,
        handlers: Mapping[str, dict[str, grpc.RpcMethodHandler[Any, Any]]],
        *,
        calls_max: int,
        patience_s: float,
        name: str,
        port: int = 0,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
    ) -> None:
        """Binds `port` of `bind`, 0: a free one, for the methods in `handlers`, by service and name.

        calls_max:  so many calls are answered at the same time; one more gets RESOURCE_EXHAUSTED
        patience_s: after so long a client that hangs is given up; pings of its own are to be a third of it apart
        interceptors: of all calls, also those that are not let in

        ServerError where `guard` is too little for `bind`, RuntimeError where it cannot be bound.
        """
        if (why := why_not_listen(bind, guard)) is not None:
            raise ServerError(why)
        self._pool = futures.ThreadPoolExecutor(calls_max, thread_name_prefix=name)
        self.server = grpc.server(
            self._pool,
            interceptors=[*interceptors, Access(guard.tokens)],
            maximum_concurrent_rpcs=calls_max,
            options=[
                *TRANSPORT,
                *keepalive(patience_s),
                ("grpc.http2.min_ping_interval_without_data_ms", int(1e3 * patience_s / 3)),
                ("grpc.so_reuseport", 0),
            ],
        )
        self.server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(service, methods) for service, methods in handlers.items())
        )
        address = f"{bind}:{port}"
        if guard.tls is None:
            self.port = self.server.add_insecure_port(address)
        else:
            self.port = self.server.add_secure_port(address, server_credentials(guard.tls))

    def open(self) -> None:
        """Starts to answer."""
        self.server.start()

    def close(self, grace_s: float) -> None:
        """Ends all calls, those that go on after `grace_s`."""
        self.server.stop(grace_s).wait()

    def end(self) -> None:
        """Waits for the last thread, after `close`."""
        self._pool.shutdown()


class Health:
    """The standard health service of a listener, for those who want to know whether `service` is there."""

    def __init__(self, listener: Listener, service: str) -> None:
        self._services = ("", service)
        self._servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, listener.server)

    def open(self) -> None:
        """From now on it is."""
        for service in self._services:
            self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """From now on it is not, nor will be."""
        self._servicer.enter_graceful_shutdown()
