"""What is planned to go wrong between hosts and in steps does, and what comes of it; in one process, without Ray."""

from __future__ import annotations

import re
import time

import pytest
from tests.integration.local_run import Engine, planned, train_locally
from tests.tiers import slow_but

from thalweg_cluster.server.speculation import Speculation
from thalweg_proto.faults import Fault
from thalweg_proto.shared_memory import CHUNK

WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
STEPS, LONG = 12, 60
HOSTS = {"workers": [1, 1], "model": WIDE, "steps": STEPS, "of_server": {"block": CHUNK}}
ONE_HOST = {"workers": 2, "steps": STEPS}
GENTLE = {"name": "constant", "learning_rate": 1e-4, "warmup_steps": 0}
ACTS = ["drop", "double", "corrupt"]
TENSORS = ["rpc.push.request", "rpc.follow.reply"]
WORDS = ["rpc.attend.request", "rpc.attend.reply"]
PROGRESS = ["rpc.push.reply", "rpc.follow.request"]  # in sync nothing else is said there
POINTS = [*TENSORS, *WORDS, *PROGRESS]
LONGER = dict.fromkeys(POINTS, HOSTS) | dict.fromkeys(PROGRESS, HOSTS | {"steps": LONG})  # some words in 16 blocks
PLAN = "plan: {id}"


@pytest.fixture(scope="module")
def undisturbed() -> dict[int, str]:
    """weights_sha256 of the job where nothing happens, by its number of steps; on one host: None."""
    found = {steps: train_locally(**HOSTS | {"steps": steps}).result.weights_sha256 for steps in (STEPS, LONG)}
    return found | {None: train_locally(**ONE_HOST).result.weights_sha256}


def check_same(run, faults, bits: str) -> None:
    assert (run.result.error, run.worker_errors) == (None, [])
    assert [fault["fired"] for fault in faults.report()] == [True] * len(faults.plan.faults)
    assert run.result.weights_sha256 == bits


def amiss(run, how: str) -> int:
    """How many messages came to all hosts again ("repeated"), "spoilt", or "missing"."""
    return sum(wire.counts[f"messages_{how}"] for wire in run.servers[0].account.telemetry.wire.values())


@pytest.mark.faults("message between hosts 200 ms late, give or take 100 ms, 3 times", how=PLAN, expected="=bits")
@pytest.mark.parametrize("point", slow_but(POINTS, 0, 3))
def test_late_messages_change_no_bit(point, undisturbed, tmp_path):
    """Whichever stream they are on; both hosts' may be late."""
    faults = planned(tmp_path, *[Fault(do="delay", at=point, seconds=0.2, jitter=0.1)] * 3, seed=1)
    check_same(train_locally(**LONGER[point], faults=faults), faults, undisturbed[LONGER[point]["steps"]])


@pytest.mark.faults("message between hosts lost, {id}", how="plan: drop", expected="sent again, =bits")
@pytest.mark.parametrize("point", slow_but(POINTS, 0, 3))
def test_a_lost_message_is_sent_again(point, undisturbed, tmp_path):
    """A request or a reply: the first, and three more."""
    faults = planned(tmp_path, *[Fault(do="drop", at=point)] * 4)
    run = train_locally(**LONGER[point], faults=faults)
    check_same(run, faults, undisturbed[LONGER[point]["steps"]])
    if point not in PROGRESS:  # there the beat says it again, and nobody needs to ask
        assert amiss(run, "missing") > 0


@pytest.mark.faults("message between hosts said or heard twice, {id}", how="plan: double", expected="taken once, =bits")
@pytest.mark.parametrize("point", slow_but(POINTS, 0, 3))
def test_a_doubled_message_is_taken_in_once(point, undisturbed, tmp_path):
    """Counted as a duplicate, and nothing more: no gradient is summed twice, no run begins twice."""
    faults = planned(tmp_path, *[Fault(do="double", at=point)] * 2)
    run = train_locally(**LONGER[point], faults=faults)
    check_same(run, faults, undisturbed[LONGER[point]["steps"]])
    if point not in PROGRESS:  # what says how far a stream is has no number, and may be said again
        assert amiss(run, "repeated") == run.result.duplicates == 2


NAME = 6
"""A byte in the header of a block. Its data are guarded by TLS alone."""
BYTES = {"tag": 0, "name": NAME, "number": -12, "checksum": -1}


@pytest.mark.faults("bit flipped in a message between hosts, {id}", how="plan: corrupt", expected="sent again, =bits")
@pytest.mark.parametrize("point", slow_but(POINTS, 0, 3))
def test_a_spoilt_message_is_not_taken_in_but_sent_again(point, undisturbed, tmp_path):
    """Wherever the bit is: in what says what the message is, in its number, in its checksum."""
    faults = planned(tmp_path, *[Fault(do="corrupt", at=point, byte=byte) for byte in BYTES.values()])
    run = train_locally(**LONGER[point], faults=faults)
    check_same(run, faults, undisturbed[LONGER[point]["steps"]])
    assert amiss(run, "spoilt") == len(BYTES)


def acting(do: str, **where: object) -> Fault:
    """A fault; what is spoilt is a name."""
    return Fault(do=do, **where, **({"byte": NAME} if do == "corrupt" else {}))


