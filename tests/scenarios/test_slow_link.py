"""Two hosts whose link carries far less than a run has to say: it waits where it is, and not in copies."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.hosts.host import Host
from tests.hosts.needs import needs_hosts
from tests.hosts.network import Hosts
from tests.hosts.ray_hosts import RayHosts
from tests.scenarios.conftest import DIGITS, Finished

from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX
from thalweg_proto.shared_memory import FLOAT_BYTES

pytestmark = [pytest.mark.slow, needs_hosts]

GBIT_S = 0.01
PARAMETERS = 64 * 3072 + 3072 + 3072 * 2048 + 2048 + 2048 * 10 + 10
JOB = DIGITS.replace("hidden = [32]", "hidden = [3072, 2048]")
STEPS = 3  # what is looked at is the second: in the last a checkpoint is copied
WAITING_BYTES = PARAMETERS // 2 * FLOAT_BYTES
"""A host's gradient of the other's shard: at the beginning of a step all of it waits, and half a minute later none."""
HELD_BYTES = 10 * BLOCK_ELEMENTS_MAX * FLOAT_BYTES
"""Gradients and parameters, each way: of each one message that is made, and one that gRPC has in hand; and one of each
that has come and that nobody has read yet, since other tests have the cores."""
SAMPLE_S = 0.1


def server_of(host: Host) -> int:
    """The PID of the server's actor, on this machine."""
    found = [pid for pid in host.processes() if Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::ServerActor")]
    assert len(found) == 1
    return found[0]


def own_bytes(pid: int) -> int:
    """The memory that a process shares with nobody; man 5 proc, status."""
    [kib] = re.findall(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return 1024 * int(kib)


@contextmanager
def sampled(pids: Sequence[int]) -> Iterator[dict[int, list[int]]]:
    """`own_bytes` of each process, again and again until the end of the block."""
    seen: dict[int, list[int]] = {pid: [own_bytes(pid)] for pid in pids}
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            for pid, sizes in seen.items():
                sizes.append(own_bytes(pid))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


@pytest.mark.faults("10 Mbit/s link (memory bounded)", how="tc tbf, two hosts", expected="=bits, no copies wait")
def test_what_waits_for_a_slow_link_takes_no_memory(tmp_path, row):
    """The bits are those of one host; while a shard's gradient waits, and drains, neither server's own memory rises and
    falls with it, but by a few messages."""
    (tmp_path / "job.toml").write_text(JOB)

    def command(out: str, placement: str) -> list[str]:
        sets = [f"train.steps={STEPS}", "cluster.workers=2", f"cluster.placement={placement}"]
        given = [word for change in sets for word in ("--set", change)]
        return [sys.executable, "-m", "thalweg_cluster.cli", "train", "job.toml", *given, "--out", out]

    # What is freed goes back to the system at once, so that what a process has is what it needs.
    given_back = {"MALLOC_MMAP_THRESHOLD_": str(64 << 10)}
    with Hosts(2) as hosts, RayHosts(hosts, cpus=2, environment=given_back) as cluster:
        of_one = hosts[0].run(command("one", "PACK"), cwd=tmp_path, env=cluster.environment)
        hosts.limit(GBIT_S)
        with hosts[0].popen(
            command("two", "SPREAD"),
            cwd=tmp_path,
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as run:
            lines = iter(run.stdout.readline, "")
            output = "".join(until(lines, "step 1/"))
            with sampled([server_of(host) for host in hosts[:]]) as seen:
                output += "".join(until(lines, "step 2/"))
            output += "".join(lines)
    one, two = Finished(0, of_one.stdout, tmp_path / "one"), Finished(run.returncode, output, tmp_path / "two")
    assert two.status == 0, output
    assert (one.summary["hosts"], two.summary["hosts"]) == (1, 2)
    assert two.summary["weights_sha256"] == one.summary["weights_sha256"]
    assert two.summary["duplicates"] == 0
    on_the_wire_ms = 1e3 * 2 * WAITING_BYTES * 8 / (GBIT_S * 1e9)  # as many bytes of new parameters
    assert two.summary["step_ms"]["p50"] > on_the_wire_ms, "the link was not what it waited for"
    swings = [max(sizes) - min(sizes) for sizes in seen.values()]
    assert max(swings) < HELD_BYTES < WAITING_BYTES
    row.found(f"=bits; {max(swings) / 1e6:.1f} MB of own memory rise and fall, where {WAITING_BYTES / 1e6:.1f} MB wait")


def until(lines: Iterator[str], begin: str) -> Iterator[str]:
    """Lines up to the first that begins so."""
    for line in lines:
        yield line
        if line.startswith(begin):
            return
