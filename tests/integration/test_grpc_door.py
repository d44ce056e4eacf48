"""The gRPC door of a running job: what is good comes in, what is bad is answered with a status that names the field."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.hosts.proxy import Proxy
from tests.integration.grpc_client import (
    ATTEND,
    FOLLOW,
    PULL,
    PUSH,
    STATUS,
    TIMEOUT_S,
    Client,
    Standing,
    block,
    gradient_blocks,
    pull_request,
    standing,
)
from tests.integration.local_run import train_locally

from thalweg_cluster.hosts.callers import OUTSIDE_STREAMS_MAX
from thalweg_cluster.hosts.listener import MESSAGE_BYTES_MAX
from thalweg_cluster.hosts.window import Window
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.v1.coordination_pb2 import HostMessage
from thalweg_proto.wire import checksum

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


def refusal(
    job: Standing, method: str, *messages: bytes, metadata=(), as_host: str | None = None
) -> tuple[StatusCode, str]:
    """The status that the lead answers with, to a client, or to one that says it is a host; all go on to answer."""
    client = job.clients[0] if as_host is None else job.hosts[0]
    host = [] if as_host is None else [("thalweg-host", as_host)]
    with pytest.raises(grpc.RpcError) as caught:
        client.call(method, *messages, metadata=[*metadata, *host])
    assert [client.status().host for client in job.clients] == list(range(len(job.clients)))
    return caught.value.code(), caught.value.details()


def joined(**changed) -> bytes:
    names = {"protocol_version": PROTOCOL_VERSION, "job_id": "test", "generation": 1, **changed}
    return HostMessage(joined=HostMessage.Joined(**names)).SerializeToString()


def part(**changed) -> bytes:
    """A block of 64 elements that would be let in."""
    return block(**{"data": bytes(256), "begin": 0, "end": 64, **changed})


NAMES = [
    ({"protocol_version": 99}, StatusCode.FAILED_PRECONDITION, "protocol_version: expected 6; found 99"),
    ({"job_id": "other"}, StatusCode.NOT_FOUND, "job_id: expected 'test'; found 'other'"),
    ({"job_id": "../test"}, StatusCode.INVALID_ARGUMENT, 'job_id: expected a name without "/"'),
    ({"job_id": "test\x1b[2J"}, StatusCode.INVALID_ARGUMENT, 'job_id: expected a name without "/"'),
    ({"generation": 0}, StatusCode.FAILED_PRECONDITION, "generation: expected 1; found 0"),
]


@pytest.mark.faults(
    "call of another job, protocol or generation", how="gRPC client", expected="a status each, field named"
)
@pytest.mark.parametrize(
    ("changed", "status", "details"),
    NAMES,
    ids=["protocol_version", "job_id", "a path", "a control character", "generation"],
)
@pytest.mark.parametrize(
    ("method", "message"),
    [(PUSH, part), (PULL, lambda **changed: pull_request(**changed).SerializeToString())],
    ids=["push", "pull"],
)
def test_another_protocol_job_or_membership_is_refused(job, method, message, changed, status, details):
    """On every stream, with the field's name, what was expected and what was found."""
    found = refusal(job, method, message(**changed))
    assert found[0] is status
    assert found[1].startswith(details)


def test_a_host_of_another_protocol_job_or_membership_is_refused():
    """As any client is."""
    with standing(**TWO_HOSTS) as job:
        for changed, status, details in NAMES:
            found = refusal(job, ATTEND, joined(**changed), as_host="1")
            assert found[0] is status
            assert found[1].startswith(details)


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


@pytest.mark.faults(
    "wrong length, dtype, shard, part; huge or negative range",
    how="gRPC client",
    expected="INVALID_ARGUMENT or OUT_OF_RANGE, field named",
)
@pytest.mark.parametrize(("changed", "status", "details"), BLOCKS)
def test_a_block_that_is_none_is_refused(job, changed, status, details):
    """An unknown shard, a wrong length, a wrong dtype, no part: the field's name, what was expected and found."""
    found = refusal(job, PUSH, part(**changed))
    assert found[0] is status
    assert found[1].startswith(details)


FOLLOWS = pb.FollowRequest(protocol_version=PROTOCOL_VERSION, job_id="test", generation=1).SerializeToString()


