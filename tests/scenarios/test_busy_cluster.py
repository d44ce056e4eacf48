"""A Ray cluster whose CPUs others use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.scenarios.conftest import CPUS, environment

OTHERS = 3
# Takes CPUs; when it is told to, says which reservations of the cluster are not removed, and ends.
HOLDER = f"""
import ray
from ray.util.placement_group import placement_group, placement_group_table
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
ray.get(placement_group([{{"CPU": {OTHERS}}}]).ready(), timeout=60)
print("held", flush=True)
input()
print("reservations:", [g["state"] for g in placement_group_table().values() if g["state"] != "REMOVED"], flush=True)
"""
IMPATIENT = """
from thalweg_cluster.launch import room
room.PLACE_S = 2.0
from thalweg_cluster.cli import app
app()
"""


@contextmanager
def busy(address: str) -> Iterator[subprocess.Popen[str]]:
    """Somebody else uses OTHERS of the cluster's CPUs within the block."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env=environment(RAY_ADDRESS=address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.communicate("\n")


@pytest.mark.slow
def test_a_cluster_without_room_is_named_and_given_back(ray_address, train, job, tmp_path):
    """The error says how many CPUs are needed, there and free; nothing is left of the run, and later it has room."""
    command = [sys.executable, "-c", IMPATIENT, "train", str(job), "--set", "cluster.workers=2"]
    with busy(ray_address) as holder:
        refused = subprocess.run(
            [*command, "--out", str(tmp_path / "refused")],
            env=environment(RAY_ADDRESS=ray_address),
            capture_output=True,
            text=True,
            check=False,
        )
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "reservations: ['CREATED']\n"  # the holder's own
    assert refused.returncode == 1
    assert refused.stderr == (
        f"failed: no room on the Ray cluster within 2 s: expected 2 free CPUs, one for each worker; found "
        f"{CPUS - OTHERS} free of the cluster's {CPUS}. Wait until other jobs on it have ended, lower cluster.workers, "
        f"or add nodes with `ray start --address=...`.\n"
    )
    assert train("cluster.workers=2", "train.steps=3").status == 0
