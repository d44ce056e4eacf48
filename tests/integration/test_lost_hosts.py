"""Hosts that vanish, hang, cannot be reached or talk nonsense: the run ends on all hosts, and says who it was."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic, perf_counter

import pytest
from tests.hosts.proxy import Proxy
from tests.integration.grpc_client import Standing, standing
from tests.integration.local_run import Engine, start_locally, train_locally
from tests.tiers import slow_but

from thalweg_cluster.hosts import peers, server
from thalweg_proto.shared_memory import CHUNK

WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
PATIENCE_S = 3.0
STEPS = 100_000  # more than the run gets to
MODES = {
    "sync": {},
    "async": {"consistency": "async", "schedule": {"name": "constant", "learning_rate": 1e-4, "warmup_steps": 0}},
}
ADDRESS = r"127\.0\.0\.1:\d+"


@contextmanager
def through_a_proxy(near: int, far: int, *, hosts: int = 3, **options) -> Iterator[tuple[Standing, Proxy]]:
    """A run in whose step 3 nobody goes on yet; host `near` reaches host `far` through a proxy."""
    with ExitStack() as stack:
        proxies: list[Proxy] = []

        def addresses(listening: list[str], host: int) -> list[str]:
            if host != near:
                return listening
            name, port = listening[far].split(":")
            proxies.append(stack.enter_context(Proxy((name, int(port)))))
            between = f"127.0.0.1:{proxies[0].address[1]}"
            return [*listening[:far], between, *listening[far + 1 :]]

        of_server = {"block": CHUNK, "patience_s": PATIENCE_S, "connect_s": PATIENCE_S}
        options = {"step": 3, "model": WIDE, "steps": STEPS, "addresses": addresses, "of_server": of_server, **options}
        job = stack.enter_context(standing(workers=[1] * hosts, ends_well=False, **options))
        yield job, proxies[0]


LINKS = {"a host to the lead": (1, 0), "the lead to a host": (0, 1), "two hosts": (1, 2)}


def check(job: Standing, near: int, far: int) -> None:
    """Whoever tells of an error says that one of the two is gone: where, when, with which shard, and who noticed."""
    run = job.run
    errors = [result.error for result in run.results.values() if result.error]
    assert run.result.error
    assert run.result.steps < STEPS
    for error in errors:
        match = re.fullmatch(
            rf"host (\d) at {ADDRESS} is gone at step (\d+), with shard \[(\d+), (\d+)\): .+ "
            rf"\(noticed by host (\d) at {ADDRESS}\)",
            error,
        )
        assert match, error
        gone, step, begin, end, noticed = map(int, match.groups())
        assert {gone, noticed} == {near, far}, error
        assert (begin, end) == run.servers[0].shards.bounds[gone]
        # In async a host knows of a version only when it is granted work on it.
        assert step >= 2 or run.servers[0].spec.step.consistency == "async"


@pytest.mark.faults(
    "link cut in the middle of a message", how="TCP proxy", expected="failed, host, step and shard named"
)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize(("near", "far"), slow_but(LINKS.values(), 2), ids=LINKS)
def test_a_connection_that_is_cut_in_mid_stream_ends_the_run(near, far, mode):
    """The error names host, address, step and shard, and who noticed it; all hosts and workers end."""
    with through_a_proxy(near, far, **mode) as (job, proxy):
        proxy.cut_after(150_000)  # in the middle of a block
        began = monotonic()
        job.go_on()
        assert proxy.cuts == 1
        assert monotonic() - began < 20
    check(job, near, far)


@pytest.mark.faults("link that carries nothing more", how="TCP proxy", expected="failed after the patience, host named")
@pytest.mark.parametrize("mode", slow_but(MODES.values(), 0), ids=MODES)
@pytest.mark.parametrize(("near", "far"), slow_but(LINKS.values(), 2), ids=LINKS)
def test_a_connection_that_hangs_ends_the_run(near, far, mode):
    """Nothing is closed, nothing comes: after the patience, the same error."""
    with through_a_proxy(near, far, **mode) as (job, proxy):
        proxy.hang()
        began = monotonic()
        job.go_on()
        assert PATIENCE_S / 2 < monotonic() - began < PATIENCE_S + 20
    check(job, near, far)


HEALS_S = 5.0


@pytest.mark.faults("link silent for 5 s, and healed", how="TCP proxy: {id}", expected="=bits")
@pytest.mark.parametrize(("near", "far"), slow_but(LINKS.values(), 2), ids=LINKS)
def test_a_connection_that_heals_changes_no_bit(near, far, row):
    """Within the patience nobody is lost, and nothing of what was on its way."""
    patient = {"steps": 12, "of_server": {"block": CHUNK, "patience_s": 30.0}}
    whole = train_locally(workers=[1, 1, 1], model=WIDE, **patient)
    with through_a_proxy(near, far, **patient) as (job, proxy):
        proxy.hang()
        began = monotonic()
        heals = threading.Timer(HEALS_S, proxy.resume)
        heals.start()
        run = job.go_on()
        row.found("=bits", recovery_s=monotonic() - began - HEALS_S)
        heals.join()
    assert (run.result.error, run.worker_errors) == (None, [])
    assert run.result.weights_sha256 == whole.result.weights_sha256
    assert monotonic() - began > HEALS_S, "the link was not needed"


QUICK = {"connect_s": 1.0, "patience_s": PATIENCE_S, "block": CHUNK}
ENDLESS = {"model": WIDE, "steps": STEPS, "step": 3, "of_server": QUICK}


def errors_of(**options) -> dict[int, str]:
    """Of a run that does not begin, by host."""
    steps: list[int] = []

    class Counts(Engine):
        def before(self, step, microbatch):
            steps.append(step)

    run = start_locally(model=WIDE, engine=Counts, of_server=QUICK, **options).join()
    assert run.server_errors == []
    assert (steps, run.result.steps) == ([], 0)
    return {host: result.error for host, result in run.results.items() if result.error}


@pytest.fixture
def closed() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.faults(
    "host that cannot be reached", how="closed or silent port", expected="refused before the first step, named"
)
@pytest.mark.parametrize("where", ["closed", "silent"])
@pytest.mark.parametrize(("near", "far"), slow_but([*LINKS.values(), (2, 1)], 2), ids=[*LINKS, "two hosts, backward"])
def test_an_address_that_cannot_be_reached_is_named_before_the_first_step(near, far, where, request):
    """With both addresses and who they belong to; the lead is told, unless it is the one that cannot be reached."""
    nowhere = request.getfixturevalue(where)
    found = {}

    def addresses(listening, host):
        found[host] = listening[host]
        return [*listening[:far], nowhere, *listening[far + 1 :]] if host == near else listening

    errors = errors_of(workers=[1, 1, 1], addresses=addresses)
    expected = (
        f"host {near} at {found[near]} cannot reach host {far} at {nowhere}: no answer within 1 s. Is there a firewall "
        f"between them? The hosts of a run reach each other on TCP ports that the system chooses."
    )
    assert errors[near] == expected
    if far:
        assert errors[0] == expected
    else:
        assert "host 1 at" in errors[0]


def test_all_that_cannot_be_reached_are_named(closed):
    """One line for each."""
    errors = errors_of(
        workers=[1, 1, 1], addresses=lambda listening, host: listening if host else [listening[0], closed, closed]
    )
    assert re.findall(r"host 0 at \S+ cannot reach host (\d) at (\S+): ", errors[0]) == [("1", closed), ("2", closed)]


def test_an_address_of_another_job_is_named():
    """What listens there now is somebody else's server."""
    with standing(workers=[1], consistency="async", schedule=MODES["async"]["schedule"]) as other:
        [elsewhere] = other.run.addresses
        errors = errors_of(
            workers=[1, 1],
            job_id="mine",
            addresses=lambda listening, host: listening if host else [listening[0], elsewhere],
        )
    assert re.fullmatch(
        rf"host 0 at {ADDRESS} reached another job at host 1 at {elsewhere}: expected 'mine'; found 'test'", errors[0]
    )