@pytest.mark.parametrize(("method", "message"), [(PUSH, part(sender=2)), (FOLLOW, FOLLOWS), (ATTEND, joined())])
def test_a_host_has_one_stream_of_each_kind(method, message):
    """Who says that it is host 1, which has its stream, is refused; so are the lead itself, and who is no host."""
    with standing(**TWO_HOSTS) as job:
        status, details = refusal(job, method, message, as_host="1")
        assert (status, details) == (
            StatusCode.ALREADY_EXISTS,
            f"thalweg-host (metadata): expected one {method.rsplit('/')[-1]} of host 1; found another one",
        )
        for name in ("0", "2", "one", ""):
            status, details = refusal(job, method, message, as_host=name)
            assert (status, details) == (
                StatusCode.INVALID_ARGUMENT,
                f"thalweg-host (metadata): expected one of 1; found {name!r}",
            )


@pytest.mark.parametrize("metadata", [[], [("thalweg-host", "1")]])
def test_what_only_hosts_may_do_is_refused_to_clients(job, metadata):
    """To follow, and to attend; also where the client says that it is a host."""
    for method, message in ((FOLLOW, FOLLOWS), (ATTEND, joined())):
        assert refusal(job, method, message, metadata=metadata)[0] is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("sender", [1, 2, 1 << 31])
def test_somebody_who_is_no_host_cannot_send_as_one(job, sender):
    """Not even as the very host that it talks to."""
    status, details = refusal(job, PUSH, part(sender=sender))
    assert (status, details.split(":")[0]) == (StatusCode.INVALID_ARGUMENT, "sender")


def test_nobody_attends_but_at_the_lead():
    """The other servers say where."""
    with standing(**TWO_HOSTS) as job, pytest.raises(grpc.RpcError) as caught:
        job.hosts[1].call(ATTEND, joined(), metadata=[("thalweg-host", "0")])
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "expected a call of the lead, host 0; found one of host 1"


def test_streams_of_others_are_bounded_and_leave_room_for_the_hosts():
    """Eight clients that do nothing hold up nobody but a ninth; when one ends, there is room again."""
    with standing(**ASYNC | {"workers": [1, 8]}) as job:
        client = job.clients[0]
        idle = [client.idle() for _ in range(OUTSIDE_STREAMS_MAX)]
        for method, message in ((PUSH, part()), (PULL, pull_request().SerializeToString())):
            assert refusal(job, method, message) == (
                StatusCode.RESOURCE_EXHAUSTED,
                "expected at most 8 streams of others than hosts at the same time; found one more",
            )
        idle.pop().end()
        client.pull()
        idle.append(client.idle())
        assert job.go_on().result.error is None


@pytest.mark.faults("client hangs in the middle of a push", how="gRPC client", expected="its stream is given back")
def test_a_client_that_hangs_in_the_middle_of_a_push_gives_its_stream_back():
    """After the patience there is room for all eight again: nothing was closed, nothing was said."""
    with standing(**ASYNC | {"of_server": {"patience_s": 3.0}}) as job, ExitStack() as stack:
        [address] = job.run.addresses
        host, port = address.split(":")
        proxy = stack.enter_context(Proxy((host, int(port))))
        hanging = stack.enter_context(Client(f"127.0.0.1:{proxy.address[1]}"))
        for _ in range(OUTSIDE_STREAMS_MAX):
            hanging.idle(part())
        assert refusal(job, PULL, pull_request().SerializeToString())[0] is StatusCode.RESOURCE_EXHAUSTED
        proxy.hang()
        streams = job.run.servers[0]._clients._outsiders._room
        for _ in range(OUTSIDE_STREAMS_MAX):
            assert streams.acquire(timeout=TIMEOUT_S)
        for _ in range(OUTSIDE_STREAMS_MAX):
            streams.release()
        job.clients[0].pull()


# Pushes from outside


def gradient(job: Standing, seed: int = 0) -> np.ndarray:
    """Some gradient of the lead's shard."""
    _, parameters = job.clients[0].pull()
    return np.random.default_rng(seed).standard_normal(len(parameters), dtype=np.float32)


RATE = np.float32(0.01)  # the learning rate of ASYNC


