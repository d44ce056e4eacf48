"""`thalweg train` on a real Ray cluster of several hosts: network namespaces, each with a /dev/shm of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.hosts.needs import needs_hosts
from tests.hosts.network import Hosts
from tests.hosts.ray_hosts import RayHosts
from tests.scenarios.conftest import DIGITS, Finished
from tests.scenarios.test_planned_faults import write
from tests.scenarios.test_readme import BLOCKS

from thalweg_proto.faults import Fault

pytestmark = [pytest.mark.slow, needs_hosts]

# 64 x 256 + 256 x 128 + 128 x 10 weights: seven chunks, so that each of three hosts owns some.
JOB = DIGITS.replace("hidden = [32]", "hidden = [256, 128]")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(3) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def cluster(hosts: Hosts) -> Iterator[RayHosts]:
    """Ray on three hosts of two CPUs."""
    with RayHosts(hosts, cpus=2) as cluster:
        yield cluster


def command(folder: Path, *changes: str, flags: Sequence[str] = ()) -> list[str]:
    """The job with changes, to be started in the folder."""
    (folder / "job.toml").write_text(JOB)
    given = [word for change in changes for word in ("--set", change)]
    return [sys.executable, "-m", "thalweg_cluster.cli", "train", "job.toml", *given, "--out", str(folder), *flags]


@pytest.fixture(scope="module")
def train(hosts: Hosts, cluster: RayHosts, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """`train("train.steps=3", ..., flags=["--insecure"])` on the first host."""

    def train(*changes: str, flags: Sequence[str] = (), faults: Sequence[Fault] = ()) -> Finished:
        folder = tmp_path_factory.mktemp("run")
        if faults:
            write(folder, *faults)
            flags = [*flags, "--faults", "plan.toml"]
        ended = hosts[0].run(
            command(folder, *changes, flags=flags), cwd=folder, env=cluster.environment, check=False, timeout_s=120.0
        )
        return Finished(ended.returncode, ended.stdout + ended.stderr, folder)

    return train


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
    assert [(run.folder / "ca.pem").exists() for run in runs] == [False, True, True, True]


LOSING = ("train.steps=300", "checkpoint.every_steps=0", "cluster.lease_s=1")
AGAIN = Fault(do="delay", at="push.before", worker=0, step=151, seconds=0.001)
"""It fires in the step after that in which a worker is lost: so long that one took."""


@pytest.mark.faults("worker {id}, of two hosts", how="plan: in step 150", expected="=bits")
@pytest.mark.parametrize(
    ("lost", "shape_of_job"),
    [
        ({"do": "kill"}, ["cluster.workers=4"]),
        ({"do": "pause", "seconds": 60.0}, ["cluster.workers=4"]),
        ({"do": "kill"}, ["cluster.workers=2", "cluster.placement=SPREAD"]),
    ],
    ids=["killed", "paused past its lease", "alone on its host killed"],
)
def test_a_worker_of_several_hosts_that_is_lost_is_replaced(lost, shape_of_job, train, row):
    """Without a checkpoint to go on from: its microbatches are computed by the others of its host, or by the one that
    takes its place where there is none."""
    job = (*LOSING, *shape_of_job)
    expected = train(*job).summary["weights_sha256"]
    run = train(*job, faults=[Fault(at="push.before", worker=1, step=150, **lost), AGAIN])
    assert run.summary["hosts"] == 2
    assert run.status == 0, run.output
    assert [told["fired"] for told in run.summary["faults"]] == [True, True], run.output
    assert run.summary["weights_sha256"] == expected
    assert run.summary["restarts"] == {"worker": 1, "server": 0}
    assert "going on after step" not in run.output
    at_s = [json.loads(line)["at_s"] for line in (run.folder / "faults.jsonl").read_text().splitlines()]
    row.found("=bits", recovery_s=at_s[1] - at_s[0])


def test_an_insecure_run_is_the_same_without_tls(train):
    """There is no authority, and nothing of the kind is left."""
    runs = [train("cluster.workers=2", "cluster.placement=SPREAD", flags=flags) for flags in ([], ["--insecure"])]
    assert [shape(run) for run in runs] == [(0, 2, 2, 2)] * 2, runs[-1].output
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
    assert [(run.folder / "ca.pem").exists() for run in runs] == [True, False]
    assert "PRIVATE" not in (runs[0].folder / "ca.pem").read_text()


def test_an_experiment_over_hosts_and_wires(hosts, cluster, tmp_path):
    """`thalweg scale`: workers are where they should be, the wire is told apart, and bfloat16 is not exact."""
    (tmp_path / "job.toml").write_text(JOB)
    words = ["--workers", "2", "--hosts", "1,2", "--wires", "float32,bfloat16", "--repeats", "1"]
    done = hosts[0].run(
        [sys.executable, "-m", "thalweg_cluster.cli", "scale", "job.toml", *words, "--out", "scale"],
        cwd=tmp_path,
        env=cluster.environment,
        check=False,
        timeout_s=300.0,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "scale" / "scaling.json").read_text())["configurations"]
    told = {(row["hosts"], row["wire"]): row for row in rows}
    assert [row["failed"] for row in rows] == [0] * 4
    assert [told[hosts, "float32"]["split_ms"]["wire"] > 0 for hosts in (1, 2)] == [False, True]
    assert told[1, "float32"]["weights_sha256"] == told[2, "float32"]["weights_sha256"]
    assert told[2, "float32"]["weights_sha256"] != told[2, "bfloat16"]["weights_sha256"]


# The README's client, with what the README says instead of its `connect`.
[CONNECT] = [text for _, text in BLOCKS if "ca.pem" in text and "def connect" in text]
[CLIENT] = [text for language, text in BLOCKS if language == "python" and "import grpc" in text]
ASYNC = ("train.consistency=async", "optimizer.learning_rate=0.001", "optimizer.momentum=0.0", "train.steps=10000000")
TOKENS = {"full": "f" * 20, "read": "r" * 20, "wrong": "w" * 20}


def test_a_client_on_another_host_is_let_in_with_ca_pem_and_a_token(hosts, cluster, tmp_path):
    """It pulls and pushes with the full token, pulls with the read-only one, and gets nowhere else."""
    (tmp_path / "client.py").write_text(re.sub(r"\ndef connect.*?\n\n\n", lambda _: CONNECT, CLIENT, flags=re.DOTALL))
    given = {"THALWEG_TOKEN": TOKENS["full"], "THALWEG_READ_TOKEN": TOKENS["read"]}
    start = command(tmp_path, *ASYNC, "cluster.workers=2", "cluster.placement=SPREAD")

    def client(token: str) -> str:
        elsewhere = next(host for host in hosts[:] if not address.startswith(f"{host.address}:"))
        ended = elsewhere.run(
            [sys.executable, "client.py", address],
            cwd=tmp_path,
            env=cluster.environment | {"THALWEG_TOKEN": TOKENS[token]},
            check=False,
            timeout_s=60.0,
        )
        return ended.stdout + ended.stderr

    with hosts[0].popen(
        start, cwd=tmp_path, env=cluster.environment | given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        address = ""
        for line in run.stdout:
            if line.startswith("parameters at "):
                address = line.split()[2]
            if line.startswith("step 30/"):
                break
        full, read, wrong = map(client, ("full", "read", "wrong"))
        (tmp_path / "client.py").write_text(CLIENT)  # plaintext
        plain = client("full")
        run.send_signal(signal.SIGTERM)
        rest = run.stdout.read()
    assert run.returncode == 130, rest
    # Ray may place the two workers on any two of the hosts.
    assert address.partition(":")[0] in [host.address for host in hosts[:]]
    assert re.fullmatch(
        r"version \d+ of digits-[0-9a-f]+, async\n(.+ \(.*\)\n)+(elements \d+ to \d+: ACCEPTED\n){2}", full
    )
    assert read.startswith("version ")
    assert "PERMISSION_DENIED" in read
    assert "UNAUTHENTICATED" in wrong
    assert "UNAVAILABLE" in plain


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
