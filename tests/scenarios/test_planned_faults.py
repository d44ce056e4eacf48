"""`thalweg train --faults` on real Ray: processes that die at a named point, and runs that end in the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from thalweg_cluster.checkpoints import FileStore, newest
from thalweg_proto.faults import Fault, Plan, PlannedFaults

pytestmark = pytest.mark.slow

JOB = ("train.steps=120", "checkpoint.every_steps=20", "cluster.max_failures=-1")
SERVED = (*JOB, "train.local_steps=2")  # on one host, and yet the server has its part in every step
AGAIN = Fault(do="delay", at="push.acknowledged", step=50, seconds=0.001)
"""It fires when step 50 is over: how long that took after a kill in step 50 is how long the run needed to go on."""


def write(folder: Path, *faults: Fault) -> PlannedFaults:
    """The plan as a file, folder / "plan.toml"; and as it will be of the run in folder / "out"."""
    lines, default = [], vars(Fault(do="", at=""))
    for fault in faults:
        given = {key: value for key, value in vars(fault).items() if value != default[key]}
        lines += ["[[fault]]", *(f"{key} = {json.dumps(value)}" for key, value in given.items())]
    (folder / "plan.toml").write_text("\n".join(lines))
    return PlannedFaults(Plan(faults=faults), folder / "out" / "faults.jsonl")


@pytest.fixture
def same(train, undisturbed, tmp_path) -> Callable[..., float]:
    """`same(JOB, fault, ...)` runs a job to the bits that it has without these faults, all of which fire; how many
    seconds lie between the first and the last. `restarts`: those of the summary, where they are to be these."""

    def run(job: tuple[str, ...], *faults: Fault, restarts: dict[str, int] | None = None) -> float:
        expected = undisturbed(*job)
        planned = write(tmp_path, *faults)
        done = train(*job, f"--faults={tmp_path / 'plan.toml'}")
        assert done.status == 0, done.output
        assert done.summary["faults"] == planned.report()
        assert all(told["fired"] for told in planned.report()), planned.report()
        assert f"{len(faults)} of {len(faults)} planned faults fired" in done.output
        assert done.summary["weights_sha256"] == expected
        assert restarts in (None, done.summary["restarts"])
        fired = [json.loads(line)["at_s"] for line in planned.record.read_text().splitlines()]
        return fired[-1] - fired[0]

    return run


AT_PUSH = ["push.before", "push.after", "push.acknowledged"]


@pytest.mark.faults("worker killed, {id}", how="plan: SIGKILL itself in step 50", expected="=bits")
@pytest.mark.parametrize("point", ["gradient.before", "gradient.after", *AT_PUSH[:2], "apply.middle"])
def test_a_worker_that_dies_in_a_step_leaves_no_trace(point, same, row):
    """Whether its gradients were computed or not, announced or not, or were being summed."""
    row.found("=bits", recovery_s=same(JOB, Fault(do="kill", at=point, worker=1, step=50), AGAIN))


@pytest.mark.faults("worker killed, {id}", how="plan: SIGKILL itself in step 50", expected="=bits")
@pytest.mark.parametrize("point", ["push.acknowledged", "publish.before", "publish.middle", "publish.after"])
def test_a_worker_that_dies_around_a_version_leaves_no_trace(point, same):
    """Of whoever publishes, the last to push, it is not known before which one it is."""
    same(JOB, Fault(do="kill", at=point, step=50))


@pytest.mark.faults("all workers killed together", how="plan: SIGKILL themselves in step 50", expected="=bits")
def test_all_workers_die_at_once(same, row):
    """Each before it has pushed."""
    kills = [Fault(do="kill", at="push.before", worker=rank, step=50) for rank in (0, 1)]
    row.found("=bits", recovery_s=same(JOB, *kills, AGAIN))


@pytest.mark.faults("worker killed in local steps", how="plan: SIGKILL itself in step 51", expected="=bits")
def test_a_worker_that_dies_in_local_steps_leaves_no_trace(same, row):
    """In the second step of a round: another one makes the round again, and nothing else is started anew."""
    again = Fault(do="delay", at="push.acknowledged", step=25, seconds=0.001)
    kill = Fault(do="kill", at="gradient.after", worker=1, step=51)
    row.found("=bits", recovery_s=same(SERVED, kill, again, restarts={"worker": 1, "server": 0}))


@pytest.mark.faults("server killed, {id}", how="plan: SIGKILL itself in the middle of a step", expected="=bits")
@pytest.mark.parametrize("point", ["apply.middle", "publish.middle"])
def test_a_server_that_dies_in_a_step_leaves_no_trace(point, same, row):
    """A version is never torn: the run goes on from the newest checkpoint."""
    again = Fault(do="delay", at="push.acknowledged", step=25, seconds=0.001)
    row.found("=bits", recovery_s=same(SERVED, Fault(do="kill", at=point, server=0, step=25), again))


@pytest.mark.faults("killed at each write and rename of a checkpoint", how="plan: SIGKILL itself", expected="=bits")
def test_a_server_that_dies_at_any_point_of_a_checkpoint_leaves_no_trace(same, tmp_path):
    """Six times in one run; the one before loads, and no left-over stays."""
    points = [f"{kind}.{act}" for kind in ("shard", "manifest") for act in ("write", "rename", "written")]
    same(JOB, *[Fault(do="kill", at=point, server=0) for point in points])
    folder = tmp_path / "out" / "checkpoints"
    checkpoint, refused = newest(FileStore(folder))
    assert (checkpoint.manifest.step, refused) == (120, [])
    assert not list(folder.glob("*/.*"))


@pytest.mark.faults("bit flipped in a checkpoint as it is written", how="plan: {id}", expected="refused by name, =bits")
@pytest.mark.parametrize("point", ["shard.written", "manifest.written"])
def test_a_checkpoint_that_was_spoilt_is_not_gone_on_from(point, train, undisturbed, tmp_path):
    """Of two, the newer is spoilt, and then the server dies: the run goes on from the older.

    A checkpoint that falls due while the one before is being written is left out: there is time to write each.
    """
    expected = undisturbed(*JOB)
    write(
        tmp_path,
        *[Fault(do="delay", at="push.acknowledged", step=due - 1, seconds=1.0) for due in (40, 60, 80)],
        Fault(do="corrupt", at=point, server=0, step=60),
        Fault(do="kill", at="shard.write", server=0, step=80),
    )
    run = train(*JOB, f"--faults={tmp_path / 'plan.toml'}")
    assert run.status == 0, run.output
    assert "warning not used: checkpoint_000060: " in run.output
    assert "going on after step 40 of 120" in run.output
    assert run.summary["weights_sha256"] == expected


@pytest.mark.faults("gradient becomes NaN, with a job", how="plan: gradient.after", expected="failed, nothing repeated")
def test_a_nan_ends_the_run(train, tmp_path):
    """Exit status 1, the step and the tensor named; it is no failure that new processes would mend."""
    write(tmp_path, Fault(do="nan", at="gradient.after", worker=1, step=50))
    run = train(*JOB, f"--faults={tmp_path / 'plan.toml'}")
    assert run.status == 1, run.output
    assert run.summary["error"].startswith("step 50: the gradient of 'hidden1.bias' is nan at (0,)")
    assert (run.summary["steps"], run.summary["restarts"]) == (50, {"worker": 0, "server": 0})


@pytest.mark.faults("user's model raises", how="plan: gradient.before", expected="failed, worker and exception named")
def test_an_exception_of_a_model_ends_the_run(train, tmp_path):
    """What was raised is told, and nothing is started again."""
    write(tmp_path, Fault(do="raise", at="gradient.before", worker=1, step=50))
    run = train(*JOB, f"--faults={tmp_path / 'plan.toml'}")
    assert run.status == 1, run.output
    assert run.summary["error"].startswith("worker 1 failed after 50 steps: ")
    assert "FaultError: planned: raise at gradient.before, worker 1, step 50" in run.summary["error"]


@pytest.mark.faults(
    "worker paused past its lease, then continued", how="plan: SIGSTOP for 20 s", expected="fenced, =bits"
)
def test_a_worker_that_stands_still_is_replaced(same):
    """It is ended for good before it would wake up."""
    same((*JOB, "cluster.lease_s=0.5"), Fault(do="pause", at="push.before", worker=1, step=50, seconds=20.0))


@pytest.mark.faults(
    "worker stalls in the middle of a microbatch",
    how="plan: 20 s at gradient.after",
    expected="a copy wins, =bits",
)
def test_a_worker_that_stalls_in_a_microbatch_is_not_waited_for(train, undisturbed, tmp_path, row):
    """Another one computes it, too, and all other steps with it, before the first one is done; nobody is replaced."""
    expected = undisturbed(*JOB)
    stall = Fault(do="delay", at="gradient.after", worker=1, step=50, seconds=20.0)
    planned = write(tmp_path, stall, AGAIN)
    run = train(*JOB, f"--faults={tmp_path / 'plan.toml'}")
    assert run.status == 0, run.output
    assert all(told["fired"] for told in planned.report()), planned.report()
    assert run.summary["weights_sha256"] == expected
    assert run.summary["copies"]["given"] == run.summary["copies"]["won"] > 0
    assert run.summary["restarts"] == {"worker": 0, "server": 0}
    assert run.summary["train_s"] < stall.seconds
    begun, over = [json.loads(line)["at_s"] for line in planned.record.read_text().splitlines()]
    row.found("a copy won, =bits", recovery_s=over - begun)


@pytest.mark.faults("server paused, then continued", how="plan: SIGSTOP for 3 s, {id}", expected="applied once, =bits")
@pytest.mark.parametrize("point", ["apply.middle", "publish.middle"])
def test_a_server_that_stands_still_goes_on(point, train, undisturbed, tmp_path):
    """Nobody dies of it, and nothing is applied twice or started again."""
    expected = undisturbed(*SERVED)
    planned = write(tmp_path, Fault(do="pause", at=point, server=0, step=25, seconds=3.0))
    run = train(*SERVED, f"--faults={tmp_path / 'plan.toml'}")
    assert run.status == 0, run.output
    assert [told["fired"] for told in planned.report()] == [True]
    assert run.summary["weights_sha256"] == expected
    assert (run.summary["restarts"], run.summary["duplicates"]) == ({"worker": 0, "server": 0}, 0)
    assert run.summary["train_s"] > 3.0


def test_what_did_not_fire_is_told(train, resume, tmp_path):
    """In the summary and at the end; a fault of a step that is yet to come fires when the run is resumed with the plan,
    and one that fired does not again."""
    planned = write(
        tmp_path,
        Fault(do="delay", at="push.before", worker=0, step=5, seconds=0.01),
        Fault(do="delay", at="push.before", worker=0, step=30, seconds=0.01),
    )
    option = f"--faults={tmp_path / 'plan.toml'}"
    run = train("train.steps=20", option)
    assert [told["fired"] for told in run.summary["faults"]] == [True, False]
    assert (
        "1 of 2 planned faults fired\ndid not fire delay at push.before, worker 0, step 30, seconds 0.01" in run.output
    )
    resumed = resume(run.folder, "train.steps=40", option)
    assert [told["fired"] for told in resumed.summary["faults"]] == [True, True]
    assert len(planned.record.read_text().splitlines()) == 2
    again = train("train.steps=20", option)
    assert [told["fired"] for told in again.summary["faults"]] == [True, False], "a new run in the folder begins anew"