@pytest.mark.faults("push repeated", how="gRPC client", expected="DUPLICATE, applied once")
def test_a_gradient_from_outside_is_applied_once():
    """The parameters are what plain arithmetic says; a repeat is acknowledged, and changes nothing."""
    with standing(**ASYNC) as job:
        client = job.clients[0]
        version, before = client.pull()
        assert version == client.status().version == 1
        first, second = gradient(job, seed=1), gradient(job, seed=2)
        answer = client.push(first, step=1, version=1)
        assert (answer.result, answer.step, answer.part_begin, answer.part_end) == (pb.ACCEPTED, 1, 1000, 1001)
        _, after = client.pull()
        np.testing.assert_array_equal(after, before - RATE * first)
        assert client.push(second, step=1, version=1).result == pb.DUPLICATE  # of this name, whatever it holds
        np.testing.assert_array_equal(client.pull()[1], after)
        assert client.push(second, step=1, version=1, part_begin=7, part_end=8).result == pb.ACCEPTED
        np.testing.assert_array_equal(client.pull()[1], after - RATE * second)


@pytest.mark.faults("bit flipped in a client's block with a checksum", how="gRPC client", expected="DATA_LOSS")
def test_a_spoilt_block_from_outside_is_not_applied():
    """Nothing of its push is; sent again, whole, it is applied."""
    with standing(**ASYNC) as job:
        client = job.clients[0]
        before = client.pull()[1]
        pushed = gradient(job, seed=1)
        blocks = [pb.Block.FromString(each) for each in gradient_blocks(pushed, step=1, version=1)]
        for each in blocks:
            each.checksum = checksum([each.SerializeToString()])
        whole = [each.SerializeToString() for each in blocks]
        spoilt = bytearray(whole[-1])
        spoilt[len(spoilt) // 2] ^= 1
        status, details = refusal(job, PUSH, *whole[:-1], bytes(spoilt))
        assert status is StatusCode.DATA_LOSS
        expected = f"checksum: expected {blocks[-1].checksum:016x}; found "
        assert details.startswith(expected)
        assert details.endswith("; send the block again")
        np.testing.assert_array_equal(client.pull()[1], before)
        [answer] = client.call(PUSH, *whole)
        assert pb.PushReply.FromString(answer).result == pb.ACCEPTED
        np.testing.assert_array_equal(client.pull()[1], before - RATE * pushed)


def test_what_is_pulled_has_a_checksum():
    """Which a client may look at."""
    with standing(**ASYNC) as job:
        for message in job.clients[0].call(PULL, pull_request().SerializeToString()):
            found = pb.Block.FromString(message)
            assert found.checksum
            assert checksum([message[:-9]]) == found.checksum


def test_blocks_come_in_any_order_and_size_and_pushes_follow_each_other():
    """Two pushes on one stream, the first from its end on in odd pieces, the second in bfloat16."""
    with standing(**ASYNC) as job:
        client = job.clients[0]
        _, before = client.pull()
        first, second = gradient(job, seed=1), np.full(len(before), 0.5, dtype=np.float32)
        halves = (second.view("<u4") >> 16).astype("<u2").tobytes()
        blocks = [
            *reversed(list(gradient_blocks(first, length=999, step=1, version=1))),
            part(
                begin=0,
                end=len(before),
                data=halves,
                format=pb.BFLOAT16,
                step=1,
                version=0,
                part_end=1005,
                part_begin=1004,
            ),
        ]
        answers = [pb.PushReply.FromString(answer) for answer in client.call(PUSH, *blocks)]
        assert [(answer.result, answer.part_begin) for answer in answers] == [(pb.ACCEPTED, 1000), (pb.ACCEPTED, 1004)]
        np.testing.assert_array_equal(client.pull()[1], before - RATE * first - RATE * second)


def test_a_stale_gradient_is_scaled_by_its_staleness():
    """With staleness_scaling one that is computed on an old version counts for less, whatever step it says."""
    with standing(**ASYNC, staleness_scaling=True, step=3) as job:
        client = job.clients[0]
        assert client.status().version == 3
        pushed = gradient(job)
        for version, step in ((3, 0), (0, 0), (1, 19)):
            _, before = client.pull()
            client.push(pushed, step=step, version=version, part_begin=10 + version, part_end=11 + version)
            rate = np.float32(0.01 / (1 + 3 - version))
            np.testing.assert_array_equal(client.pull()[1], before - rate * pushed)


def test_ssp_refuses_what_is_too_stale():
    """With a bound of 1 at version 3, a gradient is computed on version 2 or 3."""
    with standing(**ASYNC | {"consistency": "ssp"}, staleness=1, step=3) as job:
        client, pushed = job.clients[0], gradient(job)
        assert client.status().version == 3
        _, before = client.pull()
        for version in (1, 4):
            status, details = refusal(job, PUSH, *gradient_blocks(pushed, step=3, version=version))
            assert (status, details) == (StatusCode.FAILED_PRECONDITION, f"version: expected 2 to 3; found {version}")
        np.testing.assert_array_equal(client.pull()[1], before)
        assert client.push(pushed, step=3, version=2).result == pb.ACCEPTED


@pytest.mark.faults("push late or repeated, sync", how="gRPC client", expected="LATE or DUPLICATE, weights unchanged")
@pytest.mark.parametrize(("step", "result"), [(0, pb.LATE), (5, pb.DUPLICATE)])
def test_sync_lets_no_gradient_in(step, result):
    """The job's own workers compute all parts of a step: what else comes is late, or a repeat, and changes nothing."""
    with standing(**TWO_HOSTS, step=2) as job:
        pushed = gradient(job)
        assert job.clients[0].push(pushed, step=step, version=0, part_begin=0, part_end=1).result == result
    assert job.run.result.weights_sha256 == train_locally(workers=1, model=WIDE).result.weights_sha256


NAN = np.full(64, np.nan, dtype="<f4").tobytes()
PUSHES = [
    ([part(data=NAN)], "data: expected finite numbers; found nan as element 0"),
    ([part(), part()], "begin, end: expected elements that were not sent yet; found [0, 64)"),
    ([part(), part(begin=63, end=127)], "begin, end: expected elements that were not sent yet; found [63, 127)"),
    (
        [part(), part(begin=64, end=128, step=3)],
        "step, part_begin, part_end, version: expected (0, 1000, 1001, 0), a push",
    ),
    (
        [part(), part(begin=64, end=128, version=1)],
        "step, part_begin, part_end, version: expected (0, 1000, 1001, 0), a",
    ),
    ([part()], "begin, end: expected all elements of [0, "),
]


@pytest.mark.faults(
    "push with NaN, elements twice, a gap, cut off", how="gRPC client", expected="INVALID_ARGUMENT, weights unchanged"
)
@pytest.mark.parametrize(("messages", "details"), PUSHES)
def test_a_push_that_is_none_is_refused(job, messages, details):
    """Something that is not finite, elements twice, two pushes mixed, or a stream that ends too early."""
    found = refusal(job, PUSH, *messages)
    assert found[0] is StatusCode.INVALID_ARGUMENT
    assert found[1].startswith(details)


@pytest.mark.parametrize(
    ("changed", "details"),
    [
        ({"part_begin": 3, "part_end": 4}, "part_begin, part_end: expected one part, from 4 on"),
        ({"part_end": 1002}, "part_begin, part_end: expected one part, from 4 on"),
        ({"step": 20}, "step: expected at most 19, the job's last; found 20"),
    ],
)
def test_a_name_that_no_push_can_have_is_refused(changed, details):
    """The job's own microbatches, several parts, a step after the last."""
    with standing(**ASYNC) as job:
        found = refusal(job, PUSH, *gradient_blocks(gradient(job), **changed))
    assert found[0] is StatusCode.INVALID_ARGUMENT
    assert found[1].startswith(details)


def test_nothing_is_let_in_before_the_first_step():
    """The parameters can be pulled, but not changed, while workers have yet to join."""
    with standing(**ASYNC, at="join") as job:
        assert job.clients[0].pull()[0] == 0
        found = refusal(job, PUSH, *gradient_blocks(gradient(job)))
    assert found == (StatusCode.UNAVAILABLE, "the run has not begun")


def test_nothing_is_let_in_after_the_last_step():
    """While the last version is evaluated it can be pulled, but not changed: all hosts have it already."""
    with standing(**ASYNC | {"workers": [1, 1]}, at="evaluation") as job:
        found = refusal(job, PUSH, *gradient_blocks(gradient(job)))
        pulled = [client.pull() for client in job.clients]
    assert found == (StatusCode.UNAVAILABLE, "the run has ended: its last version is there")
    assert [version for version, _ in pulled] == [20, 20]
    final = np.concatenate([shard for _, shard in pulled])
    assert all(np.array_equal(server.weights(), final) for server in job.run.servers)


@pytest.mark.faults("push under way when the run ends", how="gRPC client", expected="told so, no thread waits")
def test_a_push_that_nobody_answers_ends_with_the_run():
    """It is told that the run has ended, and no thread waits on."""

    def deaf(servers):
        servers[0]._on_outside = lambda push: heard.set()

    heard = threading.Event()
    with standing(**ASYNC, made=deaf) as job:
        pushed = gradient_blocks(gradient(job), step=1, version=1)
        call = job.clients[0].channel.stream_stream(PUSH)(pushed, timeout=TIMEOUT_S)
        assert heard.wait(TIMEOUT_S)
        job.go_on()
        assert (call.code(), call.details()) == (StatusCode.UNAVAILABLE, "the run has ended")


# Parameters


def test_what_is_pulled_is_the_version_that_it_says():
    """Bit for bit: what as many steps make of it on one host without gRPC."""
    with standing(**TWO_HOSTS, step=3) as job:
        for client, server in zip(job.clients, job.run.servers, strict=True):
            version, shard = client.pull()
            assert version in (2, 3)
            begin, end = server.shards.bounds[server.spec.host]
            alone = train_locally(workers=1, model=WIDE, steps=version)
            np.testing.assert_array_equal(shard, alone.servers[0].weights()[begin:end])


def test_hosts_pull_in_the_format_of_the_job_and_others_exactly():
    """In async, of what a host owns: the same blocks, in bfloat16 for the other host, in float32 for anybody else."""
    of_server = {"block": CHUNK, "wire_parameters": "bfloat16"}
    with standing(**ASYNC | {"workers": [1, 1], "of_server": of_server}, step=3) as job:
        for server, clients in enumerate(zip(job.clients, job.hosts, strict=True)):
            request, shards = pull_request().SerializeToString(), job.run.servers[server].shards
            of_others, of_host = (
                [pb.Block.FromString(answer) for answer in client.call(PULL, request, metadata=metadata)]
                for client, metadata in zip(clients, ((), [("thalweg-host", str(1 - server))]), strict=True)
            )
            owned = [shards.blocks[index][:2] for index in shards.owned_by(server)]
            assert len(owned) > 1
            for blocks, form in ((of_others, pb.FLOAT32), (of_host, pb.BFLOAT16)):
                assert [(b.header.begin, b.header.end, b.header.format) for b in blocks] == [(*o, form) for o in owned]
            exact = np.concatenate([np.frombuffer(block.data, dtype="<u4") for block in of_others])
            halves = np.concatenate([np.frombuffer(block.data, dtype="<u2") for block in of_host])
            rounded = (exact + 0x7FFF + (exact >> 16 & 1)) >> 16  # to nearest, ties to even
            np.testing.assert_array_equal(halves, rounded)


def test_the_window_of_a_job_on_one_host_shows_its_parameters():
    """A job whose workers meet takes no push, and shows what it has."""
    windows = []

    def open_window(servers):
        windows.append(Window(servers[0]))
        windows[0].open()

    with standing(workers=2, model=WIDE, at="evaluation", made=open_window) as job:
        [window] = windows
        with Client(window.address) as client:
            job.clients = [client]
            assert client.push(gradient(job), step=3).result == pb.LATE
            assert client.push(gradient(job), step=20).result == pb.DUPLICATE
            assert refusal(job, PUSH, part(sender=1))[1] == "sender: expected 0; found 1"
            version, pulled = client.pull()
            assert version == client.status().version == 20
            window.close()
    np.testing.assert_array_equal(pulled, job.run.servers[0].weights())


# Whatever comes


@pytest.mark.faults("oversize message", how="gRPC client", expected="RESOURCE_EXHAUSTED, the door stays open")
def test_a_message_over_the_limit_is_refused(job):
    """More than the longest block takes is not even read; also in the middle of a push."""
    for messages in ([part(data=bytes(MESSAGE_BYTES_MAX))], [part(), part(data=bytes(MESSAGE_BYTES_MAX))]):
        status, details = refusal(job, PUSH, *messages)
        assert status is StatusCode.RESOURCE_EXHAUSTED
        assert str(MESSAGE_BYTES_MAX) in details


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (PUSH, part(job_id="x" * 1_000_000)),
        (PUSH, part(job_id="x" * 4 + "\N{WATER WAVE}" * 250_000)),
        (PULL, pull_request(job_id="x" * 1_000_000).SerializeToString()),
    ],
)
def test_a_long_name_is_not_told_in_full(job, method, message):
    """A status has room for a few kilobytes."""
    status, details = refusal(job, method, message)
    assert status is StatusCode.NOT_FOUND
    assert details.startswith("job_id: expected 'test'; found 'xxxx")
    assert len(details) < 1000


