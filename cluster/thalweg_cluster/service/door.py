"""The gRPC door of the service (v1/job_service.proto).

Rules:
  - It decides nothing about jobs: it changes the table, and tells the keeper that something has changed.
  - What is wrong with a request is told with the field's name; what goes wrong with us, with an id (answering.py).
  - Watch and Logs end some time, whatever the job does: who wants more calls again.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic, time
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from thalweg_cluster.hosts.answering import check, stream, unary
from thalweg_cluster.hosts.callers import Outsiders
from thalweg_cluster.hosts.checks import Refusal, RefusedError
from thalweg_cluster.hosts.listener import PATIENCE_S, Health, Listener
from thalweg_cluster.reporting.files import METRICS
from thalweg_cluster.resources import Resources
from thalweg_cluster.security.guard import Guard
from thalweg_cluster.service.checker import Checked
from thalweg_cluster.service.keeper import Changes, Keeper
from thalweg_cluster.service.messages import STATE_OF, row_message
from thalweg_cluster.service.metrics import Calls
from thalweg_cluster.service.runner import LOG, SUBMITTED
from thalweg_cluster.service.shipping import check_header, check_size, digest_of, receive, sync_folder
from thalweg_cluster.service.showing import CANCELLABLE, Showing, wrong_state
from thalweg_cluster.service.table import JobRow, JobTable, Submission, WrongStateError
from thalweg_cluster.service.watching import LOOK_S, Rows, log_from
from thalweg_proto.errors import InputError, Problem, ProtocolError
from thalweg_proto.jobs import LIST_DEFAULT, LIST_MAX, PROTOCOL_VERSION, State
from thalweg_proto.v1 import job_service_pb2 as pb

SERVICE = "thalweg.v1.JobService"
STREAMS_MAX = 64
"""Watch and Logs at the same time."""
SHORT_CALLS_MAX = 32
SUBMITS_MAX = 16
"""At the same time: each may have to wait for its check."""
STREAM_S = 3600.0
GRACE_S = 2.0
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

R = TypeVar("R", bound=Message)
T = TypeVar("T")


class Checks(Protocol):
    """Whether a job may start."""

    def check(self, folder: Path, nodes: Sequence[Resources] | None) -> Checked:
        """InputError with all mistakes."""
        ...


class JobDoor:
    """Listens on one address for the life of the service.

    port: that it listens on
    """

    def __init__(
        self,
        bind: str,
        port: int,
        *,
        table: JobTable,
        keeper: Keeper,
        checks: Checks,
        nodes: Callable[[], Sequence[Resources] | None],
        incoming: Path,
        files_max: int,
        changes: Changes,
        calls: Calls,
        guard: Guard,
    ) -> None:
        """Binds; raises what `Listener` does.

        calls:     counts them
        nodes:     what each node of the Ray cluster has; None: that is not known now
        incoming:  folder for what arrives
        files_max: bytes that the files of a job may have
        """
        self._table = table
        self._keeper = keeper
        self._showing = Showing(keeper)
        self._checks = checks
        self._nodes = nodes
        self._incoming = incoming
        self._files_max = files_max
        self._changes = changes
        self._streams = Outsiders(STREAM_S, STREAMS_MAX)
        self._submits = threading.BoundedSemaphore(SUBMITS_MAX)
        self._closed = False
        self._listener = Listener(
            bind,
            guard,
            {
                SERVICE: {
                    "Submit": grpc.stream_unary_rpc_method_handler(
                        unary(storing(self._submit)), pb.SubmitPart.FromString, pb.SubmitReply.SerializeToString
                    ),
                    "Get": _unary(self._get, pb.GetRequest),
                    "List": _unary(self._list, pb.ListRequest),
                    "Cancel": _unary(self._cancel, pb.CancelRequest),
                    "Resume": _unary(self._resume, pb.ResumeRequest),
                    "Watch": _stream(self._watch, pb.WatchRequest),
                    "Logs": _stream(self._logs, pb.LogsRequest),
                }
            },
            calls_max=STREAMS_MAX + SHORT_CALLS_MAX + SUBMITS_MAX,
            patience_s=PATIENCE_S,
            name="thalweg-jobs",
            port=port,
            interceptors=[calls],
        )
        self._health = Health(self._listener, SERVICE)
        self.port = self._listener.port

    def open(self) -> None:
        """Starts to answer."""
        self._listener.open()
        self._health.open()

    def close(self) -> None:
        """Ends all calls."""
        self._health.close()
        self._closed = True
        self._changes.tell()
        self._listener.close(GRACE_S)
        self._listener.end()

    # Submit

    def _submit(self, parts: Iterator[pb.SubmitPart], context: grpc.ServicerContext) -> pb.SubmitReply:
        if not self._submits.acquire(blocking=False):
            details = f"expected at most {SUBMITS_MAX} submits at the same time; found one more: try again"
            raise RefusedError(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, details))
        try:
            return self._submitted(parts)
        finally:
            self._submits.release()

    def _submitted(self, parts: Iterator[pb.SubmitPart]) -> pb.SubmitReply:
        first = next(parts, None)
        if first is None or first.WhichOneof("part") != "header":
            raise ProtocolError("part: expected a header first; found " + ("nothing" if first is None else "data"))
        header = first.header
        _check_version(header.protocol_version)
        check_header(header)
        digest = digest_of(header)
        if (known := self._table.by_request(header.request_id)) is not None:
            return self._known(known, digest)
        if problems := check_size(header, self._files_max):
            return _refused(problems)
        with receive(self._incoming, header, _data(parts)) as folder:
            try:
                checked = self._checks.check(folder, self._nodes())
            except InputError as error:
                return _refused(error.problems)
            submission = Submission(
                request_id=header.request_id,
                digest=digest,
                name=checked.name,
                priority=header.priority,
                workers=checked.workers,
                gpus=checked.gpus,
                max_failures=checked.max_failures,
                submitted_s=time(),
            )
            try:
                job = self._table.add(submission, lambda job_id: self._place(folder, job_id))
            except sqlite3.IntegrityError:  # the same request was faster
                faster = self._table.by_request(header.request_id)
                if faster is None:
                    raise
                return self._known(faster, digest)
        self._changes.tell()
        return pb.SubmitReply(job=self._showing.message(job))

    def _known(self, job: JobRow, digest: str) -> pb.SubmitReply:
        if job.digest != digest:
            details = f"request_id: expected one of its own for each job; found that of job {job.id}, which is another"
            raise RefusedError(Refusal(grpc.StatusCode.ALREADY_EXISTS, details))
        return pb.SubmitReply(job=self._showing.message(job), repeated_request=True)

    def _place(self, folder: Path, job_id: int) -> None:
        """What was submitted comes to the job's folder. Where the table does not get the job after all, the next one
        has the same id, and takes its place."""
        own = self._keeper.folder(job_id)
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        folder.rename(own / SUBMITTED)
        for each in (own, own.parent):
            sync_folder(each)

    # The others

    def _get(self, request: pb.GetRequest, context: grpc.ServicerContext) -> pb.Job:
        return self._showing.message(self._job(request.id))

    def _list(self, request: pb.ListRequest, context: grpc.ServicerContext) -> pb.ListReply:
        limit = request.limit or LIST_DEFAULT
        if limit > LIST_MAX:
            raise ProtocolError(f"limit: expected at most {LIST_MAX}; found {limit}")
        if request.state and request.state not in STATE_OF:
            raise ProtocolError(f"state: expected a JobState; found {request.state}")
        before = _number("before", request.before) if request.before else None
        jobs = self._table.newest(limit, before, STATE_OF.get(request.state))
        return pb.ListReply(jobs=[self._showing.message(job) for job in jobs], total=self._table.count())

    def _cancel(self, request: pb.CancelRequest, context: grpc.ServicerContext) -> pb.Job:
        job = self._job(request.id)
        try:
            job = self._table.cancel(job.id, time())
        except WrongStateError as error:
            raise _wrong_state(error.job, CANCELLABLE) from None
        self._changes.tell()
        return self._showing.message(job)

    def _resume(self, request: pb.ResumeRequest, context: grpc.ServicerContext) -> pb.Job:
        job = self._job(request.id)
        if not job.state.may_become(State.QUEUED) or not job.state.ended:
            raise _wrong_state(job, "one that was cancelled, or has failed")
        try:
            job = self._table.change(job.id, State.QUEUED, ended_s=None, cancelled_s=None, failures=0)
        except WrongStateError as error:
            raise _wrong_state(error.job, "one that was cancelled, or has failed") from None
        self._changes.tell()
        return self._showing.message(job)

    def _watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchReply]:
        job = self._job(request.id)
        with self._streams.stream(context):
            rows = Rows(self._keeper.folder(job.id) / METRICS, request.after_step)
            told: tuple[Any, ...] = ()
            known = 0
            until = monotonic() + STREAM_S
            while context.is_active() and not self._closed and monotonic() < until:
                job = self._job(request.id)
                what = (job.state, job.attempts, self._keeper.why.get(job.id))
                if what != told and not job.state.ended:
                    yield pb.WatchReply(job=self._showing.message(job))
                    told = what
                for row in rows.new():
                    yield pb.WatchReply(row=row_message(row))
                if job.state.ended:
                    yield pb.WatchReply(job=self._showing.message(job))
                    return
                known = self._changes.wait(known, LOOK_S)

    def _logs(self, request: pb.LogsRequest, context: grpc.ServicerContext) -> Iterator[pb.LogsReply]:
        job = self._job(request.id)
        path = self._keeper.folder(job.id) / LOG
        offset = request.offset
        with self._streams.stream(context):
            known = 0
            until = monotonic() + STREAM_S
            while context.is_active() and not self._closed and monotonic() < until:
                over = not request.follow or self._job(request.id).state.ended
                while data := log_from(path, offset):
                    offset += len(data)
                    yield pb.LogsReply(data=data)
                if over:
                    return
                known = self._changes.wait(known, LOOK_S)

    def _job(self, text: str) -> JobRow:
        job = self._table.get(_number("id", text))
        if job is None:
            raise RefusedError(Refusal(grpc.StatusCode.NOT_FOUND, f"id: expected a job of this service; found {text}"))
        return job


def storing(answer: Callable[[Any, grpc.ServicerContext], T]) -> Callable[[Any, grpc.ServicerContext], T]:
    """What `answer` does; a disk that is full, or a table that is locked, is no mistake of ours."""

    def behave(request: Any, context: grpc.ServicerContext) -> T:
        try:
            return answer(request, context)
        except (OSError, sqlite3.OperationalError) as error:
            if (refusal := refusal_for(error)) is None:
                raise
            raise RefusedError(refusal) from error

    return behave


def refusal_for(error: Exception) -> Refusal | None:
    """What to answer where the disk or the table does not let us; None: that is a mistake of ours."""
    full = (isinstance(error, OSError) and error.errno in FULL) or "full" in str(error)
    if full:
        details = f"the service's disk is full, nothing was taken: {error}"
        return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, details)
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return Refusal(grpc.StatusCode.UNAVAILABLE, f"another program has the service's table: {error}")
    return None


def _unary(answer: Callable[[R, grpc.ServicerContext], Any], kind: type[R]) -> grpc.RpcMethodHandler[Any, Any]:
    def versioned(request: Any, context: grpc.ServicerContext) -> Any:
        _check_version(request.protocol_version)
        return answer(request, context)

    return grpc.unary_unary_rpc_method_handler(
        unary(storing(versioned)), kind.FromString, lambda reply: reply.SerializeToString()
    )


def _stream(answer: Callable[[R, grpc.ServicerContext], Any], kind: type[R]) -> grpc.RpcMethodHandler[Any, Any]:
    def versioned(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        _check_version(request.protocol_version)
        yield from answer(request, context)

    return grpc.unary_stream_rpc_method_handler(
        stream(versioned), kind.FromString, lambda reply: reply.SerializeToString()
    )


def _check_version(version: int) -> None:
    if version != PROTOCOL_VERSION:
        details = f"protocol_version: expected {PROTOCOL_VERSION}; found {version}: both sides need the same release"
        check(Refusal(grpc.StatusCode.FAILED_PRECONDITION, details))


def _number(field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ProtocolError(f"{field}: expected the number of a job; found {text[:80]!r}")
    return int(text)


def _data(parts: Iterator[pb.SubmitPart]) -> Iterator[bytes]:
    for part in parts:
        if part.WhichOneof("part") != "data" or not part.data:
            raise ProtocolError("part: expected data; found another header, or nothing")
        yield part.data


def _refused(problems: Sequence[Problem]) -> pb.SubmitReply:
    mistakes = [pb.Mistake(field=p.field, expected=p.expected, found=p.found, hint=p.hint) for p in problems]
    return pb.SubmitReply(mistakes=mistakes)


def _wrong_state(job: JobRow, expected: str) -> RefusedError:
    return RefusedError(Refusal(grpc.StatusCode.FAILED_PRECONDITION, wrong_state(job, expected)))
