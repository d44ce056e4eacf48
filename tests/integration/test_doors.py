"""The doors of a running job: who is let in, who can listen on the way, and how much of anything there may be."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from queue import SimpleQueue

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.integration.grpc_client import (
    ATTEND,
    PULL,
    PUSH,
    STATUS,
    TIMEOUT_S,
    Client,
    Standing,
    gradient_blocks,
    pull_request,
    standing,
)
from tests.integration.local_run import start_locally, train_locally

from thalweg_cluster.hosts import clients_door
from thalweg_cluster.hosts.callers import OUTSIDE_STREAMS_MAX, SHORT_CALLS_MAX
from thalweg_cluster.hosts.listener import METADATA_BYTES_MAX, Listener
from thalweg_cluster.hosts.window import Window
from thalweg_cluster.security.certificates import make_certificates
from thalweg_cluster.security.given import Given
from thalweg_cluster.security.guard import Guard, Tls
from thalweg_cluster.security.run import RunSecurity, between_hosts, on_loopback
from thalweg_cluster.security.tokens import Tokens, bearer
from thalweg_proto.errors import ServerError
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1 import parameter_server_pb2 as pb

LOOPBACK = "127.0.0.1"
GIVEN = Given(token="full", read_token="read")
RATE = np.float32(0.01)
ASYNC = {
    "workers": [1],
    "consistency": "async",
    "rule": "sgd",
    "rule_options": {},
    "schedule": {"name": "constant", "learning_rate": 0.01, "warmup_steps": 0},
}
WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
CALLS = {
    STATUS: pb.StatusRequest(protocol_version=PROTOCOL_VERSION).SerializeToString(),
    PULL: pull_request().SerializeToString(),
    PUSH: b"",
    ATTEND: b"",
}


def status_of(call) -> StatusCode | None:
    """The status that a call ends with; None: it goes well."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return None


@pytest.fixture(params=["served", "window"])
def guarded(request) -> Iterator[tuple[Standing, str]]:
    """A job on one host that was given both tokens, and the address of its door."""
    security = on_loopback(GIVEN)
    if request.param == "served":
        with standing(**ASYNC, of_server={"security": security}) as job:
            yield job, job.run.addresses[0]
        return
    windows = []

    def open_window(servers):
        servers[0].spec = replace(servers[0].spec, guard=security.clients)
        windows.append(Window(servers[0]))
        windows[0].open()

    with standing(workers=1, at="step", made=open_window) as job:
        yield job, windows[0].address
        windows[0].close()


# Tokens


@pytest.mark.faults(
    "no token, wrong one, read-only one that pushes", how="gRPC client", expected="refused, weights unchanged"
)
def test_a_token_lets_in_to_what_it_was_given_for(guarded):
    """None and a wrong one to nothing, the read-only one to no push, and what was refused has changed nothing."""
    job, address = guarded
    with Client(address) as none, Client(address, token="wrong") as wrong, Client(address, token="read") as read:
        version, before = read.pull()
        assert read.status().version == version
        for method, message in CALLS.items():
            for client in (none, wrong):
                assert status_of(lambda m=method, b=message, c=client: c.call(m, b)) is StatusCode.UNAUTHENTICATED
        pushed = np.ones_like(before)
        for client, status in ((none, "UNAUTHENTICATED"), (wrong, "UNAUTHENTICATED"), (read, "PERMISSION_DENIED")):
            refused = status_of(lambda c=client: c.push(pushed, step=version, version=version))
            assert refused is StatusCode[status]
        np.testing.assert_array_equal(read.pull()[1], before)
        with Client(address, token="full") as full:
            result = full.push(pushed, step=version, version=version).result
            assert result == (pb.ACCEPTED if job.clients else pb.DUPLICATE)
            after = before - RATE * pushed if job.clients else before
            np.testing.assert_array_equal(full.pull()[1], after)


def test_health_takes_no_token_and_there_is_no_reflection(guarded):
    """To watch it takes one, since that lasts."""
    _, address = guarded
    with Client(address) as none, Client(address, token="full") as full:
        health = health_pb2_grpc.HealthStub(none.channel)
        request = health_pb2.HealthCheckRequest()
        assert health.Check(request, timeout=TIMEOUT_S).status == health_pb2.HealthCheckResponse.SERVING
        watched = health.Watch(request, timeout=TIMEOUT_S)
        assert status_of(lambda: next(watched)) is StatusCode.UNAUTHENTICATED
        for version in ("v1", "v1alpha"):
            method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            reflected = full.channel.stream_stream(method)(iter([b""]), timeout=TIMEOUT_S, metadata=[bearer("full")])
            assert status_of(lambda answers=reflected: list(answers)) is StatusCode.UNIMPLEMENTED


