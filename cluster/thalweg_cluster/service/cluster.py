"""The Ray cluster of the service, held by a process of its own, which says how much room there is.

    python -m thalweg_cluster.service.cluster [CPUS]

joins the cluster of RAY_ADDRESS, or starts one with so many CPUs on this machine, and says so on its standard output, a
line each time it looks: {"address": ..., "nodes": [[CPUs, GPUs] of each], "unused": [CPUs, GPUs] that nobody has}. It
ends, and with it a cluster that it has started, when its standard input does.

Why a process: who is joined to a Ray cluster is ended by Ray where the cluster is lost. The service stays, starts
another one or waits for it, and answers meanwhile.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from thalweg_cluster.resources import Resources

LOOK_S = 0.5
AGAIN_S = 2.0
"""After so long a cluster that was lost is looked for again."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """address: for RAY_ADDRESS; nodes: what each has; unused: what nobody has of that."""

    address: str
    nodes: tuple[Resources, ...]
    unused: Resources

    @property
    def all(self) -> Resources:
        """What the nodes have together."""
        return Resources(sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes))


class Cluster:
    """Any thread may call."""

    def __init__(
        self, cpus: int, given: str | None, environment: Mapping[str, str], changed: Callable[[], None]
    ) -> None:
        """
        cpus:        of a cluster of our own
        given:       address of one that is there; None: one of our own
        environment: of the process
        changed:     called when it is seen, or lost
        """
        self.own = given is None
        self._command = [sys.executable, "-m", "thalweg_cluster.service.cluster", str(cpus)]
        self._environment = {key: value for key, value in environment.items() if key != "RAY_ADDRESS"}
        if given is not None:
            self._environment["RAY_ADDRESS"] = given
        self._changed = changed
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._seen: Seen | None = None
        self.why_not = "it is being started"
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True, name="thalweg-cluster")

    def open(self) -> None:
        """Starts it, or joins it."""
        self._thread.start()

    @property
    def nodes(self) -> tuple[Resources, ...] | None:
        """What each node has; None: that is not known now."""
        seen = self._seen
        return None if seen is None else seen.nodes

    @property
    def seen(self) -> Seen | None:
        """None: it does not answer now."""
        return self._seen

    def close(self) -> None:
        """Leaves it; ends it, where it is our own."""
        self._closed.set()
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
        if self._thread.is_alive():
            self._thread.join()

    def _hold(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                if self._closed.is_set():
                    return
                process = self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C is for the service, which has jobs to end first
                )
            assert process.stdout is not None  # it is a pipe
            last = ""
            with process.stdout as lines:
                for line in lines:
                    last = self._heard(line) or last
            process.wait()
            self._seen, self.why_not = None, last or f"its process ended with exit status {process.returncode}"
            self._changed()
            self._closed.wait(AGAIN_S)

    def _heard(self, line: str) -> str:
        """ "" where the line was meant for us."""
        try:
            said: dict[str, Any] = json.loads(line)
            nodes = tuple(Resources(*node) for node in said["nodes"])
            seen = Seen(address=said["address"], nodes=nodes, unused=Resources(*said["unused"]))
        except (ValueError, KeyError, TypeError):
            return line.strip()
        if seen != self._seen:
            self._seen = seen
            self._changed()
        return ""


def main(cpus: int) -> None:
    """Until standard input ends, or the cluster is lost."""
    import ray

    from thalweg_cluster.launch.ray_cluster import connect, nodes_of, start
    from thalweg_cluster.launch.room import free

    given = os.environ.get("RAY_ADDRESS")
    if given:
        connect(given)
    else:
        start(cpus)
    address = ray.get_runtime_context().gcs_address
    while True:
        print(json.dumps({"address": address, "nodes": nodes_of(), "unused": free()}), flush=True)
        if select.select([0], [], [], LOOK_S)[0]:
            break
    ray.shutdown()


if __name__ == "__main__":
    from thalweg_proto.errors import ThalwegError

    try:
        main(int(sys.argv[1]))
    except ThalwegError as error:
        print(error, flush=True)
        sys.exit(1)
