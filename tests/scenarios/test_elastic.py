"""`cluster.workers = [least, most]` on real Ray: the run grows and shrinks with the cluster, to the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.hosts.needs import needs_hosts
from tests.hosts.network import Hosts
from tests.hosts.ray_hosts import QUICK_TO_MISS_A_HOST, RayHosts
from tests.scenarios.conftest import DIGITS, ended, until
from tests.scenarios.test_busy_cluster import busy

pytestmark = pytest.mark.slow

LONG = ("train.steps=12000", "train.eval_every=0")
SLOW = ("train.steps=2500", "train.eval_every=0", "train.batch_size=512")


def test_a_run_grows_when_others_leave_the_cluster(ray_address, started, undisturbed):
    """One of at most three workers while others use three of four CPUs; three as soon as these are free."""
    with busy(ray_address):
        command = started(*LONG, "cluster.workers=[1, 3]")
    until(command, "going on after step")
    assert "there is room for more workers" in command.lines[-1]
    run = ended(command)
    assert run.status == 0, run.output
    assert (run.summary["workers"], run.summary["steps"], run.summary["error"]) == (3, 12000, None)
    assert run.summary["restarts"] == {"worker": 0, "server": 0}
    assert run.summary["weights_sha256"] == undisturbed(*LONG)
    steps = [row["step"] for row in run.rows]
    assert steps == sorted(set(steps))


@pytest.mark.faults("node of Ray removed and added", how="its host killed", expected="=bits")
@needs_hosts
def test_a_node_may_leave_and_come_back(tmp_path: Path):
    """Two hosts of one CPU; the second one dies, and is there again later: two workers, one, two, and the same bits."""
    (tmp_path / "job.toml").write_text(DIGITS.replace("[32]", "[256, 128]"))
    thalweg = [sys.executable, "-m", "thalweg_cluster.cli", "train", "job.toml"]
    sets = [word for change in SLOW for word in ("--set", change)]
    with Hosts(2) as hosts, RayHosts(hosts, cpus=1, environment=QUICK_TO_MISS_A_HOST) as cluster:
        elastic = [*thalweg, *sets, "--set", "cluster.workers=[1, 2]", "--out", "elastic"]
        with hosts[0].popen(
            elastic, cwd=tmp_path, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as command:
            command.folder, command.lines = tmp_path / "elastic", []
            until(command, "step ")
            cluster.kill(hosts[1])
            until(command, "lost ")
            until(command, "step ")
            cluster.start(hosts[1])
            until(command, "going on after step")
            assert "there is room for more workers" in command.lines[-1]
            run = ended(command)
        assert run.status == 0, run.output
        assert (run.summary["workers"], run.summary["hosts"], run.summary["error"]) == (2, 2, None)
        alone = [*thalweg, *sets, "--set", "cluster.workers=1", "--out", "alone"]
        assert hosts[0].run(alone, cwd=tmp_path, env=cluster.environment, check=False, timeout_s=120.0).returncode == 0
        one = (tmp_path / "alone" / "weights.safetensors").read_bytes()
        assert (run.folder / "weights.safetensors").read_bytes() == one