def test_addresses_in_the_wrong_order_are_noticed():
    """A host is asked which one it is."""
    errors = errors_of(
        workers=[1, 1, 1],
        addresses=lambda listening, host: listening if host else [listening[0], listening[2], listening[1]],
    )
    assert re.search(
        rf"host 0 at {ADDRESS} reached another host of the job at host 1 at {ADDRESS}: expected 1; found 2", errors[0]
    )


def test_a_peer_of_another_protocol_version_is_named_before_the_first_step(monkeypatch):
    """It says so itself; no firewall is suspected."""
    monkeypatch.setattr(peers, "PROTOCOL_VERSION", 2)
    errors = errors_of(workers=[1, 1])
    assert "firewall" not in errors[0]
    assert re.fullmatch(
        rf"host 0 at {ADDRESS} is not let in by host 1 at {ADDRESS}: FAILED_PRECONDITION: protocol_version: "
        r"expected 6; found 2: both sides need the same release",
        errors[0],
    )


NONSENSE = {
    "no block": (lambda message: b"\xff" + message, "expected a Block"),
    "of another job": (lambda message: message.replace(b"test", b"tset"), "job_id: expected 'test'; found 'tset'"),
    "too short": (lambda message: message[:-1], "expected a Block"),
}


@pytest.mark.faults("host that sends nonsense", how="bytes put in or changed", expected="refused by name")
@pytest.mark.parametrize("sends", ["push", "publish"])
@pytest.mark.parametrize(("spoil", "found"), NONSENSE.values(), ids=NONSENSE)
def test_a_host_that_sends_nonsense_ends_the_run(sends, spoil, found):
    """Gradients or parameters: the blocks are refused, and the error says what was wrong, and with whom."""
    with standing(workers=[1, 1], **ENDLESS, ends_well=False) as job:
        spoilt = job.run.servers[1]
        send = getattr(spoilt, sends)

        def send_spoilt(*arguments):
            *to, make = arguments
            send(*to, lambda: [spoil(b"".join(make()))])

        setattr(spoilt, sends, send_spoilt)
    check(job, 0, 1)
    assert found in job.run.result.error


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_block_that_comes_twice_is_not_summed_twice(mode):
    """It ends the run: no host sends one again."""
    with standing(workers=[1, 1], **ENDLESS, ends_well=False, **mode) as job:
        twice = job.run.servers[1]
        push = twice.push

        def push_twice(owner, urgency, make):
            push(owner, urgency, make)
            push(owner, urgency, make)

        twice.push = push_twice
    again = r"begin, end: expected a block that is new in step \d+.*; found \[\d+, \d+\) again"
    over = r"step: expected \d+; found \d+"  # where the step was summed in between
    assert re.search(f"{again}|{over}", job.run.result.error)


