"""Somebody sets the clock while a job trains: all that waits for something does so by the monotonic clock."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest
from tests.scenarios.conftest import LONG, ended, spawn, until

pytestmark = pytest.mark.slow
HOUR_S = 3600
JOB = (*LONG, "cluster.lease_s=1")
SITE = """
# Every Python process of the run, Ray's own too, has the clock of this folder, and leaves its name there when it asks.
import os, pathlib, sys, time
folder, real = pathlib.Path(os.environ["WALL_CLOCK"]), time.time

def moved():
    ahead = (folder / "ahead_s").read_text()
    (folder / f"{ahead} {os.getpid()}").touch()
    return real() + int(ahead)

time.time, time.time_ns = moved, lambda: int(1e9 * moved())
"""


@pytest.mark.faults(
    "wall clock set back and forward an hour, on real Ray", how="time.time of all processes", expected="=bits, unmoved"
)
def test_who_sets_the_clock_makes_nobody_late(job, tmp_path, undisturbed):
    """Back, and then forward, with a lease of a second: no worker is taken for one that hangs, nothing starts again,
    and the run took no hour."""
    clock = tmp_path / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(SITE)

    def set_clock(ahead_s: int) -> None:
        (clock / "new").write_text(str(ahead_s))
        (clock / "new").replace(clock / "ahead_s")

    set_clock(0)
    variables = {"WALL_CLOCK": str(clock), "PYTHONPATH": f"{clock}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    sets = [word for change in JOB for word in ("--set", change)]
    with ExitStack() as stack:
        # Without RAY_ADDRESS: on a cluster of its own, whose processes have these variables, too.
        command = spawn(stack, tmp_path / "out", "train", str(job), "--out", str(tmp_path / "out"), *sets, **variables)
        until(command, "step 800/")
        set_clock(-HOUR_S)
        until(command, "step 2000/")
        set_clock(HOUR_S)
        run = ended(command)
    assert run.status == 0, run.output
    asked = [path.name.split() for path in clock.iterdir() if path.name.lstrip("-")[0].isdigit()]
    assert {ahead for ahead, _ in asked} == {"0", str(-HOUR_S), str(HOUR_S)}
    assert str(command.pid) in {pid for _, pid in asked}
    # Workers, server and coordinator ask while they start, and then no more: nothing of theirs goes by it.
    assert len({pid for _, pid in asked}) >= 5, "the processes of the actors have it, too"
    assert run.summary["restarts"] == {"worker": 0, "server": 0}
    assert run.summary["weights_sha256"] == undisturbed(*JOB)
    assert 0 < run.summary["train_s"] < HOUR_S
