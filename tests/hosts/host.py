"""One host: namespaces of this machine that look like a machine of their own from inside.

Own are its network, its processes (PIDs from 1), its name, /dev/shm, and a disk at /srv, a tmpfs. All other files are
this machine's, so that a path means the same everywhere, as on hosts with a shared file system. It sees all cores and
all memory.

Nothing of a host has a name outside, and its first process reads a pipe from us. When that ends, because `close` was
called or because this process is gone for whatever reason, the kernel kills every other process of the host, and with
the last one it removes mounts and network. So there is nothing to clean up, ever.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.hosts.process import END_TIMEOUT_S, HostError, HostProcess, children, living, until_gone

DISK = "/srv"
START_TIMEOUT_S = 10.0
CLONE_NEWNET = 0x40000000  # <linux/sched.h>

_libc = ctypes.CDLL(None, use_errno=True)


# The first process: ignoring SIGCHLD, it leaves no zombies of the processes it inherits. /etc/hosts lies in a tmpfs
# that the one at /dev/shm then hides.
FIRST_PROCESS = """
set -e
mount -t tmpfs tmpfs /dev/shm
printf '%s\\n' "$NAMES" > /dev/shm/hosts
mount --bind /dev/shm/hosts /etc/hosts
mount -t tmpfs -o size="$SHM_BYTES",mode=1777 tmpfs /dev/shm
mount -t tmpfs tmpfs "$DISK"
if [ -e /proc/sys/net/ipv6 ]; then echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; fi
ip link set lo up
hostname "$NAME"
echo ready
exec env --ignore-signal=CHLD cat
"""
NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")


class Host:
    """A host that runs from construction to `close`.

    name:      its host name
    address:   its IPv4 address; given to it by `Hosts`, as is the link that has it
    names:     address -> host name, for its /etc/hosts
    shm_bytes: the size of its /dev/shm
    cores:     on which its commands run; None: on all

    Raises HostError where the kernel refuses.
    """

    def __init__(
        self, name: str, address: str, *, names: Mapping[str, str], shm_bytes: int, cores: Sequence[int] | None = None
    ) -> None:
        self.name, self.address = name, address
        self._cores = ["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []
        variables = {
            "NAME": name,
            "NAMES": "\n".join(f"{ip} {host}" for ip, host in {"127.0.0.1": "localhost", **names}.items()),
            "SHM_BYTES": str(shm_bytes),
            "DISK": DISK,
        }
        # A session of its own: Ctrl-C on the terminal is for us to handle.
        self._holder = subprocess.Popen(
            ["unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "sh", "-c", FIRST_PROCESS],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert self._holder.stdout is not None
            if self._holder.stdout.readline() != "ready\n":
                _, error = self._holder.communicate(timeout=START_TIMEOUT_S)
                raise HostError(f"{name}: cannot be made: {error.strip()}")
            self._processes = os.readlink(f"/proc/{self.pid}/ns/pid_for_children")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of a process in all of the host's namespaces but that of its PIDs."""
        return self._holder.pid

    def popen(self, command: Sequence[str | os.PathLike[str]], **options: Any) -> HostProcess:
        """Start a command here; the options are those of `subprocess.Popen`, with no input and text by default."""
        pid = self.pid
        enter = [*self._cores, "nsenter", f"--target={pid}", "--net", "--mount", "--uts", "--ipc"]
        return HostProcess([*enter, f"--pid=/proc/{pid}/ns/pid_for_children"], command, **options)

    def run(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        timeout_s: float | None = None,
        check: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command here to its end, and end with it what it left in its process group.

        Standard output and error are captured. Raises HostError with them where the status is not 0 and `check`, and
        subprocess.TimeoutExpired.
        """
        with self.popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options) as child:
            out, error = child.communicate(timeout=timeout_s)
        if check and child.returncode != 0:
            raise HostError(
                f"{self.name}: exit status {child.returncode}: {shlex.join(map(str, command))}\n{out}{error}"
            )
        return subprocess.CompletedProcess(command, child.returncode, out, error)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Within the block, sockets that the calling thread opens are this host's, and stay so after it."""
        with open("/proc/thread-self/ns/net") as own, open(f"/proc/{self.pid}/ns/net") as of_host:
            _enter_network(of_host.fileno())
            try:
                yield
            finally:
                _enter_network(own.fileno())

    def connect(self, address: tuple[str, int], timeout_s: float) -> socket.socket:
        """A TCP connection from here; raises OSError as `socket.create_connection` does."""
        with self.network():
            return socket.create_connection(address, timeout=timeout_s)

    def listen(self, port: int = 0) -> socket.socket:
        """A socket that listens at this host's address; port 0 takes a free one."""
        with self.network():
            return socket.create_server((self.address, port))

    def processes(self) -> list[int]:
        """The processes here but the first, by the PIDs that they have on this machine, not by those here."""
        return [pid for pid, _ in living() if pid not in children(self.pid) and self._has(pid)]

    def send_signal(self, pid: int, sig: int) -> None:
        """Send a signal to a process by the PID that it has here, which is what `os.getpid()` tells it."""
        self.run(["sh", "-c", 'kill -"$1" "$2"', "sh", str(int(sig)), str(pid)])

    def kill_all(self) -> None:
        """Kill all processes here at once, and wait until they are gone; the host stays.

        To peers it looks as a crash of all processes: the kernel still closes their connections. For a loss of power,
        which no one hears of, block the host first.
        """
        self.run(["sh", "-c", f"kill -{int(signal.SIGKILL)} -1"], check=False)  # -1: all but the first and the caller
        until_gone(self.processes)

    def close(self) -> None:
        """End the host and everything on it; when this returns, its processes are gone."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._holder.kill()  # takes the first process with it
            self._holder.wait()
        for stream in (self._holder.stdout, self._holder.stderr):
            if stream is not None:
                stream.close()

    def _has(self, pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/ns/pid") == self._processes
        except OSError:  # ended meanwhile
            return False


def _enter_network(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
