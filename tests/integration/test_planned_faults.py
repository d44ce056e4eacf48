"""What is planned to go wrong between hosts and in steps does, and what comes of it; in one process, without Ray."""

from __future__ import annotations

import re
import time
from time import monotonic

import pytest
from tests.integration.local_run import Engine, planned, start_locally, train_locally

from thalweg_cluster.hosts import server
from thalweg_proto.faults import Fault
from thalweg_proto.shared_memory import CHUNK

WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
HOSTS = {"workers": [1, 1], "model": WIDE, "steps": 12, "of_server": {"block": CHUNK}}
ONE_HOST = {"workers": 2, "steps": 12}
TIMEOUT_S = 30.0
STOP_S = 1.0
IN_A_STEP = ["rpc.push.request", "rpc.pull.reply"]  # in sync, what carries tensors
WORDS = ["rpc.attend.request", "rpc.attend.reply"]
PLAN = "plan: {id}"


@pytest.fixture(scope="module")
def undisturbed() -> dict[bool, str]:
    """weights_sha256 of the job where nothing happens: on several hosts, and on one."""
    return {True: train_locally(**HOSTS).result.weights_sha256, False: train_locally(**ONE_HOST).result.weights_sha256}


def check_same(run, faults, bits: str) -> None:
    assert (run.result.error, run.worker_errors) == (None, [])
    assert [fault["fired"] for fault in faults.report()] == [True] * len(faults.plan.faults)
    assert run.result.weights_sha256 == bits


@pytest.mark.faults("message between hosts 200 ms late, give or take 100 ms, 3 times", how=PLAN, expected="=bits")
@pytest.mark.parametrize("point", [*IN_A_STEP, *WORDS])
def test_late_messages_change_no_bit(point, undisturbed, tmp_path):
    """Whichever stream they are on; both hosts' may be late."""
    faults = planned(tmp_path, *[Fault(do="delay", at=point, seconds=0.2, jitter=0.1)] * 3, seed=1)
    check_same(train_locally(**HOSTS, faults=faults), faults, undisturbed[True])


@pytest.mark.faults("message between hosts heard or said twice", how=PLAN, expected="=bits")
@pytest.mark.parametrize("point", ["rpc.pull.reply", *WORDS])
def test_doubled_parameters_and_words_change_no_bit(point, undisturbed, tmp_path):
    """The first of each kind: the run does not begin twice."""
    faults = planned(tmp_path, Fault(do="double", at=point))
    check_same(train_locally(**HOSTS, faults=faults), faults, undisturbed[True])


@pytest.mark.faults("block of a gradient sent twice between hosts", how=PLAN, expected="applied once")
@pytest.mark.parametrize("mode", [{}, {"consistency": "async"}], ids=["rpc.push.request", "rpc.push.request, async"])
def test_a_doubled_gradient_is_not_summed_twice(mode, row, tmp_path):
    """It ends the run, by name: no host sends one again, so that one is a mistake."""
    faults = planned(tmp_path, Fault(do="double", at="rpc.push.request", step=5))
    run = train_locally(**HOSTS, **mode, faults=faults)
    assert re.search(
        r"step: expected 6; found 5|expected a block that is new in step 5.*; found .* again", run.result.error
    )
    assert run.result.steps <= 5
    row.found("refused by name, and the run fails")


@pytest.mark.faults("message between hosts lost on a stream that goes on", how=PLAN, expected="=bits")
@pytest.mark.parametrize("point", IN_A_STEP)
def test_a_lost_block_stops_the_run_until_somebody_does(point, row, monkeypatch, tmp_path):
    """gRPC loses nothing on a stream that goes on: so nothing is sent again, and there is no deadline of a step. The
    version that is there stays whole, and the run ends when it is asked to, though it cannot finish a step."""
    monkeypatch.setattr(server, "STOP_S", STOP_S)
    faults = planned(tmp_path, Fault(do="drop", at=point, step=5))
    run = start_locally(**HOSTS, faults=faults)
    until = monotonic() + TIMEOUT_S
    while not faults.report()[0]["fired"]:
        assert monotonic() < until, "it never fired"
    began = monotonic()
    run.servers[0].stop()
    run.join()
    assert monotonic() - began > 0.9 * STOP_S, "it did not stand still"
    assert (run.result.error, run.result.cancelled, run.worker_errors) == (None, True, [])
    assert run.result.steps < 12
    row.found("the run stands still until it is stopped; nothing torn")


SPOILT = [(point, byte) for point in IN_A_STEP for byte in (0, 6)]  # the tag of the header; its job_id


