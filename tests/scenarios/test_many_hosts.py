"""`thalweg train` on a real Ray cluster of several hosts: network namespaces, each with a /dev/shm of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from tests.hosts.needs import needs_hosts
from tests.hosts.network import Hosts
from tests.hosts.ray_hosts import RayHosts
from tests.scenarios.conftest import DIGITS, Finished

pytestmark = needs_hosts

# 64 x 256 + 256 x 128 + 128 x 10 weights: seven chunks, so that each of three hosts owns some.
JOB = DIGITS.replace("hidden = [32]", "hidden = [256, 128]")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(3) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def train(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Finished]]:
    """`train("train.steps=3", ...)` on the first of three hosts of two CPUs."""
    with RayHosts(hosts, cpus=2) as cluster:

        def train(*changes: str) -> Finished:
            folder = tmp_path_factory.mktemp("run")
            (folder / "job.toml").write_text(JOB)
            given = [word for change in changes for word in ("--set", change)]
            ended = hosts[0].run(
                [sys.executable, "-m", "thalweg_cluster.cli", "train", "job.toml", *given, "--out", str(folder)],
                cwd=folder,
                env=cluster.environment,
                check=False,
                timeout_s=120.0,
            )
            return Finished(ended.returncode, ended.stdout + ended.stderr, folder)

        yield train


def shape(run: Finished) -> tuple[int, int, int, int]:
    summary = run.summary
    return run.status, summary["hosts"], summary["servers"], summary["workers"]


def test_one_two_and_three_hosts_give_the_same_weights(train):
    """One weights_sha256 for 1 to 4 workers on 1 to 3 hosts, and with the only server on a host of its own."""
    runs = [
        train("cluster.workers=1"),
        train("cluster.workers=2", "cluster.placement=SPREAD"),
        train("cluster.workers=4", "cluster.placement=SPREAD"),
        train("cluster.workers=2", "cluster.servers=1"),
    ]
    assert [shape(run) for run in runs] == [(0, 1, 1, 1), (0, 2, 2, 2), (0, 3, 3, 4), (0, 2, 1, 2)], runs[-1].output
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
    assert len({run.summary["eval"]["loss"] for run in runs}) == 1
    assert len({(run.folder / "weights.safetensors").read_bytes() for run in runs}) == 1


def test_more_servers_than_free_hosts_are_refused(train):
    """The answer says how many there are, and nothing runs."""
    run = train("cluster.workers=4", "cluster.placement=SPREAD", "cluster.servers=1")
    assert run.status == 2
    assert "cluster.servers: expected at most 0, the nodes without workers; found 1" in run.output


def test_a_firewall_between_two_hosts_is_named_before_the_first_step(train, hosts):
    """With both addresses, and what may be the matter; the run fails, and nothing hangs."""
    hosts.block(hosts[1], hosts[2])
    try:
        run = train("cluster.workers=3", "cluster.placement=SPREAD")
    finally:
        hosts.unblock(hosts[1], hosts[2])
    assert run.status == 1
    error = run.summary["error"]
    assert f"{hosts[1].address}:" in error, error
    assert f"{hosts[2].address}:" in error, error
    assert "firewall" in error
    assert run.summary["steps"] == 0
