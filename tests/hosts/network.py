"""Several hosts on one machine, joined by a switch.

    with Hosts(2, bandwidth_gbit_s=1.0) as hosts:
        hosts[0].run(["python", "-m", "http.server", ...])
        hosts.block(hosts[0], hosts[1])

The switch is a bridge in a network namespace of its own, so that addresses and link names are free to choose whatever
else this machine runs. It leads nowhere else, and hosts have no route to other addresses.

Bandwidth: a token bucket (tc-tbf) at both ends of each link, so a host has `bandwidth_gbit_s` out and the same in, also
where several hosts send to one. What counts are bytes of Ethernet frames without preamble, checksum and gap. At an MTU
of 1500 a frame of 1514 bytes carries 1448 bytes of a TCP stream, so a stream gets 95.6 % of the rate (on a wire it gets
94.1 %). The kernel hands on segments of up to 64 KiB uncut and counts the headers of the frames they stand for. BURST
has room for one with its headers, or the kernel would have to cut each, which at 1 Gbit/s costs two cores a good part
of their time; and it is the most that an idle link makes up for: 1 ms at 1 Gbit/s.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import overload

from tests.hosts.host import Host
from tests.hosts.process import HostError

GIB = 1 << 30
INTERFACE = "eth0"  # of each host
NETWORK = "10.77.0"
HOSTS_MAX = 254
BURST_BYTES = 128 << 10
QUEUE_BYTES = 4 << 20  # on its own link a sender waits rather than overflow it; in the switch, many senders may
LOCAL_RULE = 100  # the rules of `block` come before it


class Hosts(Sequence[Host]):
    """Hosts "host-0", "host-1", ... at 10.77.0.1, 10.77.0.2, ..., from `__enter__` to `__exit__`.

    bandwidth_gbit_s: of each host, in each direction; None: as fast as memory
    shm_bytes:        the size of each host's /dev/shm
    own_cores:        the machine's cores are dealt out to the hosts, as if each were a machine of its own
    """

    def __init__(
        self,
        count: int,
        *,
        bandwidth_gbit_s: float | None = None,
        shm_bytes: int = 4 * GIB,
        own_cores: bool = False,
    ) -> None:
        if not 1 <= count <= HOSTS_MAX:
            raise ValueError(f"count: expected 1 to {HOSTS_MAX}; found {count}")
        self.bandwidth_gbit_s = bandwidth_gbit_s
        self._names = {f"{NETWORK}.{i + 1}": f"host-{i}" for i in range(count)}
        self._shm_bytes = shm_bytes
        cores = sorted(os.sched_getaffinity(0))
        if own_cores and len(cores) < count:
            raise ValueError(f"own_cores: expected at least {count} cores; found {len(cores)}")
        self._cores = [cores[i::count] if own_cores else None for i in range(count)]
        self._hosts: list[Host] = []
        self._blocked: dict[frozenset[Host], list[tuple[Host, str]]] = {}
        self._links: list[tuple[tuple[Host, str], tuple[Host, str]]] = []  # the two ends of each
        self._stack = ExitStack()

    @overload
    def __getitem__(self, index: int) -> Host: ...
    @overload
    def __getitem__(self, index: slice) -> list[Host]: ...
    def __getitem__(self, index: int | slice) -> Host | list[Host]:
        return self._hosts[index]

    def __len__(self) -> int:
        return len(self._hosts)

    def __enter__(self) -> Hosts:
        with ExitStack() as stack:
            switch = stack.enter_context(closing(Host("switch", "", names={}, shm_bytes=1 << 20)))
            _configure(switch, "link add name bridge0 type bridge", "link set bridge0 up")
            for i, (address, name) in enumerate(self._names.items()):
                host = stack.enter_context(
                    closing(Host(name, address, names=self._names, shm_bytes=self._shm_bytes, cores=self._cores[i]))
                )
                self._plug(host, switch, f"port{i}")
                self._hosts.append(host)
            if self.bandwidth_gbit_s is not None:
                self.limit(self.bandwidth_gbit_s)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hosts.clear()
        self._blocked.clear()
        self._links.clear()
        self._stack.close()

    def limit(self, bandwidth_gbit_s: float) -> None:
        """From now on each host has so much, in each direction."""
        self.bandwidth_gbit_s = bandwidth_gbit_s
        bucket = f"root tbf rate {bandwidth_gbit_s * 1e9:.0f}bit burst {BURST_BYTES} limit {QUEUE_BYTES}"
        for link in self._links:
            for end, device in link:
                end.run(["tc", "qdisc", "replace", "dev", device, *bucket.split()])

    def block(self, a: Host, b: Host, ports: range | None = None) -> None:
        """From now on, each of the two drops what comes from the other, as a firewall does: silently.

        New connections time out, and those that are open hang.

        ports: drop TCP packets from or to these ports only
        """
        services = [""]
        if ports is not None:
            services = [f"ipproto tcp {side} {ports.start}-{ports.stop - 1}" for side in ("dport", "sport")]
        for here, there in ((a, b), (b, a)):
            for service in services:
                rule = f"from {there.address} iif {INTERFACE} {service} blackhole"
                _configure(here, f"rule add pref {LOCAL_RULE - 1} {rule}")
                self._blocked.setdefault(frozenset((a, b)), []).append((here, rule))

    def unblock(self, a: Host, b: Host) -> None:
        """Take back all blocks between the two. A connection that hung goes on when TCP next repeats a packet."""
        for here, rule in self._blocked.pop(frozenset((a, b)), []):
            _configure(here, f"rule delete pref {LOCAL_RULE - 1} {rule}")

    def _plug(self, host: Host, switch: Host, port: str) -> None:
        """Give the host its link, address, route and bandwidth."""
        link = f"link add name {INTERFACE} netns {host.pid} type veth peer name {port} netns {switch.pid}"
        done = subprocess.run(["ip", *link.split()], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise HostError(f"{host.name}: no link: {done.stderr.strip()}")
        _configure(switch, f"link set {port} master bridge0 up")
        _configure(
            host,
            f"address add {host.address}/24 dev {INTERFACE}",
            f"link set {INTERFACE} up",
            f"rule add pref {LOCAL_RULE} lookup local",
            "rule delete pref 0",
        )
        self._links.append(((host, INTERFACE), (switch, port)))


def _configure(host: Host, *commands: str) -> None:
    """Run the `ip` commands on the host; raises HostError with the first that fails."""
    for command in commands:
        host.run(["ip", *command.split()])
