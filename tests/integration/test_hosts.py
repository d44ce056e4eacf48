"""What tests with several hosts stand on: that the hosts on this machine are as far apart as they should be."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from tests.hosts.host import DISK
from tests.hosts.needs import needs_hosts
from tests.hosts.network import Hosts
from tests.hosts.process import HostError, living, until_gone
from tests.hosts.ray_hosts import RayHosts
from tests.hosts.wire import exchange_s

pytestmark = needs_hosts

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 10.0
BLOCKED_S = 0.3  # far longer than a connection within the machine takes

SLEEPER = ["sh", "-c", "echo here; exec sleep 1000"]
DAEMON = ["sh", "-c", f"setsid {shlex.join(SLEEPER)} &"]

# Tells where a task ran on each host.
TASKS = """
import ray, socket
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray.init(log_to_driver=False)

@ray.remote
def where():
    return ray.util.get_node_ip_address(), socket.gethostname()

nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
on = [where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)) for node in nodes]
for address, name in sorted(ray.get([task.remote() for task in on])):
    print(address, name)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts without a bound on their bandwidth."""
    with Hosts(2) as hosts:
        yield hosts


def test_hosts_reach_each_other_and_themselves(hosts: Hosts) -> None:
    """What listens at a host's address is reached from it and from the other, and each sees the other's address."""
    for server in hosts:
        with server.listen() as listener:
            address = listener.getsockname()
            for client in hosts:
                with client.connect(address, TIMEOUT_S) as near:
                    far, seen = listener.accept()
                    with far:
                        assert (seen[0], address[0]) == (client.address, server.address)
                        near.sendall(b"ping")
                        assert far.recv(4) == b"ping"


def test_each_has_its_own_memory_disk_processes_and_name(hosts: Hosts) -> None:
    """A file in /dev/shm or on the disk of one is not there on the other or on this machine, nor are its processes."""
    a, b = hosts
    for folder in ("/dev/shm", DISK):
        a.run(["touch", f"{folder}/thalweg-mine"])
        assert "thalweg-mine" in a.run(["ls", folder]).stdout
        assert "thalweg-mine" not in b.run(["ls", folder]).stdout
        assert not Path(folder, "thalweg-mine").exists()
    names = [host.run(["hostname"]).stdout.strip() for host in hosts]
    assert names == [host.name for host in hosts] == ["host-0", "host-1"]
    with a.popen(SLEEPER, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == "here\n"
        assert (len(a.processes()), b.processes()) == (1, [])
        assert len(a.run(["sh", "-c", "echo /proc/[0-9]*"]).stdout.split()) == 3  # the first, sleep, sh
    assert a.processes() == []


def test_shared_memory_has_the_size_that_is_asked_for() -> None:
    """/dev/shm of a host holds shm_bytes, not what this machine has."""
    with Hosts(1, shm_bytes=8 << 20) as (host,):
        assert host.run(["df", "--output=size", "--block-size=1", "/dev/shm"]).stdout.split()[-1] == str(8 << 20)


def test_command_has_its_status_output_folder_and_variables(hosts: Hosts, tmp_path: Path) -> None:
    """A command runs in its folder with its variables, and its status is told, or raised with what it wrote."""
    script = 'echo "$PWD $WORD"; echo gone wrong >&2; exit 3'
    done = hosts[0].run(["sh", "-c", script], cwd=tmp_path, env=os.environ | {"WORD": "push"}, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{tmp_path} push\n", "gone wrong\n")
    with pytest.raises(HostError, match=r"host-0: exit status 3(.|\n)*gone wrong"):
        hosts[0].run(["sh", "-c", script])


def test_signal_reaches_the_command(hosts: Hosts) -> None:
    """A signal sent at once is the command's to handle, and its status says so; by its PID on the host as well."""
    script = "import signal, os; print(os.getpid(), flush=True); signal.sigwait([signal.SIGINT])"
    block = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); {script}; raise SystemExit(7)"
    for by_pid in (False, True):
        with hosts[0].popen([sys.executable, "-c", block], stdout=subprocess.PIPE) as child:
            pid = int(child.stdout.readline())
            if by_pid:
                hosts[0].send_signal(pid, signal.SIGINT)
            else:
                child.send_signal(signal.SIGINT)
            assert child.wait(TIMEOUT_S) == 7
    with hosts[0].popen(["sleep", "1000"]) as child:
        child.terminate()
        assert child.wait(TIMEOUT_S) == -signal.SIGTERM


