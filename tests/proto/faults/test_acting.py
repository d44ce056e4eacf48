from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

import psutil
import pytest

from thalweg_proto.faults import CORRUPT, DROP, NO_FAULTS, Fault, FaultError, Plan, PlannedFaults

COMES_TO_A_POINT = """
import sys
from pathlib import Path
from thalweg_proto.faults import Fault, Plan, PlannedFaults
fault = Fault(**eval(sys.argv[2]))
faults = PlannedFaults(Plan(faults=(fault,)), Path(sys.argv[1])).of("worker", 0)
print("came", flush=True)
print(repr(faults.at(fault.at, 3).do), flush=True)
"""


def of(folder: Path, *faults: Fault) -> PlannedFaults:
    return PlannedFaults(Plan(faults=faults), folder / "run" / "faults.jsonl")


def process(folder: Path, **fault) -> subprocess.Popen:
    """One that comes to the point of a fault as worker 0 in step 3."""
    record = str(folder / "run" / "faults.jsonl")
    command = [sys.executable, "-c", COMES_TO_A_POINT, record, repr(fault)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_without_a_plan_nothing_is_kept_or_written(tmp_path):
    """Every part has the same object, which does nothing."""
    faults = PlannedFaults(record=tmp_path / "faults.jsonl")
    assert faults.of("worker", 0) is faults.of("server", 3) is NO_FAULTS
    assert not NO_FAULTS.plans("")
    assert NO_FAULTS.at("push.before", 3).do == ""
    assert faults.report() == []
    assert not (tmp_path / "faults.jsonl").exists()


def test_who_is_not_meant_has_no_faults(tmp_path):
    """Nothing is looked up on their way."""
    faults = of(tmp_path, Fault(do="kill", at="push.before", worker=1))
    assert faults.of("worker", 0) is NO_FAULTS
    assert faults.of("worker", 1).plans("push.")
    assert not faults.of("worker", 1).plans("gradient.")


def test_a_fault_fires_once_whoever_asks_again(tmp_path):
    """Also a process that was started anew, which knows of it by the record only."""
    planned = of(tmp_path, Fault(do="drop", at="rpc.push.request", step=3))
    faults = planned.of("server", 1)
    assert faults.at("rpc.push.request", 2).do == ""
    assert planned.report()[0]["fired"] is False
    assert faults.at("rpc.push.request", 3).do == DROP
    assert faults.at("rpc.push.request", 3).do == ""
    assert planned.of("server", 0).at("rpc.push.request", 3).do == ""
    assert planned.report() == [
        {"fault": "drop at rpc.push.request, step 3", "fired": True, "by": "server 1", "step": 3}
    ]


def test_of_many_that_come_at_once_one_fires(tmp_path):
    """Processes and threads alike have one record, which one at a time reads and writes."""
    planned = of(tmp_path, Fault(do="drop", at="rpc.push.request"))
    parts = [planned.of("server", number) for number in range(20)]
    start, found = threading.Barrier(len(parts)), []

    def come(part):
        start.wait()
        found.append(part.at("rpc.push.request").do)

    threads = [threading.Thread(target=come, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [""] * 19 + [DROP]


def test_a_kill_is_written_down_before_it_happens(tmp_path):
    """The process is gone with SIGKILL; the next one passes the point."""
    fault = {"do": "kill", "at": "push.before", "worker": 0, "step": 3}
    with process(tmp_path, **fault) as first:
        assert first.stdout.read() == "came\n"
    assert first.returncode == -signal.SIGKILL
    with process(tmp_path, **fault) as second:
        assert second.stdout.read() == "came\n''\n"
    assert second.returncode == 0
    [told] = of(tmp_path, Fault(**fault)).report()
    assert (told["fired"], told["by"], told["step"]) == (True, "worker 0", 3)


def test_a_pause_stops_the_whole_process_and_ends(tmp_path):
    """It is seen to stand still, and goes on after that many seconds; nobody else has to wake it."""
    with process(tmp_path, do="pause", at="push.before", seconds=1.0) as paused:
        assert paused.stdout.readline() == "came\n"
        began = monotonic()
        watched = psutil.Process(paused.pid)
        while watched.status() != psutil.STATUS_STOPPED:
            assert monotonic() - began < 10, "it never stood still"
        stood_from = monotonic()
        assert paused.stdout.readline() == "''\n"
        assert 0.5 < monotonic() - stood_from < 10
    assert paused.returncode == 0


def test_a_delay_lasts(tmp_path):
    """At least as long as it says."""
    faults = of(tmp_path, Fault(do="delay", at="push.before", seconds=0.2)).of("worker", 0)
    began = monotonic()
    assert faults.at("push.before", 0).do == ""
    assert monotonic() - began >= 0.2


def test_what_is_raised_is_no_error_of_ours(tmp_path):
    """But as if a user's model had raised it."""
    faults = of(tmp_path, Fault(do="raise", at="gradient.before", worker=0)).of("worker", 0)
    with pytest.raises(FaultError, match=r"planned: raise at gradient\.before, worker 0"):
        faults.at("gradient.before", 0)


def test_the_caller_is_told_which_byte_to_spoil(tmp_path):
    """With what is due."""
    faults = of(tmp_path, Fault(do="corrupt", at="shard.written", byte=1)).of("server", 0)
    due = faults.at("shard.written", 20)
    assert (due.do, due.spoil(b"abc")) == (CORRUPT, b"acc")


def test_a_record_that_cannot_be_written_is_an_error(tmp_path):
    """Nothing fires that nobody would know of."""
    (tmp_path / "run").write_text("")
    faults = of(tmp_path, Fault(do="drop", at="rpc.push.request")).of("server", 0)
    with pytest.raises(OSError, match="run"):
        faults.at("rpc.push.request")
    assert os.path.getsize(tmp_path / "run") == 0
