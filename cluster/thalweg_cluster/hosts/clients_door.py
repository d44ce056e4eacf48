"""The door for clients, who are no hosts of the job: Push, Pull, Status and Health.

Rules:
  - As at the hosts' door (door.py): data is received into place, nothing is decided, and the server stays up.
  - Each client's stream ends some time: at its own deadline, or at ours.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.hosts.answering import Behind, check, let_in, parsed, status_handler, stream, whole_version
from thalweg_cluster.hosts.callers import OUTSIDE_STREAMS_MAX, SHORT_CALLS_MAX, Outsiders
from thalweg_cluster.hosts.checks import Expected, Refusal, RefusedError, check_names
from thalweg_cluster.hosts.events import OutsidePush
from thalweg_cluster.hosts.listener import PATIENCE_S, Health, Listener
from thalweg_cluster.hosts.outside import OutsidePushes
from thalweg_cluster.security.guard import Guard
from thalweg_proto.v1 import parameter_server_pb2 as pb

SERVICE = "thalweg.v1.ParameterServer"
ANSWER_S = 60.0
"""How long the server may take to answer a push from outside."""
STREAM_S = 600.0
"""How long a client's stream may last, whatever deadline it gives."""
GRACE_S = 2.0
_RESULTS = {Verdict.ACCEPTED: pb.ACCEPTED, Verdict.DUPLICATE: pb.DUPLICATE, Verdict.LATE: pb.LATE}


class ClientsDoor:
    """Listens on one address for the life of a run.

    port: that it listens on
    """

    def __init__(
        self,
        bind: str,
        expected: Expected,
        behind: Behind,
        *,
        guard: Guard,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Binds a free port of `bind`; raises what `Listener` does."""
        self._expected = expected
        self._behind = behind
        self._lock = threading.Lock()  # guards what follows
        self._unanswered: set[futures.Future[Verdict]] = set()
        self._closed = False
        self._outsiders = Outsiders(STREAM_S)
        push: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            stream(self._push), response_serializer=pb.PushReply.SerializeToString
        )
        pull: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(stream(self._pull))
        self._listener = Listener(
            bind,
            guard,
            {SERVICE: {"Push": push, "Pull": pull, "Status": status_handler(behind)}},
            calls_max=OUTSIDE_STREAMS_MAX + SHORT_CALLS_MAX,
            patience_s=patience_s,
            name="thalweg-clients",
        )
        self._health = Health(self._listener, SERVICE)
        self.port = self._listener.port

    def open(self) -> None:
        """Starts to answer."""
        self._listener.open()
        self._health.open()

    def close(self) -> None:
        """Ends all streams; who waits for an answer hears that the run has ended."""
        self._health.close()
        with self._lock:
            self._closed = True
            for verdict in self._unanswered:
                if not verdict.cancel() and not verdict.done():  # what was being done about it ended the run
                    verdict.set_exception(_ended())
        self._listener.close(GRACE_S)
        self._listener.end()

    def _push(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[pb.PushReply]:
        with self._outsiders.stream(context):
            context.send_initial_metadata(())
            pushes = OutsidePushes(self._expected)
            if not context.add_callback(pushes.drop):
                return
            for message in messages:
                whole = pushes.add(*let_in(message, 0, self._expected))
                if whole is not None:
                    yield self._answer(whole)
            pushes.end()

    def _answer(self, push: OutsidePush) -> pb.PushReply:
        """What became of a push."""
        verdict = push.verdict
        with self._lock:
            if self._closed:
                raise _ended()
            self._unanswered.add(verdict)
        self._behind.post(push)
        try:
            result = verdict.result(ANSWER_S)
        except futures.TimeoutError as error:
            verdict.cancel()
            details = f"the server did not answer within {ANSWER_S:.0f} s"
            raise RefusedError(Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, details)) from error
        except futures.CancelledError as error:  # by `close`; or the client is gone, and hears nothing
            raise _ended() from error
        finally:
            with self._lock:
                self._unanswered.discard(verdict)
        self._expected.counts.answered(result)
        begin, end = push.parts
        version = self._behind.status().version
        return pb.PushReply(result=_RESULTS[result], step=push.step, part_begin=begin, part_end=end, version=version)

    def _pull(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = parsed(pb.PullRequest, message)
        check(check_names(request.protocol_version, request.job_id, request.generation, self._expected))
        with self._outsiders.stream(context):
            yield from whole_version(self._expected, self._behind)


def _ended() -> RefusedError:
    return RefusedError(Refusal(grpc.StatusCode.UNAVAILABLE, "the run has ended"))
