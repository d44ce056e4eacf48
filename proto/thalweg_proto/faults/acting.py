"""The edge of planned faults: who comes to a point, what is written down, what is done.

Rules:
  - That a fault fires is written to the record, and synced, before it does: whatever it does to the process, nobody
    fires it again. The record is one file for all processes of a run, and outlives each of them.
  - A run without a plan has NO_FAULTS, whose methods do nothing.
  - Where hosts do not see one folder, each has a record of its own, and the report knows of its own host's only.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thalweg_proto.faults.plan import DELAY, KILL, NOTHING, PAUSE, RAISE, Due, Fault, Plan, due

RECORD = "faults.jsonl"


class FaultError(Exception):
    """Raised on purpose, as if by a user's model: so it is none of ours."""


class Faults:
    """Of a part for which nothing is planned."""

    def plans(self, prefix: str) -> bool:
        """Whether anything is planned at a point of this name, or at those whose names begin with it."""
        return False

    def at(self, point: str, step: int | None = None) -> Due:
        """This part has come to a point, in `step`. What is due there happens now, or is the caller's to do.

        Raises FaultError where that is what is due.
        """
        return NOTHING


NO_FAULTS = Faults()


class _Planned(Faults):
    """Of a part with plans. Any thread may call."""

    def __init__(self, plan: Plan, record: Path, part: str, number: int) -> None:
        self._plan = plan
        self._record = record
        self._part, self._number = part, number
        self._points = plan.of(part, number)
        self._fired: set[str] = set()

    def plans(self, prefix: str) -> bool:
        return any(point.startswith(prefix) for point in self._points)

    def at(self, point: str, step: int | None = None) -> Due:
        faults = self._points.get(point)
        if faults is None or due(faults, self._part, self._number, step, self._fired) is None:
            return NOTHING
        name = self._fire(faults, step)
        return NOTHING if name is None else self._do(faults[name], name)

    def _fire(self, faults: Mapping[str, Fault], step: int | None) -> str | None:
        """Writes down which fault fires now, and returns its name; None where others were quicker."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        with self._record.open("a+b") as stream:  # O_APPEND
            fcntl.flock(stream, fcntl.LOCK_EX)  # until it is closed, or this process is gone
            stream.seek(0)
            self._fired |= {line["fault"] for line in _lines(stream.read())}
            name = due(faults, self._part, self._number, step, self._fired)
            if name is not None:
                line = {"fault": name, "by": f"{self._part} {self._number}", "step": step, "at_s": time.time()}
                stream.write(json.dumps(line).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
                self._fired.add(name)
        return name

    def _do(self, fault: Fault, name: str) -> Due:
        """What the process can do to itself; else what the caller has to do."""
        if fault.do == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.do == PAUSE:
            _pause(self._plan.seconds(name))
        elif fault.do == DELAY:
            time.sleep(self._plan.seconds(name))
        elif fault.do == RAISE:
            raise FaultError(f"planned: {name}")
        else:
            return Due(fault.do, fault.byte)
        return NOTHING


def _pause(seconds: float) -> None:
    """Stops this process, all of its threads, until another one continues it."""
    wake = ["sh", "-c", f"sleep {seconds:.3f}; kill -CONT {os.getpid()}"]
    # Of a session of its own: what is sent to this process's group does not end it.
    with subprocess.Popen(wake, start_new_session=True) as waker:
        os.kill(os.getpid(), signal.SIGSTOP)
        waker.wait()


@dataclass(frozen=True)
class PlannedFaults:
    """A plan and where it is written down what fired; goes to every process of a run.

    record: a file; of no use where nothing is planned
    """

    plan: Plan = field(default_factory=Plan)
    record: Path = Path(RECORD)

    def of(self, part: str, number: int) -> Faults:
        """Those of worker or server (`part`) `number`, by rank or by host."""
        return _Planned(self.plan, self.record, part, number) if self.plan.of(part, number) else NO_FAULTS

    def report(self) -> list[dict[str, Any]]:
        """Of each planned fault whether it fired; if so by whom, and in which step."""
        try:
            lines = {line["fault"]: line for line in _lines(self.record.read_bytes())} if self.plan.faults else {}
        except FileNotFoundError:
            lines = {}
        told = []
        for name in self.plan.named:
            line = lines.get(name, {})
            told.append({"fault": name, "fired": name in lines, "by": line.get("by"), "step": line.get("step")})
        return told


def _lines(data: bytes) -> list[dict[str, Any]]:
    """Of the record; one that was cut does not count: what it tells of did not happen."""
    return [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]
