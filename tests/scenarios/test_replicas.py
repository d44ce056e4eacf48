"""Servers of several hosts that die between checkpoints, on real Ray: the run goes on from replicas in memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.hosts.needs import needs_hosts
from tests.hosts.network import Hosts
from tests.hosts.ray_hosts import QUICK_TO_MISS_A_HOST, RayHosts
from tests.scenarios.conftest import DIGITS, Finished, actors, ended
from tests.scenarios.test_planned_faults import write

from thalweg_proto.faults import Fault

pytestmark = [pytest.mark.slow, needs_hosts]

JOB = DIGITS.replace("[32]", "[256, 128]")
STEPS = 400
ON_THREE = ("cluster.workers=3", "cluster.placement=SPREAD")
RARELY = ("train.eval_every=0", "checkpoint.every_steps=1000")
LONG = (f"train.steps={STEPS}", *RARELY, *ON_THREE)
OFTEN = "checkpoint.replicate_every_s=0.2"
AGAIN = Fault(do="delay", at="push.before", worker=0, step=201, seconds=0.001)
"""It fires in the step after that in which a server is lost: so long that one took."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(3) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def cluster(hosts: Hosts) -> Iterator[RayHosts]:
    """Ray on three hosts of one CPU, for one worker and one shard each."""
    with RayHosts(hosts, cpus=1, environment=QUICK_TO_MISS_A_HOST) as cluster:
        yield cluster


THALWEG = (sys.executable, "-m", "thalweg_cluster.cli")


def command(folder: Path, *changes: str) -> list[str]:
    """The job with changes, to be started in the folder."""
    (folder / "job.toml").write_text(JOB)
    return [*THALWEG, "train", "job.toml", *sets(*changes), "--out", "out"]