def test_a_host_with_another_token_is_named_before_the_first_step():
    """It does not count which host it says it is."""

    def forget(servers):
        me = servers[1]._peers._me
        servers[1]._peers._me = (me[0], ("authorization", "Bearer another"))

    run = start_locally(workers=[1, 1], made=forget).join()
    assert run.result.steps == 0
    assert re.fullmatch(
        r"host 1 at \S+ is not let in by host 0 at \S+: UNAUTHENTICATED: authorization \(metadata\): "
        r"expected a token that this door knows; found another one",
        run.results[1].error,
    )


def test_only_the_runs_own_token_makes_a_host_of_a_caller():
    """Not the full token of clients, said at the hosts' door; nor does the run's token let in at the clients' door."""
    security = replace(on_loopback(GIVEN), token="of the run")
    with standing(workers=[1, 1], model=WIDE, of_server={"security": security, "block": CHUNK}) as job:
        job.clients = [Client(address, token="full") for address in job.run.addresses]
        host = [("thalweg-host", "1")]
        for token in (None, "full", "read"):
            with Client(job.run.hosts_addresses[0], token=token) as client:
                for method, message in CALLS.items():
                    refused = status_of(lambda m=method, b=message, c=client: c.call(m, b, metadata=host))
                    assert refused is StatusCode.UNAUTHENTICATED
        with Client(job.run.addresses[0], token="of the run") as client:
            assert status_of(client.status) is StatusCode.UNAUTHENTICATED


# TLS


@pytest.fixture(scope="module")
def secured() -> Iterator[tuple[Standing, RunSecurity]]:
    """A job on two hosts with what each run on several hosts makes for itself, and tokens for clients."""
    security = between_hosts(GIVEN, [LOOPBACK])
    with standing(workers=[1, 1], model=WIDE, of_server={"security": security, "block": CHUNK}) as job:
        for client in (*job.clients, *job.hosts):  # they speak plaintext
            client.close()
        job.clients, job.hosts = [], []
        yield job, security


def trusting(ca: bytes | None, own: Tls | None = None) -> grpc.ChannelCredentials:
    """What a client gives that trusts `ca`, and perhaps has a certificate of its own."""
    return grpc.ssl_channel_credentials(ca, own and own.key, own and own.certificate)


def test_hosts_speak_tls_and_the_weights_are_the_same():
    """In sync over two hosts: what one host without gRPC makes of it."""
    security = between_hosts(Given(), [LOOPBACK])
    run = train_locally(workers=[1, 1], model=WIDE, of_server={"security": security, "block": CHUNK})
    assert run.result.error is None
    assert run.result.weights_sha256 == train_locally(workers=1, model=WIDE).result.weights_sha256


def test_a_client_that_trusts_the_runs_authority_is_let_in(secured):
    """With ca.pem and a token, at each server; what Status says leads to all others."""
    job, security = secured
    with Client(job.run.addresses[0], token="read", credentials=trusting(security.ca)) as client:
        addresses = [shard.address for shard in client.status().shards]
    assert addresses == job.run.addresses
    for address in addresses:
        with Client(address, token="read", credentials=trusting(security.ca)) as client:
            assert len(client.pull()[1])
        with Client(address, credentials=trusting(security.ca)) as client:
            assert status_of(client.status) is StatusCode.UNAUTHENTICATED


@pytest.mark.faults("plaintext to TLS, wrong CA", how="gRPC client", expected="no byte of the protocol is spoken")
@pytest.mark.parametrize("door", ["addresses", "hosts_addresses"])
def test_plaintext_and_a_wrong_authority_get_nowhere(secured, door):
    """No byte of the protocol is spoken; the doors go on."""
    job, security = secured
    another = make_certificates([LOOPBACK])
    for address in getattr(job.run, door):
        for credentials in (None, trusting(another.ca), trusting(another.ca, another)):
            with Client(address, token="full", credentials=credentials) as client:
                assert status_of(client.status) is StatusCode.UNAVAILABLE
    with Client(job.run.addresses[0], token="read", credentials=trusting(security.ca)) as client:
        assert client.status().host == 0


def test_hosts_ask_for_a_certificate_of_the_run_and_for_its_token(secured):
    """Neither is enough."""
    job, security = secured
    address = job.run.hosts_addresses[0]
    for own in (None, make_certificates([LOOPBACK])):
        with Client(address, token=security.token, credentials=trusting(security.ca, own)) as client:
            assert status_of(client.status) is StatusCode.UNAVAILABLE
    with Client(address, token="full", credentials=trusting(security.ca, security.tls)) as client:
        assert status_of(client.status) is StatusCode.UNAUTHENTICATED
    with Client(address, token=security.token, credentials=trusting(security.ca, security.tls)) as client:
        assert client.status().host == 0


