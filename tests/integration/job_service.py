"""The service without Ray: its table, its keeper and its doors, with commands and checks that only pretend.

    python -m tests.integration.job_service STATE PORT

serves until it is killed, and prints the port. A job there starts when there is room, and never ends by itself.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from thalweg_cluster.resources import Resources
from thalweg_cluster.security.guard import Guard
from thalweg_cluster.service.checker import Checked
from thalweg_cluster.service.cluster import Seen
from thalweg_cluster.service.door import JobDoor
from thalweg_cluster.service.keeper import Changes, Keeper
from thalweg_cluster.service.metrics import Calls
from thalweg_cluster.service.page.door import PageDoor
from thalweg_cluster.service.table import JobTable
from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.loading import read_table

JOB = '[data]\ntrain = "digits"\n[model]\nuse = "linear"\n[train]\nsteps = 3\n'
MIB = 1 << 20


class Pretended:
    """Commands that go on until `end` is called."""

    def __init__(self) -> None:
        self.alive: dict[Path, int | None] = {}
        self.signals: list[tuple[str, int]] = []
        self.fails = False
        self._started = threading.Condition()

    def start(self, folder: Path, cluster: str, *, again: bool, same: bool) -> None:
        if self.fails:
            raise RuntimeError("a mistake of ours")
        (folder / "summary.json").unlink(missing_ok=True)
        with self._started:
            self.alive[folder] = None
            self._started.notify_all()

    def going_on(self, folder: Path) -> bool:
        return folder in self.alive

    def status(self, folder: Path) -> int | None:
        return None

    def signal(self, folder: Path, number: int) -> bool:
        self.signals.append((folder.name, number))
        return True

    def end(self, folder: Path, summary: str) -> None:
        """Once it goes on: the table says so a moment before."""
        with self._started:
            assert self._started.wait_for(lambda: folder in self.alive, timeout=60)
        (folder / "summary.json").write_text(summary)
        del self.alive[folder]


class Nodes:
    """A Ray cluster of so many CPUs that nobody uses."""

    own, why_not = False, ""

    def __init__(self, cpus: int) -> None:
        self.seen: Seen | None = Seen(address="nowhere:1", nodes=(Resources(cpus),), unused=Resources(cpus))


class Checks:
    """Takes each job whose steps are not too many."""

    def __init__(self) -> None:
        self.raises: Exception | None = None

    def check(self, folder: Path, nodes: Any) -> Checked:
        if self.raises is not None:
            raise self.raises
        table = read_table(folder / "job.toml")
        if table["train"]["steps"] > 1000:
            raise InputError([Problem("train.steps", "less", "more", "a hint"), Problem("data", "files/0/x", "none")])
        workers = table.get("cluster", {}).get("workers", 1)
        return Checked(name=table.get("name", "job"), workers=workers, gpus=0.0, max_failures=3)


class Served:
    """All its parts."""

    def __init__(self, state: Path, *, cpus: int = 2, port: int = 0, guard: Guard = Guard(), bind: str = "127.0.0.1"):
        (state / "jobs").mkdir(parents=True, exist_ok=True)
        self.state = state
        self.table = JobTable(state / "jobs.sqlite3")
        self.runner, self.cluster, self.checks, self.changes = Pretended(), Nodes(cpus), Checks(), Changes()
        self.calls = Calls()
        self.keeper = Keeper(self.table, state / "jobs", self.runner, self.cluster, self.changes)
        self.door = JobDoor(
            bind,
            port,
            table=self.table,
            keeper=self.keeper,
            checks=self.checks,
            nodes=lambda: self.cluster.seen.nodes if self.cluster.seen else None,
            incoming=state / "incoming",
            files_max=MIB,
            changes=self.changes,
            calls=self.calls,
            guard=guard,
        )
        self.address = f"127.0.0.1:{self.door.port}"
        self._bind, self._guard = bind, guard
        self.page = self.page_at(0)

    def page_at(self, port: int) -> PageDoor:
        return PageDoor(
            self._bind,
            port,
            names=[],
            table=self.table,
            keeper=self.keeper,
            changes=self.changes,
            targets=self.state / "targets",
            calls=self.calls,
            guard=self._guard,
        )


@contextmanager
def served(state: Path, **options: Any) -> Iterator[Served]:
    """A service that answers."""
    with ExitStack() as stack:
        service = Served(state, **options)
        stack.callback(service.table.close)
        stack.callback(service.keeper.close)
        service.keeper.open()
        stack.callback(service.door.close)
        service.door.open()
        stack.callback(lambda: service.page.close())
        service.page.open()
        yield service


if __name__ == "__main__":
    with served(Path(sys.argv[1]), port=int(sys.argv[2])) as standing:
        print(standing.door.port, flush=True)
        while True:
            time.sleep(3600)  # until it is killed