@pytest.mark.faults("bit flipped in the header of a message between hosts", how=PLAN, expected="refused by name")
@pytest.mark.parametrize(("point", "byte"), SPOILT, ids=[f"{point}, byte {byte}" for point, byte in SPOILT])
def test_a_spoilt_message_is_refused_by_name(point, byte, tmp_path):
    """The run fails, and says which host, which stream and what was wrong."""
    faults = planned(tmp_path, Fault(do="corrupt", at=point, step=5, byte=byte))
    run = train_locally(**HOSTS, faults=faults)
    expected = r"host \d at \S+ is gone at step \d+, with shard \[\d+, \d+\): .*expected"
    assert re.match(expected, run.result.error), run.result.error


@pytest.mark.faults("bit flipped in the numbers of a message between hosts, behind TLS", how=PLAN, expected="refused")
@pytest.mark.parametrize("point", ["rpc.push.request"])
def test_a_spoilt_number_is_not_noticed(point, undisturbed, row, tmp_path):
    """Blocks have no sum of their own: on the wire TLS guards them, in memory nothing does."""
    faults = planned(tmp_path, Fault(do="corrupt", at=point, step=1))
    run = train_locally(**HOSTS, faults=faults)
    assert run.result.error is None
    assert run.result.weights_sha256 != undisturbed[True]
    row.found("not noticed: other bits")


@pytest.mark.faults("gradient becomes NaN, {id}", how="plan: gradient.after", expected="failed, step and tensor named")
@pytest.mark.parametrize("job", [ONE_HOST, HOSTS], ids=["one host", "two hosts"])
def test_a_nan_stops_the_run_and_is_not_published(job, tmp_path):
    """The version before it is the last."""
    faults = planned(tmp_path, Fault(do="nan", at="gradient.after", worker=1, step=5))
    run = train_locally(**job, faults=faults)
    assert re.match(r"step 5: the (gradient|update) of '\w+\.\w+' is nan at", run.result.error)
    assert run.result.steps == 5
    assert faults.report()[0]["by"] == "worker 1"


OWN_POINTS = [f"{act}.{when}" for act in ("apply", "publish") for when in ("before", "middle", "after")]
OWN_POINTS += ["gradient.before", "gradient.after", "push.before", "push.after", "push.acknowledged"]


@pytest.mark.faults("worker or server 100 ms late, {id}", how="plan: each point of a step", expected="=bits")
@pytest.mark.parametrize("job", [ONE_HOST, HOSTS], ids=["one host", "two hosts"])
def test_every_point_of_a_step_is_come_to(job, undisturbed, tmp_path):
    """Once each, in the step that the plan says; and whoever is late there changes no bit."""
    faults = planned(tmp_path, *[Fault(do="delay", at=point, step=5, seconds=0.1) for point in OWN_POINTS])
    check_same(train_locally(**job, faults=faults), faults, undisturbed["of_server" in job])
    assert {told["step"] for told in faults.report()} == {5}


@pytest.mark.parametrize("consistency", ["ssp", "async"])
def test_points_of_a_step_without_a_barrier(consistency, tmp_path):
    """All but the middles, which there are none of: each gradient is applied by itself, and shown at once."""
    points = [point for point in OWN_POINTS if not point.endswith(".middle")]
    faults = planned(tmp_path, *[Fault(do="delay", at=point, step=5, seconds=0.01) for point in points])
    gentle = {"name": "constant", "learning_rate": 1e-4, "warmup_steps": 0}
    mode = {"consistency": consistency, "staleness": 2 if consistency == "ssp" else None, "schedule": gentle}
    run = train_locally(**HOSTS, **mode, faults=faults)
    assert (run.result.error, run.worker_errors) == (None, [])
    assert all(told["fired"] for told in faults.report()), faults.report()


@pytest.mark.parametrize("workers", [2, [1, 1]])
def test_every_point_of_a_checkpoint_is_come_to(workers, undisturbed, tmp_path):
    """With the steps before it as its step."""
    points = [f"{kind}.{act}" for kind in ("shard", "manifest") for act in ("write", "rename", "written")]
    faults = planned(tmp_path, *[Fault(do="delay", at=point, step=12, seconds=0.01) for point in points])
    job = HOSTS if workers == [1, 1] else ONE_HOST
    run = train_locally(**job, faults=faults, save=tmp_path / "checkpoints")
    check_same(run, faults, undisturbed["of_server" in job])


@pytest.mark.faults("wall clock set back and forward an hour", how="time.time jumps", expected="=bits, nobody lost")
def test_the_wall_clock_makes_nobody_late(undisturbed, monkeypatch):
    """In the middle of a run; the hosts' patience is of the monotonic clock."""
    real, hours = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)

    class SetsTheClock(Engine):
        def before(self, step, microbatch):
            nonlocal hours
            hours = {3: -1.0, 7: 1.0}.get(step, hours)

    of_server = {"block": CHUNK, "patience_s": 3.0}
    run = train_locally(**HOSTS | {"of_server": of_server}, engine=SetsTheClock)
    assert (run.result.error, run.worker_errors, hours) == (None, [], 1.0)
    assert run.result.weights_sha256 == undisturbed[True]