@pytest.mark.faults("gradient and parameters lost, doubled, spoilt at once", how="plan: {id}", expected="=bits")
@pytest.mark.parametrize("hosts", [2, 3], ids=["two hosts", "three hosts"])
def test_everything_at_once_changes_no_bit(hosts, undisturbed, tmp_path):
    """On all hosts, in the middle of the run and in its last step."""
    acts = [acting(do, at=point, step=step) for do in ACTS for point in TENSORS for step in (5, 11)]
    job = HOSTS | {"workers": [1] * hosts}
    faults = planned(tmp_path, *acts)
    check_same(train_locally(**job, faults=faults), faults, undisturbed[STEPS])


@pytest.mark.faults(
    "message lost, doubled or spoilt where nobody waits", how="plan: {id}", expected="the run ends well"
)
@pytest.mark.parametrize("consistency", ["ssp", "async"])
def test_messages_are_taken_in_once_where_nobody_waits(consistency, tmp_path):
    """Gradients, what is answered to them, and parameters that are fetched; each microbatch counts once."""
    acts = [acting(do, at=point) for do in ACTS for point in ("rpc.push.request", "rpc.push.reply", "rpc.pull.reply")]
    faults = planned(tmp_path, *acts)
    mode = {"consistency": consistency, "staleness": 2 if consistency == "ssp" else None, "schedule": GENTLE}
    run = train_locally(**HOSTS, **mode, faults=faults)
    assert (run.result.error, run.worker_errors) == (None, [])
    assert all(told["fired"] for told in faults.report()), faults.report()
    assert run.result.steps == STEPS
    assert run.results[0].weights_sha256 == run.results[1].weights_sha256
    assert min(amiss(run, how) for how in ("missing", "repeated", "spoilt")) > 0


@pytest.mark.faults("message between hosts spoilt each time", how="plan: corrupt", expected="failed, host named")
def test_a_message_that_never_comes_whole_ends_the_run(tmp_path):
    """With the host, the stream, what was expected and found; after it was asked for so often."""
    faults = planned(tmp_path, *[acting("corrupt", at="rpc.follow.reply", server=1)] * 100)
    run = train_locally(**HOSTS, faults=faults)
    expected = (
        r"host 0 at \S+ is gone at step \d+, with shard \[0, \d+\): INVALID_ARGUMENT \(follow\): number: expected \d+; "
        r"asked for it 10 times, and it did not come: checksum: expected \w{16}; found \w{16} of \d+ bytes "
        r"\(noticed by host 1 at \S+\)"
    )
    assert re.fullmatch(expected, run.result.error), run.result.error


@pytest.mark.faults("gradient becomes NaN, {id}", how="plan: gradient.after", expected="failed, step and tensor named")
@pytest.mark.parametrize("job", [ONE_HOST, HOSTS], ids=["one host", "two hosts"])
def test_a_nan_stops_the_run_and_is_not_published(job, tmp_path, monkeypatch):
    """The version before it is the last. Whoever comes to a gradient of the step first: the machine may keep any one
    worker from all of them."""
    monkeypatch.setattr(Speculation, "stragglers", lambda *_: set())  # nor is another's gradient used in its place
    faults = planned(tmp_path, Fault(do="nan", at="gradient.after", step=5))
    run = train_locally(**job, faults=faults)
    assert re.match(r"step 5: the (gradient|update) of '\w+\.\w+' is nan at", run.result.error)
    assert run.result.steps == 5
    assert faults.report()[0]["by"].startswith("worker ")


OWN_POINTS = [f"{act}.{when}" for act in ("apply", "publish") for when in ("before", "middle", "after")]
OWN_POINTS += ["gradient.before", "gradient.after", "push.before", "push.after", "push.acknowledged"]


@pytest.mark.faults("worker or server 100 ms late, {id}", how="plan: each point of a step", expected="=bits")
@pytest.mark.parametrize("job", [ONE_HOST, HOSTS], ids=["one host", "two hosts"])
def test_every_point_of_a_step_is_come_to(job, undisturbed, tmp_path):
    """Once each, in the step that the plan says; and whoever is late there changes no bit."""
    faults = planned(tmp_path, *[Fault(do="delay", at=point, step=5, seconds=0.1) for point in OWN_POINTS])
    check_same(train_locally(**job, faults=faults), faults, undisturbed[STEPS if "of_server" in job else None])
    assert {told["step"] for told in faults.report()} == {5}


@pytest.mark.parametrize("consistency", ["ssp", "async"])
def test_points_of_a_step_without_a_barrier(consistency, tmp_path):
    """All but the middles, which there are none of: each gradient is applied by itself, and shown at once."""
    points = [point for point in OWN_POINTS if not point.endswith(".middle")]
    faults = planned(tmp_path, *[Fault(do="delay", at=point, step=5, seconds=0.01) for point in points])
    mode = {"consistency": consistency, "staleness": 2 if consistency == "ssp" else None, "schedule": GENTLE}
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
    check_same(run, faults, undisturbed[STEPS if "of_server" in job else None])


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
    assert run.result.weights_sha256 == undisturbed[STEPS]