def sets(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.fixture(scope="module")
def train(hosts: Hosts, cluster: RayHosts, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """`train("train.steps=3", faults=[...])` on the first host."""

    def train(*changes: str, faults: tuple[Fault, ...] = ()) -> Finished:
        folder = tmp_path_factory.mktemp("run")
        words = command(folder, *changes)
        if faults:
            write(folder, *faults)
            words += ["--faults", "plan.toml"]
        done = hosts[0].run(words, cwd=folder, env=cluster.environment, check=False, timeout_s=200.0)
        return Finished(done.returncode, done.stdout + done.stderr, folder / "out")

    return train


@pytest.fixture(scope="module")
def expected(train: Callable[..., Finished]) -> str:
    """The bits of the run to which nothing is done, without replicas."""
    run = train(*LONG, "checkpoint.replicate_every_s=0")
    assert run.status == 0, run.output
    assert run.summary["replicas"] == {"saved": 0, "failed": 0, "skipped": 0, "step": None}
    return run.summary["weights_sha256"]


def gone_on(run: Finished) -> list[tuple[int, bool]]:
    """After which step the run went on, each time, and whether from replicas."""
    told = re.findall(r"^going on after step ([\d,]+) of [\d,]+( from replicas)? \(failure", run.output, re.MULTILINE)
    return [(int(step.replace(",", "")), bool(replicas)) for step, replicas in told]


def recovery_s(run: Finished) -> float:
    at_s = [json.loads(line)["at_s"] for line in (run.folder / "faults.jsonl").read_text().splitlines()]
    return at_s[-1] - at_s[-2]


@pytest.mark.faults("server of host {id} killed between two checkpoints", how="plan: in step 200", expected="=bits")
@pytest.mark.parametrize("host", [0, 1])
def test_a_server_that_dies_between_checkpoints_costs_the_steps_since_the_newest_replica(host, train, expected, row):
    """In step 200, where the only checkpoint would be that of step 1,000."""
    run = train(*LONG, OFTEN, faults=(Fault(do="kill", at="apply.before", server=host, step=200), AGAIN))
    assert run.status == 0, run.output
    assert [told["fired"] for told in run.summary["faults"]] == [True, True], run.output
    assert run.summary["weights_sha256"] == expected
    assert run.summary["restarts"] == {"worker": 0, "server": 1}
    [(step, from_replicas)] = gone_on(run)
    assert from_replicas, run.output
    assert 0 < step <= 200
    row.found(f"=bits, {200 - step} steps again", recovery_s=recovery_s(run))


def until_replicated(command: subprocess.Popen[str], out: Path) -> None:
    """Reads what the command prints until a replica is whole."""
    command.folder, command.lines = out, []
    record = out / "faults.jsonl"
    for line in command.stdout:
        command.lines.append(line)
        if record.exists() and record.read_text().count("replica.written") == len(WRITTEN):
            break


WRITTEN = [
    # By the lead: its shard, and then the manifest. When both have fired a replica is whole.
    Fault(do="delay", at="replica.written", server=0, seconds=0.001),
    Fault(do="delay", at="replica.written", server=0, seconds=0.002),
]
KILLED = Fault(do="kill", at="replica.written", server=0)


@pytest.mark.faults("replica spoilt, then a server killed", how="plan", expected="=bits, from the checkpoint")
def test_a_replica_that_is_spoilt_is_named_and_the_checkpoint_loads(hosts, cluster, train, expected, tmp_path):
    """The shard of host 1, as it is written; the lead dies as soon as it has written the manifest."""
    first = hosts[0].run(command(tmp_path, "train.steps=20", *RARELY, *ON_THREE), cwd=tmp_path, env=cluster.environment)
    assert first.returncode == 0
    write(tmp_path, Fault(do="corrupt", at="replica.write", server=1), WRITTEN[0], KILLED)
    words = [*THALWEG, "resume", "out", *sets(f"train.steps={STEPS}", OFTEN), "--faults", "plan.toml"]
    done = hosts[0].run(words, cwd=tmp_path, env=cluster.environment, check=False, timeout_s=200.0)
    run = Finished(done.returncode, done.stdout + done.stderr, tmp_path / "out")
    assert run.status == 0, run.output
    assert [told["fired"] for told in run.summary["faults"]] == [True] * 3, run.output
    name = r"replica checkpoint_\d+: shard_00001_of_00003\.safetensors: expected SHA-256"
    assert re.search(rf"^warning not used: {name}", " ".join(run.output.split()).replace(" warning", "\nwarning"), re.M)
    assert gone_on(run) == [(20, False)]
    assert run.summary["weights_sha256"] == expected


@pytest.mark.faults("coordinator killed between two checkpoints", how="SIGKILL", expected="=bits, from a replica")
def test_a_coordinator_that_dies_does_not_take_the_replicas_with_it(hosts, cluster, expected, tmp_path, row):
    """The one that takes its place finds the memories by their names, and ends them with the run."""
    write(tmp_path, *WRITTEN)
    words = [*command(tmp_path, *LONG, OFTEN), "--faults", "plan.toml"]
    with hosts[0].popen(
        words, cwd=tmp_path, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as command_:
        until_replicated(command_, tmp_path / "out")
        max(actors("Coordinator"), key=psutil.Process.create_time).kill()
        run = ended(command_)
    assert run.status == 0, run.output
    assert "lost the coordinator: its process died" in run.output
    [(step, from_replicas)] = gone_on(run)
    assert from_replicas, run.output
    assert step > 0
    assert run.summary["weights_sha256"] == expected
    _, alive = psutil.wait_procs(actors("MemoryActor"), timeout=60)
    assert alive == [], "they end with the run"
    row.found(f"=bits, from the replica after step {step}")


@pytest.mark.faults("all processes of one of three hosts killed", how="SIGKILL from outside", expected="=bits")
def test_a_host_that_is_lost_costs_the_steps_since_the_newest_replica(hosts, cluster, expected, tmp_path, row):
    """Its shard is on the next host; the run goes on with the two that are left."""
    write(tmp_path, *WRITTEN)
    words = [*command(tmp_path, *LONG, "cluster.workers=[2, 3]", OFTEN), "--faults", "plan.toml"]
    with hosts[0].popen(
        words, cwd=tmp_path, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as command_:
        until_replicated(command_, tmp_path / "out")
        cluster.kill(hosts[2])
        try:
            run = ended(command_)
        finally:
            cluster.start(hosts[2])
            cluster.wait(3)
    assert run.status == 0, run.output
    [(step, from_replicas)] = gone_on(run)
    assert from_replicas, run.output
    assert step > 0
    assert (run.summary["hosts"], run.summary["weights_sha256"]) == (2, expected)
    row.found(f"=bits, from the replica after step {step}")
