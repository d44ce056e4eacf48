"""The calls of a client, and what their errors mean to who has typed a command.

Rules:
  - Each call has a deadline. What may be asked twice is asked again where the service does not answer, until
    `patience_s` is over: also Submit, since its request id makes one job of all of them.
  - What the caller can mend is InputError: the address, the token, the job's id, the job. The rest is RunError.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, TypeVar

import grpc

from thalweg_cluster.client.jobs import Job, MetricsRow
from thalweg_cluster.client.packing import pack, problem_of
from thalweg_cluster.security.guard import is_loopback
from thalweg_proto.errors import InputError, Problem, RunError, ThalwegError
from thalweg_proto.jobs import LIST_DEFAULT, LIST_MAX, PROTOCOL_VERSION
from thalweg_proto.v1 import job_service_pb2 as pb
from thalweg_proto.v1.job_service_pb2_grpc import JobServiceStub

ANSWER_S = 30.0
SUBMIT_S = 600.0
"""The files travel, and the job is checked, in this time."""
AGAIN_S = 0.25
T = TypeVar("T")
AWAY = (grpc.StatusCode.UNAVAILABLE,)


class Client:
    """One connection to a service. Any thread may call.

    ThalwegError from each call: InputError where the caller's input is wrong (nothing was done), RunError where the
    service fails.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        ca: bytes | None = None,
        certificate: bytes | None = None,
        key: bytes | None = None,
        insecure: bool = False,
        patience_s: float = 0.0,
    ) -> None:
        """
        address:    "HOST:PORT"
        token:      the full one, or the read-only one; None: the service asks for none
        ca:         authority of the service's certificate, in PEM; None: plaintext, where the address is on loopback or
                    `insecure`; else TLS by the authorities of this machine
        certificate, key: of this client, in PEM, where the service asks for one
        patience_s: how long a service that does not answer is tried again, in seconds; may be set later, too

        InputError where `address` is none.
        """
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            raise InputError([Problem("--address", "HOST:PORT of a thalweg service", repr(address))])
        self.address = address
        self.patience_s = patience_s
        self._metadata = [("authorization", f"Bearer {token}")] if token is not None else []
        options = [("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 1000)]
        if ca is None and (insecure or is_loopback(host)):
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(ca, key, certificate)
            self._channel = grpc.secure_channel(address, credentials, options=options)
        new_stub: Any = JobServiceStub  # generated, without types
        self._stub = new_stub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def submit(
        self,
        job: str | Path,
        overrides: Sequence[str] = (),
        *,
        priority: int = 0,
        request_id: str | None = None,
        in_place: bool = False,
    ) -> Job:
        """Hands over the job file `job`, and the files that it names; the job as it waits in the queue.

        overrides:  as of `--set`: "train.steps=500"
        priority:   -100 to 100; higher ones start first
        request_id: 8 to 64 letters, digits or "-": the same one makes the same job, however often; None: a new one
        in_place:   no files are shipped: the service sees them under the same paths

        InputError with every mistake in the job.
        """
        packed = pack(Path(job), overrides, in_place=in_place)
        name = request_id or secrets.token_hex(16)

        def parts() -> Iterator[pb.SubmitPart]:
            yield pb.SubmitPart(header=header)
            for data in packed.chunks():
                yield pb.SubmitPart(data=data)

        try:
            header = packed.header(name, priority, PROTOCOL_VERSION)
            reply = self._patient(lambda: self._stub.Submit(parts(), timeout=SUBMIT_S, metadata=self._metadata))
        except OSError as error:
            raise InputError([Problem(str(job), "files that can be read", str(error))]) from None
        if reply.mistakes:
            raise InputError([problem_of(mistake, packed) for mistake in reply.mistakes])
        return Job.of(reply.job)

    def get(self, job_id: str) -> Job:
        """One job as it is now."""
        return Job.of(self._call(self._stub.Get, pb.GetRequest(protocol_version=PROTOCOL_VERSION, id=job_id)))

    def jobs(self, *, limit: int = LIST_DEFAULT, state: str | None = None) -> list[Job]:
        """The newest jobs first, at most `limit`; only those in `state`; None: all."""
        found: list[Job] = []
        number: Any = None if state is None else pb.JobState.Value(state.upper())
        while len(found) < limit:
            wanted = min(limit - len(found), LIST_MAX)
            request = pb.ListRequest(
                protocol_version=PROTOCOL_VERSION, limit=wanted, before=found[-1].id if found else "", state=number
            )
            page = [Job.of(job) for job in self._call(self._stub.List, request).jobs]
            found += page
            if len(page) < wanted:
                break
        return found

    def cancel(self, job_id: str) -> Job:
        """Ends a job: one that runs, with a checkpoint. InputError where it has ended, or was cancelled before."""
        return Job.of(self._call(self._stub.Cancel, pb.CancelRequest(protocol_version=PROTOCOL_VERSION, id=job_id)))

    def resume(self, job_id: str) -> Job:
        """Lets a job that was cancelled, or has failed, go on from its newest checkpoint."""
        return Job.of(self._call(self._stub.Resume, pb.ResumeRequest(protocol_version=PROTOCOL_VERSION, id=job_id)))

    def watch(self, job_id: str, after_step: int = 0) -> Iterator[Job | MetricsRow]:
        """The job as it is, then each change of it and each new row of its metrics, until it has ended.

        after_step: only rows of later steps

        A service that is started again meanwhile is waited for, as long as `patience_s`.
        """
        told: Job | None = None
        while told is None or not told.ended:
            request = pb.WatchRequest(protocol_version=PROTOCOL_VERSION, id=job_id, after_step=after_step)
            for reply in self._streamed(self._stub.Watch, request):
                if reply.WhichOneof("news") == "row":
                    after_step = reply.row.step
                    yield MetricsRow.of(reply.row)
                    continue
                job = Job.of(reply.job)
                if told is None or (job.state, job.why, job.attempts) != (told.state, told.why, told.attempts):
                    yield job
                told = job

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[bytes]:
        """What the job's command has printed, in pieces of UTF-8; with `follow`, until it has ended."""
        offset = 0
        while True:
            request = pb.LogsRequest(protocol_version=PROTOCOL_VERSION, id=job_id, offset=offset, follow=follow)
            for reply in self._streamed(self._stub.Logs, request):
                offset += len(reply.data)
                yield reply.data
            if not follow or self.get(job_id).ended:
                break
        # What was printed between the last piece and the end.
        request = pb.LogsRequest(protocol_version=PROTOCOL_VERSION, id=job_id, offset=offset)
        for reply in self._streamed(self._stub.Logs, request) if follow else ():
            yield reply.data

    def _call(self, method: Any, request: Any) -> Any:
        return self._patient(lambda: method(request, timeout=ANSWER_S, metadata=self._metadata))

    def _patient(self, call: Callable[[], T]) -> T:
        until = monotonic() + self.patience_s
        while True:
            try:
                return call()
            except grpc.RpcError as error:  # noqa: PERF203 - the loop is there for it
                if error.code() not in AWAY or monotonic() > until:
                    raise self._meaning(error) from None
                sleep(AGAIN_S)

    def _streamed(self, method: Any, request: Any) -> Iterator[Any]:
        """The messages of a stream, until it ends, or the connection does: the caller calls again then."""
        heard = False
        until = monotonic() + self.patience_s
        while not heard:
            try:
                for reply in method(request, metadata=self._metadata):
                    heard = True
                    yield reply
                return
            except grpc.RpcError as error:  # noqa: PERF203 - as above
                gone = error.code() in (*AWAY, grpc.StatusCode.CANCELLED)
                if not gone or (not heard and monotonic() > until) or (heard and not self.patience_s):
                    raise self._meaning(error) from None
                sleep(AGAIN_S)

    def _meaning(self, error: Any) -> ThalwegError:
        """What a failed call means; `error` is a grpc.RpcError, which is a grpc.Call, too."""
        code, details = error.code(), error.details() or ""
        name = code.name
        if code is grpc.StatusCode.UNAVAILABLE and "service's table" not in details:
            hint = f"start one with `thalweg serve --address {self.address} --state DIR`; {_TLS_HINT}"
            return InputError(
                [Problem("--address", "a thalweg service", f"{self.address!r}: {_reason(details)}", hint)]
            )
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            expected = details.partition("expected ")[2].partition("; found ")[0] or "a token that the service knows"
            found = details.partition("; found ")[2] or "another one"
            return InputError([Problem("THALWEG_TOKEN", expected, found, "ask who runs the service for its token")])
        if code is grpc.StatusCode.UNIMPLEMENTED:
            hint = "is that the address of a run's parameters?"
            return InputError([Problem("--address", "a thalweg service", f"{self.address!r}, another server", hint)])
        if code in _INPUT:
            field, _, rest = details.partition(": expected ")
            expected, _, found = rest.partition("; found ")
            if expected and found:
                return InputError([Problem(field, expected, found)])
            return InputError([Problem("request", "one that the service takes", details)])
        if code is grpc.StatusCode.INTERNAL:
            return RunError(f"the service at {self.address} failed: {details}")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return RunError(f"the service at {self.address} did not answer in time")
        return RunError(f"the service at {self.address}: {details or name}")


_INPUT = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.INVALID_ARGUMENT,
)
_TLS_HINT = "where it has TLS, THALWEG_CA_FILE names its authority"


def _reason(details: str) -> str:
    """The end of what gRPC says, which has the reason."""
    for known in ("Connection refused", "Name or service not known", "CERTIFICATE_VERIFY_FAILED", "timed out"):
        if known.lower() in details.lower():
            return known
    return details[-200:] or "no answer"
