"""What the service says of itself to Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from time import perf_counter, time
from typing import Any

import grpc
import numpy as np

from thalweg_cluster.exposition import Histogram, family, of_process, text
from thalweg_cluster.monitoring import catalogue as c
from thalweg_cluster.server.telemetry import BUCKET_BOUNDS_S, Durations
from thalweg_cluster.service.table import JobTable
from thalweg_proto.jobs import State
from thalweg_proto.v1 import job_service_pb2 as pb

METHODS = {
    f"/{service.full_name}/{method.name}": method.name
    for service in [pb.DESCRIPTOR.services_by_name["JobService"]]
    for method in service.methods
}
"""By the name that a call has. No other is counted: anybody can make names up."""


class Calls(grpc.ServerInterceptor):
    """Counts calls as they are answered, also those that are not let in. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: Counter[tuple[str, str]] = Counter()
        self._durations: dict[str, Durations] = {}

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: grpc.RpcMethodHandler[Any, Any] | None = continuation(handler_call_details)
        method = METHODS.get(handler_call_details.method)
        if handler is None or method is None:
            return handler
        asked, said = (
            "stream" if streams else "unary" for streams in (handler.request_streaming, handler.response_streaming)
        )
        answer = getattr(handler, f"{asked}_{said}")
        counted = (self._stream if handler.response_streaming else self._unary)(method, answer)
        new_handler = getattr(grpc, f"{asked}_{said}_rpc_method_handler")
        wrapped: grpc.RpcMethodHandler[Any, Any] = new_handler(
            counted, handler.request_deserializer, handler.response_serializer
        )
        return wrapped

    def _unary(self, method: str, answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def counted(request: Any, context: grpc.ServicerContext) -> Any:
            began_s = perf_counter()
            try:
                return answer(request, context)
            finally:
                self._count(method, context, perf_counter() - began_s)

        return counted

    def _stream(self, method: str, answer: Callable[[Any, Any], Iterator[Any]]) -> Callable[[Any, Any], Iterator[Any]]:
        """Counted when it has ended: how long that takes is for who asks to say."""

        def counted(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from answer(request, context)
            finally:
                self._count(method, context)

        return counted

    def _count(self, method: str, context: Any, seconds: float | None = None) -> None:
        code: grpc.StatusCode = context.code() or grpc.StatusCode.OK  # None: nobody has said otherwise
        with self._lock:
            self._answered[method, code.name] += 1
            if seconds is not None:
                self._durations.setdefault(method, Durations()).add(np.array([seconds]))

    def families(self) -> Iterator[list[str]]:
        """As Prometheus is told."""
        with self._lock:
            yield family(c.CALLS, *(((method, status), n) for (method, status), n in sorted(self._answered.items())))
            yield family(
                c.CALL_SECONDS,
                *(((method,), Histogram(BUCKET_BOUNDS_S, d.counts, d.sum_s)) for method, d in self._durations.items()),
            )


def metrics_of_service(table: JobTable, calls: Calls) -> bytes:
    """What the service answers a scrape with."""
    states = table.count_by_state()
    oldest_s = table.oldest_queued_s()
    waiting_s = 0.0 if oldest_s is None else max(0.0, time() - oldest_s)
    said = text(
        [
            family(c.JOBS, *(((state.value,), states.get(state, 0)) for state in State)),
            family(c.OLDEST_QUEUED, waiting_s),
            *calls.families(),
        ]
    )
    return said.encode() + of_process()