def test_a_certificate_for_another_address_is_not_trusted():
    """A client knows whom it talks to."""
    security = between_hosts(GIVEN, ["10.255.255.1"])
    with (
        standing(**ASYNC, of_server={"security": security}) as job,
        Client(job.run.addresses[0], token="full", credentials=trusting(security.ca)) as client,
    ):
        assert status_of(client.status) is StatusCode.UNAVAILABLE


def test_a_given_authority_makes_tls_mutual():
    """The clients' certificate is asked for as well as their token."""
    shown, clients = make_certificates([LOOPBACK]), make_certificates([LOOPBACK])
    security = on_loopback(replace(GIVEN, tls=replace(shown, ca=clients.ca)))
    with standing(**ASYNC, of_server={"security": security}) as job:
        for own, status in ((None, StatusCode.UNAVAILABLE), (shown, StatusCode.UNAVAILABLE), (clients, None)):
            with Client(job.run.addresses[0], token="full", credentials=trusting(shown.ca, own)) as client:
                assert status_of(client.status) is status


@pytest.mark.faults("beyond loopback without token or TLS", how="job", expected="refused, the port is not bound")
def test_nothing_listens_beyond_loopback_without_a_token_and_tls():
    """The port is not even bound then."""
    for guard in (Guard(), on_loopback(GIVEN).clients, Guard(insecure=True), RunSecurity().hosts):
        with pytest.raises(ServerError, match=r"refused to listen on 0\.0\.0\.0: expected a token and TLS"):
            Listener("0.0.0.0", guard, {}, calls_max=1, patience_s=1.0, name="none")
    for given in (Given(), GIVEN, Given(insecure=True)):
        security = between_hosts(given, [LOOPBACK])
        assert start_locally(**ASYNC, of_server={"bind": "0.0.0.0", "security": security}).join().result.error is None


# Limits


@pytest.mark.faults(
    "1,000 pushes at once", how="gRPC client", expected="RESOURCE_EXHAUSTED for the excess, the acknowledged are in"
)
def test_of_a_thousand_pushes_at_once_what_is_acknowledged_is_in():
    """As many as there is room for are taken, the rest is told RESOURCE_EXHAUSTED, and the run goes on."""
    begin = threading.Event()

    def wait_for_all(servers):
        on_outside = servers[0]._on_outside

        def waits(push):
            assert begin.wait(TIMEOUT_S)
            on_outside(push)

        servers[0]._on_outside = waits

    with standing(**ASYNC, made=wait_for_all) as job:
        client = job.clients[0]
        version, before = client.pull()
        gradient = np.ones_like(before)
        push = client.channel.unary_unary(PUSH)  # a push of one block, as a call of its own
        refused = threading.Semaphore(0)
        calls = []
        for part in range(1000):
            name = {"step": version, "version": version, "part_begin": 1000 + part, "part_end": 1001 + part}
            [message] = gradient_blocks(gradient, **name)
            calls.append(push.future(message, timeout=TIMEOUT_S))
            calls[-1].add_done_callback(lambda call: refused.release())
        for _ in range(1000 - OUTSIDE_STREAMS_MAX):
            assert refused.acquire(timeout=TIMEOUT_S)
        begin.set()
        codes = [call.code() for call in calls]
        accepted = codes.count(StatusCode.OK)
        assert accepted == OUTSIDE_STREAMS_MAX
        assert codes.count(StatusCode.RESOURCE_EXHAUSTED) == 1000 - accepted
        expected = before
        for call in calls:
            if call.code() is StatusCode.OK:
                assert pb.PushReply.FromString(call.result()).result == pb.ACCEPTED
                expected = expected - RATE * gradient
        np.testing.assert_array_equal(client.pull()[1], expected)


@pytest.mark.faults(
    "more calls than threads", how="gRPC client", expected="RESOURCE_EXHAUSTED at once, then room again"
)
def test_more_calls_than_threads_are_refused_at_once():
    """They do not wait in a queue without a bound; when those before are answered there is room again."""
    most = OUTSIDE_STREAMS_MAX + SHORT_CALLS_MAX
    with standing(**ASYNC) as job:
        client, server = job.clients[0], job.run.servers[0]
        begin, refused = threading.Event(), threading.Semaphore(0)
        status = server.status

        def waits():
            assert begin.wait(TIMEOUT_S)
            return status()

        server.status = waits
        call = client.channel.unary_unary(STATUS)
        calls = [call.future(CALLS[STATUS], timeout=TIMEOUT_S) for _ in range(100)]
        for each in calls:
            each.add_done_callback(lambda call: refused.release())
        for _ in range(100 - most):
            assert refused.acquire(timeout=TIMEOUT_S)
        begin.set()
        codes = [each.code() for each in calls]
        assert (codes.count(StatusCode.OK), codes.count(StatusCode.RESOURCE_EXHAUSTED)) == (most, 100 - most)
        assert client.status().job_id == "test"