SENDABLE = {
    PUSH: [part(), part(format=pb.INT8, data=bytes(68)), part(format=pb.TOPK, data=bytes(8)), part(sender=2)],
    PULL: [pull_request().SerializeToString()],
    FOLLOW: [FOLLOWS, part(sender=2)],
    STATUS: [pb.StatusRequest(protocol_version=PROTOCOL_VERSION).SerializeToString()],
    ATTEND: [joined(), HostMessage(whole=HostMessage.Whole(version=1)).SerializeToString()],
}
NUMBERS = st.one_of(st.integers(0, 3), st.sampled_from([1000, 1001, 1 << 31]), st.integers(0, (1 << 32) - 1))
LARGE = st.one_of(NUMBERS, st.integers(0, (1 << 64) - 1))
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "protocol_version": NUMBERS,
        "job_id": st.text(),
        "generation": LARGE,
        "step": LARGE,
        "part_begin": NUMBERS,
        "part_end": NUMBERS,
        "begin": LARGE,
        "end": LARGE,
        "format": st.integers(-1, 6),
        "version": LARGE,
        "sender": NUMBERS,
        "data": st.binary(max_size=300),
    },
)


@st.composite
def mutated(draw) -> tuple[str, bytes]:
    """A good message with some bytes taken out, put in or changed."""
    method = draw(st.sampled_from(sorted(SENDABLE)))
    message = bytearray(draw(st.sampled_from(SENDABLE[method])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(message)))
        message[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return method, bytes(message)


MESSAGES = st.one_of(
    st.tuples(st.sampled_from(sorted(SENDABLE)), st.binary(max_size=300)),
    mutated(),
    st.tuples(st.just(PUSH), st.builds(lambda changed: part(**changed), HEADERS)),
)
CALLERS = st.sampled_from([(), [("thalweg-host", "0")], [("thalweg-host", "1")], [("thalweg-host", "none")]])
ANSWERS = {  # to what is bad; none says that something broke
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.ALREADY_EXISTS,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.OUT_OF_RANGE,
    StatusCode.UNAVAILABLE,
    StatusCode.DATA_LOSS,
}


def answer_to(client: Client, method: str, *messages: bytes, metadata) -> grpc.RpcError | None:
    try:
        client.call(method, *messages, metadata=metadata)
    except grpc.RpcError as error:
        return error
    return None


@pytest.mark.faults(
    "malformed protobuf, random metadata", how="hypothesis", expected="a fitting status, the door stays open"
)
@settings(max_examples=300)
@given(sent=MESSAGES, more=st.lists(MESSAGES, max_size=2), metadata=CALLERS)
def test_whatever_is_sent_the_door_stays_open(job, sent, more, metadata):
    """Random bytes, mutations of good messages, random headers: a fitting status with a text, and good calls go on."""
    method, message = sent
    messages = [message, *(other for _, other in more)]
    for client in (*job.clients, *job.hosts):
        refused = answer_to(client, method, *messages, metadata=metadata)
        # At a door for clients nobody attends or follows.
        answers = ANSWERS | ({StatusCode.UNIMPLEMENTED} if method in (ATTEND, FOLLOW) else set())
        assert refused is None or (refused.code() in answers and refused.details())
        assert client.status().job_id == "test"
    _, parameters = job.clients[0].pull()
    assert np.isfinite(parameters).all()


def test_the_standard_health_service_answers(job):
    """SERVING, for the server and each service; NOT_FOUND for others."""
    for client in job.clients:
        health = health_pb2_grpc.HealthStub(client.channel)
        for service in ("", "thalweg.v1.ParameterServer"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=TIMEOUT_S)
        assert caught.value.code() is StatusCode.NOT_FOUND
