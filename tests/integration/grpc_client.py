"""A client of the gRPC door, as anybody could write one; and runs that stand still, for it to look at."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Literal

import grpc
import numpy as np
from numpy.typing import NDArray
from tests.integration.local_run import JOB_ID, RUN_TOKEN, Engine, LocalRun, start_locally

from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.v1 import parameter_server_pb2 as pb

TIMEOUT_S = 20.0
STANDS_S = 600.0
"""How long a run stands still at most: as long as the slowest machine takes to do to it what a test wants."""
SERVICE = "/thalweg.v1.ParameterServer/"
PUSH, PULL, FOLLOW, STATUS = (SERVICE + name for name in ("Push", "Pull", "Follow", "Status"))
ATTEND = "/thalweg.v1.Coordination/Attend"
ONE_REQUEST = (PULL, STATUS)


class Client:
    """One connection to a door."""

    def __init__(
        self, address: str, *, token: str | None = None, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        """Gives `token` with each call, and speaks TLS where there are credentials."""
        options = [("grpc.max_send_message_length", -1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options=options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options=options)
        self._token = [] if token is None else [("authorization", f"Bearer {token}")]
        self._idle: list[Idle] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        for each in self._idle:  # else a thread of gRPC's waits for its next message for good
            each.say_no_more()
        self.channel.close()

    def idle(self, *messages: bytes) -> Idle:
        """Opens a stream on which nothing is said after these bytes."""
        self._idle.append(Idle(self.channel, *messages))
        return self._idle[-1]

    def call(self, method: str, *messages: bytes, metadata: Sequence[tuple[str, str]] = ()) -> list[bytes]:
        """All answers to these bytes; grpc.RpcError with the status where they are refused."""
        metadata = [*self._token, *metadata]
        if method == STATUS:
            return [self.channel.unary_unary(method)(messages[0], timeout=TIMEOUT_S, metadata=metadata)]
        if method == PULL:
            return list(self.channel.unary_stream(method)(messages[0], timeout=TIMEOUT_S, metadata=metadata))
        return list(self.channel.stream_stream(method)(iter(messages), timeout=TIMEOUT_S, metadata=metadata))

    def status(self) -> pb.StatusReply:
        [answer] = self.call(STATUS, pb.StatusRequest(protocol_version=PROTOCOL_VERSION).SerializeToString())
        return pb.StatusReply.FromString(answer)

    def pull(self) -> tuple[int, NDArray[np.float32]]:
        """The version, and the parameters of the server's shard."""
        blocks = [pb.Block.FromString(answer) for answer in self.call(PULL, pull_request().SerializeToString())]
        [version] = {block.header.step for block in blocks}
        return version, np.concatenate([np.frombuffer(block.data, dtype="<f4") for block in blocks])

    def push(self, gradient: NDArray[np.float32], **header: Any) -> pb.PushReply:
        """Pushes a gradient of the server's whole shard."""
        [answer] = self.call(PUSH, *gradient_blocks(gradient, **header))
        return pb.PushReply.FromString(answer)


class Idle:
    """A Push stream that is open, and on which nothing is said after some first bytes."""

    def __init__(self, channel: grpc.Channel, *messages: bytes) -> None:
        self._messages: SimpleQueue[bytes] = SimpleQueue()
        for message in messages:
            self._messages.put(message)
        push = channel.stream_stream(PUSH)
        self._call = push(iter(self._messages.get, b""), timeout=TIMEOUT_S)
        self._call.initial_metadata()  # waits until the server has taken note

    def say_no_more(self) -> None:
        self._messages.put(b"")

    def end(self) -> None:
        self.say_no_more()
        assert list(self._call) == []


def pull_request(**changed: Any) -> pb.PullRequest:
    return pb.PullRequest(**{"protocol_version": PROTOCOL_VERSION, "job_id": JOB_ID, "generation": 1, **changed})


def block(data: bytes, **changed: Any) -> bytes:
    """One block of a gradient from outside."""
    header = {
        "protocol_version": PROTOCOL_VERSION,
        "job_id": JOB_ID,
        "generation": 1,
        "part_begin": 1000,
        "part_end": 1001,
        "format": pb.FLOAT32,
        **changed,
    }
    return pb.Block(header=pb.BlockHeader(**header), data=data).SerializeToString()


def gradient_blocks(
    gradient: NDArray[np.float32], *, begin: int = 0, length: int = BLOCK_ELEMENTS_MAX, **header: Any
) -> Iterator[bytes]:
    """Blocks of `length` elements of the gradient of a shard that begins at `begin`."""
    for at in range(0, len(gradient), length):
        part = gradient[at : at + length]
        yield block(part.astype("<f4").tobytes(), begin=begin + at, end=begin + at + len(part), **header)


class Standing:
    """A run whose workers stand still until `go_on`: before they join, with the first unit of `step`, or when they
    evaluate.

    clients: of the doors for clients, by host
    hosts:   of those for hosts, by host, with the run's token
    """

    def __init__(self, *, at: Literal["join", "step", "evaluation"] = "step", step: int = 1, **options: Any) -> None:
        self._standing, self._may_go = threading.Semaphore(0), threading.Event()

        def stand() -> None:
            self._standing.release()
            assert self._may_go.wait(STANDS_S)

        class Stands(Engine):
            def __init__(self, engine: Any) -> None:
                super().__init__(engine)
                if at == "join":
                    stand()

            def before(self, now: int, microbatch: int) -> None:
                if at == "step" and now >= step:
                    stand()

            def evaluate(self, parameters: Any, batch: Any) -> Any:
                if at == "evaluation":
                    stand()
                return super().evaluate(parameters, batch)

        self.run: LocalRun = start_locally(engine=Stands, **options)
        workers = options.get("workers", 2)
        # One worker evaluates, since the held-out set is one chunk. At a step it takes all of them: until the last one
        # stands, the parameters may change.
        expected = 1 if at == "evaluation" else workers if isinstance(workers, int) else sum(workers)
        for _ in range(expected):
            assert self._standing.acquire(timeout=TIMEOUT_S)
        self.clients = [Client(address) for address in self.run.addresses]
        self.hosts = [Client(address, token=RUN_TOKEN) for address in self.run.hosts_addresses]

    def go_on(self) -> LocalRun:
        """Lets the run come to its end, and returns what it came to."""
        self._may_go.set()
        return self.run.join()


@contextmanager
def standing(*, ends_well: bool = True, **options: Any) -> Iterator[Standing]:
    """A `Standing` run, which comes to its end after the block."""
    job = Standing(**options)
    try:
        yield job
    finally:
        run = job.go_on()
        for client in (*job.clients, *job.hosts):
            client.close()
    if ends_well:
        assert (run.result.error, run.worker_errors) == (None, [])