def test_a_host_that_answers_nonsense_ends_the_run():
    """An answer to a push that nobody made, in async."""
    with standing(workers=[1, 1], **ENDLESS, ends_well=False, **MODES["async"]) as job:
        job.run.servers[0].answer(1, 7, 7)
    assert "step, part_begin: host 0 answered (7, 7), which waits for no answer" in job.run.result.error


def test_a_mistake_of_ours_in_a_thread_that_listens_is_told():
    """It is not a thread that dies in silence while all others wait."""

    def broken(version, index):
        raise ZeroDivisionError("boom")

    with standing(workers=[1, 1], **ENDLESS, ends_well=False) as job:
        job.run.servers[1].room_for_parameters = broken
    check(job, 0, 1)
    assert "ZeroDivisionError (follow): boom" in job.run.result.error


@pytest.mark.faults("server raises", how="monkeypatch", expected="failed on all hosts, named")
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("broken", slow_but([0, 1, 2], 1))
def test_a_mistake_of_ours_in_a_server_ends_the_run_on_all_hosts(broken, mode, capfd):
    """The lead tells what it was, and whose; no host waits until it would miss another."""

    def divide(event):
        raise ZeroDivisionError("boom")

    patient = {"block": CHUNK, "patience_s": 600.0}
    options = {"model": WIDE, "steps": STEPS, "step": 3, "of_server": patient, **mode}
    with standing(workers=[1, 1, 1], ends_well=False, **options) as job:
        job.run.servers[broken]._flow.on_part = divide
    run = job.run
    for host in (0, broken):
        error = run.results[host].error
        assert re.fullmatch(
            rf"the server of host {broken} at {ADDRESS} broke at step \d+, with shard \[\d+, \d+\): "
            r"ZeroDivisionError: boom \(test_lost_hosts.py, line \d+\). This is a mistake in Thalweg, not in the job; "
            r"the traceback is in the log of that process.",
            error,
        ), error
    assert run.server_errors == []
    assert capfd.readouterr().err.count("Traceback") == 1


def test_the_step_is_named_where_a_round_has_ten():
    """Not the number of the round."""
    options = ENDLESS | {"step": 20, "local_steps": 10}
    with standing(workers=[1, 1], ends_well=False, **options) as job:
        cut = job.run.servers[1]
        cut.push = lambda owner, urgency, make: cut._peers.gradients[owner].put(urgency, lambda: [b"nonsense"])
    [step] = re.findall("is gone at step (\\d+),", job.run.result.error)
    assert step in ("10", "20", "30")


@pytest.mark.faults("host stood still for 1,000 s", how="its clock", expected="nobody lost, the run ends well")
def test_a_machine_that_stood_still_does_not_take_others_for_silent(monkeypatch):
    """The clock jumps for a host that was suspended: what others said meanwhile is still to be read."""
    offset_s = 0.0
    monkeypatch.setattr(server, "perf_counter", lambda: perf_counter() + offset_s)
    with standing(workers=[1, 1, 1], model=WIDE, step=3):
        offset_s = 1000.0