def test_clients_do_not_take_the_room_of_hosts():
    """However many clients there are, a host's fetch is answered: they have limits of their own."""
    with standing(**ASYNC | {"workers": [1, 1]}, model=WIDE, of_server={"block": CHUNK}) as job:
        client, host = job.clients[0], job.hosts[0]
        idle = [client.idle() for _ in range(OUTSIDE_STREAMS_MAX)]
        assert status_of(client.pull) is StatusCode.RESOURCE_EXHAUSTED
        assert host.call(PULL, CALLS[PULL], metadata=[("thalweg-host", "1")])
        for each in idle:
            each.end()


@pytest.mark.faults("oversize metadata", how="gRPC client", expected="refused before they are looked at")
def test_metadata_over_the_limit_are_refused():
    """Before anything looks at them; what is just below comes in."""
    with standing(**ASYNC) as job:
        client = job.clients[0]
        huge = [("x", "y" * (METADATA_BYTES_MAX + 1))]
        assert status_of(lambda: client.call(STATUS, CALLS[STATUS], metadata=huge)) is StatusCode.RESOURCE_EXHAUSTED
        many = [(f"x{i}", "y" * 100) for i in range(METADATA_BYTES_MAX // 100)]
        assert status_of(lambda: client.call(STATUS, CALLS[STATUS], metadata=many)) is StatusCode.RESOURCE_EXHAUSTED
        client.call(STATUS, CALLS[STATUS], metadata=[("x", "y" * (METADATA_BYTES_MAX * 3 // 4))])


@pytest.mark.faults("stream without an end", how="gRPC client", expected="cancelled, room again")
def test_a_stream_without_a_deadline_ends(monkeypatch):
    """And makes room, though its client says nothing and never ends it."""
    monkeypatch.setattr(clients_door, "STREAM_S", 0.2)
    with standing(**ASYNC) as job:
        said: SimpleQueue[bytes] = SimpleQueue()
        streams = [job.clients[0].channel.stream_stream(PUSH)(iter(said.get, b"")) for _ in range(OUTSIDE_STREAMS_MAX)]
        ended = threading.Semaphore(0)
        for stream in streams:
            if not stream.add_callback(ended.release):
                ended.release()
        try:
            for _ in streams:
                assert ended.acquire(timeout=TIMEOUT_S)
            assert [stream.code() for stream in streams] == [StatusCode.CANCELLED] * OUTSIDE_STREAMS_MAX
        finally:
            for _ in streams:
                said.put(b"")
        assert job.clients[0].pull()


# Our own mistakes


@pytest.mark.faults("handler raises", how="monkeypatch", expected="INTERNAL with an id, nothing of the inside")
def test_a_mistake_of_ours_is_told_by_an_id_only(caplog):
    """The client learns nothing of what broke; the log has it under that id; the next call is answered."""
    with standing(**ASYNC) as job:
        client, server = job.clients[0], job.run.servers[0]

        def broken():
            raise ValueError("/secret/path")

        for name, call in (("status", client.status), ("snapshot", client.pull)):
            setattr(server, name, broken)
            with pytest.raises(grpc.RpcError) as caught:
                call()
            delattr(server, name)
            assert caught.value.code() is StatusCode.INTERNAL
            told = re.fullmatch(
                r"error ([0-9a-f]{8}): the log of the server tells what it was, under this id", caught.value.details()
            )
            [record] = [each for each in caplog.records if told[1] in each.getMessage()]
            assert record.levelname == "ERROR"
            assert str(record.exc_info[1]) == "/secret/path"
            call()


def test_a_port_is_closed_when_the_run_is_over():
    """Of both doors."""
    with standing(workers=[1, 1]) as job:
        addresses = [*job.run.addresses, *job.run.hosts_addresses]
    assert len(set(addresses)) == 4
    for address in addresses:
        host, port = address.split(":")
        with socket.socket() as probe:
            assert probe.connect_ex((host, int(port)))


def test_tokens_are_not_kept_by_a_server():
    """Only their digests are sent to it."""
    security = between_hosts(GIVEN, [LOOPBACK])
    assert security.clients.tokens == Tokens.of(full="full", read="read")
    assert vars(security.clients.tokens).keys() == {"full", "read"}
    assert {type(value) for value in vars(security.clients.tokens).values()} == {bytes}
