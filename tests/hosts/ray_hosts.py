"""A Ray cluster over several hosts, as a person would start it: `ray start --head` on one, `ray start` on the others.

with Hosts(2) as hosts, RayHosts(hosts) as cluster:
    hosts[0].run(["thalweg", "train", "job.toml"], env=cluster.environment)
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.hosts.host import DISK, Host
from tests.hosts.process import HostError, HostProcess

REPOSITORY = Path(__file__).resolve().parents[2]
RAY = (sys.executable, "-m", "ray.scripts.scripts")
PORT = 6379
TEMP_DIR, OUTPUT = f"{DISK}/ray", f"{DISK}/ray.out"  # on each host's own disk
READY_TIMEOUT_S = 60.0
OUTPUT_LINES_MAX = 40

# By default Ray takes a host for lost after some 17 s; with these in `environment`, after 2 s where its processes died,
# after 5 s where it is blocked.
QUICK_TO_MISS_A_HOST = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}

# By default Ray's workers give way to every other process of the machine, such as the tests beside.
GIVE_WAY_TO_NOBODY = {"RAY_worker_niceness": "0"}


class RayHosts:
    """Ray on all of `hosts`, the first of which is the head; whole from `__enter__` on.

    cpus:               that each host offers, however many cores there are
    object_store_bytes: of each host
    environment:        more variables for Ray, e.g. QUICK_TO_MISS_A_HOST

    The cluster asks for a token. `environment` then holds what a driver on one of the hosts needs, RAY_ADDRESS too.
    At the end all processes of the hosts are killed, not only Ray's.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        *,
        cpus: int = 2,
        object_store_bytes: int = 150_000_000,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.hosts = hosts
        self.address = f"{hosts[0].address}:{PORT}"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        self._environment = inherited | token | GIVE_WAY_TO_NOBODY | dict(environment or {})
        self.environment = self._environment | {"RAY_ADDRESS": self.address, "RAY_USAGE_STATS_ENABLED": "0"}
        self._options = [
            f"--temp-dir={TEMP_DIR}",
            f"--num-cpus={cpus}",
            f"--object-store-memory={object_store_bytes}",
            "--include-log-monitor=false",
            "--disable-usage-stats",
            "--block",
        ]
        self._running: dict[Host, HostProcess] = {}

    def __enter__(self) -> RayHosts:
        with ExitStack() as stack:
            stack.callback(self._end)
            for host in self.hosts:  # all at once: those that join wait for the head
                self.start(host)
            self.wait(len(self.hosts))
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self, host: Host) -> None:
        """Start Ray on a host, for the first time or after `kill`; `wait` tells when it is there."""
        if host is self.hosts[0]:
            role = ["--head", f"--port={PORT}", "--include-dashboard=false", "--no-monitor"]
        else:
            role = [f"--address={self.address}"]
        command = [*RAY, "start", *role, f"--node-ip-address={host.address}", *self._options]
        to_file = ["sh", "-c", 'exec "$@" >"$0" 2>&1', OUTPUT]
        self._running[host] = host.popen([*to_file, *command], env=self._environment)

    def wait(self, hosts: int, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until Ray knows exactly so many living hosts.

        Raises HostError with what it knows instead after `timeout_s`, and with what `ray start` said where it failed.
        """
        command = [sys.executable, "-m", "tests.hosts.ready", self.address, str(hosts), str(timeout_s)]
        ready = self.hosts[0].run(command, env=self._environment, cwd=REPOSITORY, check=False)
        if ready.returncode != 0:
            reports = [self._report(host) for host in self._running]
            raise HostError("\n\n".join([f"Ray: {ready.stdout}{ready.stderr}", *reports]))

    def kill(self, host: Host) -> None:
        """Kill all processes of a host, Ray's and others; the cluster loses it."""
        host.kill_all()
        host.run(["rm", "-rf", TEMP_DIR, OUTPUT])
        if host in self._running:
            self._running.pop(host).wait()

    def _end(self) -> None:
        for host in self.hosts:
            self.kill(host)

    def _report(self, host: Host) -> str:
        child = self._running[host]
        state = "running" if child.poll() is None else f"exit status {child.returncode}"
        output = host.run(["tail", f"--lines={OUTPUT_LINES_MAX}", OUTPUT], check=False).stdout
        return f"ray start on {host.name}, {state}:\n{output}"
