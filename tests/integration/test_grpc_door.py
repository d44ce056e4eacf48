"""The gRPC door of a running job: what is good comes in, what is bad is answered with a status that names the field."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from grpc import StatusCode
from tests.integration.grpc_client import (
    ATTEND,
    PULL,
    PUSH,
    Idle,
    Standing,
    block,
    pull_request,
    standing,
)

from thalweg_cluster.hosts.callers import OUTSIDE_STREAMS_MAX
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.v1.coordination_pb2 import HostMessage

# Several chunks, so that each of two hosts owns a shard of several blocks.
WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
TWO_HOSTS = {"workers": [1, 1], "model": WIDE, "of_server": {"block": CHUNK}}
ASYNC = {
    "workers": [1],
    "model": WIDE,
    "consistency": "async",
    "rule": "sgd",
    "rule_options": {},
    "schedule": {"name": "constant", "learning_rate": 0.01, "warmup_steps": 0},
}
JOBS = {"async": ASYNC, "two hosts": TWO_HOSTS}


@pytest.fixture(scope="module", params=JOBS.values(), ids=JOBS)
def job(request) -> Iterator[Standing]:
    """A job that stands still while it is looked at, and ends well after all that was done to it."""
    with standing(**request.param) as job:
        yield job


def refusal(job: Standing, method: str, *messages: bytes, metadata=()) -> tuple[StatusCode, str]:
    """The status that the lead answers with; all hosts go on to answer after it."""
    with pytest.raises(grpc.RpcError) as caught:
        job.clients[0].call(method, *messages, metadata=metadata)
    assert [client.status().host for client in job.clients] == list(range(len(job.clients)))
    return caught.value.code(), caught.value.details()


def joined(**changed) -> bytes:
    names = {"protocol_version": PROTOCOL_VERSION, "job_id": "test", "generation": 1, **changed}
    return HostMessage(joined=HostMessage.Joined(**names)).SerializeToString()


def part(**changed) -> bytes:
    """A block of 64 elements that would be let in."""
    return block(**{"data": bytes(256), "begin": 0, "end": 64, **changed})


NAMES = [
    ({"protocol_version": 99}, StatusCode.FAILED_PRECONDITION, "protocol_version: expected 3; found 99"),
    ({"job_id": "other"}, StatusCode.NOT_FOUND, "job_id: expected 'test'; found 'other'"),
    ({"generation": 0}, StatusCode.FAILED_PRECONDITION, "generation: expected 1; found 0"),
]


@pytest.mark.parametrize(("changed", "status", "details"), NAMES, ids=["protocol_version", "job_id", "generation"])
@pytest.mark.parametrize(
    ("method", "message"),
    [(PUSH, part), (PULL, lambda **changed: pull_request(**changed).SerializeToString()), (ATTEND, joined)],
    ids=["push", "pull", "attend"],
)
def test_another_protocol_job_or_membership_is_refused(job, method, message, changed, status, details):
    """On every stream, with the field's name, what was expected and what was found."""
    found = refusal(job, method, message(**changed))
    assert found[0] is status


FAR = 1 << 40
BLOCKS = [
    ({"begin": FAR, "end": FAR + 64}, StatusCode.OUT_OF_RANGE, "begin, end: expected elements of the shard [0,"),
    ({"begin": 64, "end": 0}, StatusCode.OUT_OF_RANGE, "begin, end: expected elements of the shard [0,"),
    ({"data": bytes(255)}, StatusCode.INVALID_ARGUMENT, "data: expected 256 bytes, which 64 elements take in float32"),
    ({"data": b""}, StatusCode.INVALID_ARGUMENT, "data: expected 256 bytes"),
    ({"format": pb.BFLOAT16}, StatusCode.INVALID_ARGUMENT, "data: expected 128 bytes"),
    ({"format": 0}, StatusCode.INVALID_ARGUMENT, "format: expected float32, bfloat16, int8, topk; found format 0"),
    ({"format": 77}, StatusCode.INVALID_ARGUMENT, "format: expected float32, bfloat16, int8, topk; found format 77"),
    ({"part_end": 1000}, StatusCode.INVALID_ARGUMENT, "part_begin, part_end: expected a range"),
]


@pytest.mark.parametrize(("changed", "status", "details"), BLOCKS)
def test_a_block_that_is_none_is_refused(job, changed, status, details):
    """An unknown shard, a wrong length, a wrong dtype, no part: the field's name, what was expected and found."""
    found = refusal(job, PUSH, part(**changed))
    assert found[0] is status
    assert found[1].startswith(details)


FOLLOW = pull_request(follow=True).SerializeToString()


@pytest.mark.parametrize(("method", "message"), [(PUSH, part(sender=2)), (PULL, FOLLOW), (ATTEND, joined())])
def test_a_host_has_one_stream_of_each_kind(method, message):
    """Who says that it is host 1, which has its stream, is refused; so are the lead itself, and who is no host."""
    with standing(**TWO_HOSTS) as job:
        status, details = refusal(job, method, message, metadata=[("thalweg-host", "1")])
        assert (status, details) == (
            StatusCode.ALREADY_EXISTS,
            f"thalweg-host (metadata): expected one {method.rsplit('/')[-1]} of host 1; found another one",
        )
        for name in ("0", "2", "one", ""):
            status, details = refusal(job, method, message, metadata=[("thalweg-host", name)])
            assert (status, details) == (
                StatusCode.INVALID_ARGUMENT,
                f"thalweg-host (metadata): expected one of 1; found {name!r}",
            )


@pytest.mark.parametrize(("method", "message"), [(PULL, FOLLOW), (ATTEND, joined())])
def test_what_only_hosts_may_do_is_refused_to_others(job, method, message):
    """To follow, and to attend."""
    assert refusal(job, method, message) == (
        StatusCode.INVALID_ARGUMENT,
        "thalweg-host (metadata): expected a host of the job; found nothing",
    )


@pytest.mark.parametrize("sender", [1, 2, 1 << 31])
def test_somebody_who_is_no_host_cannot_send_as_one(job, sender):
    """Not even as the very host that it talks to."""
    status, details = refusal(job, PUSH, part(sender=sender))
    assert (status, details.split(":")[0]) == (StatusCode.INVALID_ARGUMENT, "sender")


def test_nobody_attends_but_at_the_lead():
    """The other servers say where."""
    with standing(**TWO_HOSTS) as job, pytest.raises(grpc.RpcError) as caught:
        job.clients[1].call(ATTEND, joined(), metadata=[("thalweg-host", "0")])
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "expected a call of the lead, host 0; found one of host 1"


def test_streams_of_others_are_bounded_and_leave_room_for_the_hosts():
    """Eight clients that do nothing hold up nobody but a ninth; when one ends, there is room again."""
    with standing(**ASYNC | {"workers": [1, 8]}) as job:
        client = job.clients[0]
        idle = [Idle(client) for _ in range(OUTSIDE_STREAMS_MAX)]
        for method, message in ((PUSH, part()), (PULL, pull_request().SerializeToString())):
            assert refusal(job, method, message) == (
                StatusCode.RESOURCE_EXHAUSTED,
                "expected at most 8 streams of others than hosts at the same time; found one more",
            )
        idle.pop().end()
        client.pull()
        idle.append(Idle(client))
        assert job.go_on().result.error is None