def test_run_over_its_time_leaves_nothing(hosts: Hosts) -> None:
    """What runs too long is ended, with the children that it started."""
    with pytest.raises(subprocess.TimeoutExpired):
        hosts[0].run(["sh", "-c", "sleep 1000 & sleep 1000"], timeout_s=0.2)
    assert hosts[0].processes() == []


def test_killing_all_takes_daemons_too(hosts: Hosts) -> None:
    """A process that left its group and its parent ends, those of the other host stay."""
    with (
        hosts[0].popen(DAEMON, stdout=subprocess.PIPE) as here,
        hosts[1].popen(SLEEPER, stdout=subprocess.PIPE) as there,
    ):
        assert (here.stdout.readline(), there.stdout.readline()) == ("here\n", "here\n")
        assert here.wait(TIMEOUT_S) == 0
        here.kill_group()
        assert len(hosts[0].processes()) == 1
        hosts[0].kill_all()
        assert (hosts[0].processes(), len(hosts[1].processes())) == ([], 1)


def test_block_is_silent_and_ends(hosts: Hosts) -> None:
    """While blocked, a new connection times out and an open one hangs; after it, what hung arrives."""
    a, b = hosts
    with b.listen() as listener:
        address = listener.getsockname()
        near = a.connect(address, TIMEOUT_S)
        far, _ = listener.accept()
        with near, far:
            hosts.block(a, b)
            with pytest.raises(TimeoutError):
                a.connect(address, BLOCKED_S)
            near.sendall(b"late")
            far.settimeout(BLOCKED_S)
            with pytest.raises(TimeoutError):
                far.recv(4)
            hosts.unblock(a, b)
            far.settimeout(TIMEOUT_S)
            assert far.recv(4) == b"late"
        a.connect(address, TIMEOUT_S).close()


def test_block_of_ports_leaves_the_others(hosts: Hosts) -> None:
    """Only connections to the ports of the range time out, from either side."""
    a, b = hosts
    hosts.block(a, b, ports=range(5000, 5010))
    try:
        for client, server in ((a, b), (b, a)):
            with server.listen(5009) as blocked, server.listen(5010) as free:
                with pytest.raises(TimeoutError):
                    client.connect(blocked.getsockname(), BLOCKED_S)
                client.connect(free.getsockname(), TIMEOUT_S).close()
    finally:
        hosts.unblock(a, b)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("gbit_s", [1.0, 0.2])
def test_bandwidth_is_about_what_is_asked_for(gbit_s: float) -> None:
    """A stream each way at the same time gets about the rate, neither much more (bursts) nor much less (drops)."""
    size_bytes = round(gbit_s * 1e9 / 8 * 0.05)  # 50 ms
    with Hosts(2, bandwidth_gbit_s=gbit_s) as hosts:
        seconds = median(exchange_s(hosts[0], hosts[1], size_bytes, repeats=7))
    assert 1 / 1.3 < size_bytes * 8 / seconds / (gbit_s * 1e9) < 1.1


def test_hosts_end_with_the_process_that_made_them() -> None:
    """Where it is killed, all processes of its hosts are gone soon after, daemons too."""
    script = f"""
import subprocess, time
from tests.hosts.network import Hosts
hosts = Hosts(2).__enter__()
hosts[0].popen({DAEMON}, stdout=subprocess.PIPE).stdout.readline()
print(hosts[0].pid, hosts[1].pid, hosts[0].processes()[-1], flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as child:
        pids = {int(pid) for pid in child.stdout.readline().split()}
        assert len(pids & {pid for pid, _ in living()}) == 3
        child.kill()
    until_gone(lambda: [pid for pid, _ in living() if pid in pids])


@pytest.mark.slow
def test_ray_runs_a_task_on_each_host() -> None:
    """A cluster of two hosts runs a task on each at its own address, and leaves nothing at its end."""
    with Hosts(2) as hosts:
        with RayHosts(hosts, cpus=1) as cluster:
            done = hosts[0].run([sys.executable, "-c", TASKS], env=cluster.environment)
            assert done.stdout.splitlines() == ["10.77.0.1 host-0", "10.77.0.2 host-1"]
        assert [host.processes() for host in hosts] == [[], []]
