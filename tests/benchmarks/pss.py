"""The memory of a process tree, each shared page counted once.

The proportional set size (PSS, `man 5 proc_pid_smaps`) of a process counts a page that n processes map as 1/n of it.
So the sum over the tree is what the tree takes, and shared memory is in it once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
KIB = 1024

# What Ray itself runs beside the actors: part of a cluster's cost, and none of the job's.
RAYS_OWN = ("-packages/ray/", "ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Proportional set size of a process: all of it, and the part in shared memory (/dev/shm)."""

    total_bytes: int
    shared_memory_bytes: int


def parse_rollup(text: str) -> Memory:
    """The text of /proc/PID/smaps_rollup; KeyError where the kernel gives no PSS (before Linux 5.9 not by kind)."""
    sizes = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            sizes[name] = int(value.split()[0]) * KIB
    return Memory(total_bytes=sizes["Pss"], shared_memory_bytes=sizes["Pss_Shmem"])


def descendants(root: int, parents: Mapping[int, int]) -> set[int]:
    """`root` and every process below it; `parents` is PID -> parent's PID."""
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree


def is_rays_own(command: str) -> bool:
    """Whether a command line is one of Ray's own processes: a daemon, or a worker that nothing runs in."""
    return any(mark in command for mark in RAYS_OWN)


def _processes() -> Iterator[tuple[int, str]]:
    """PID and /proc/PID/stat of every process."""
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            try:
                yield int(folder.name), (folder / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue


def parent_of(stat: str) -> int:
    """The parent's PID in the text of /proc/PID/stat, whose second field, in parentheses, may hold anything."""
    return int(stat.rpartition(")")[2].split()[1])


def measure(pid: int) -> Memory | None:
    """The memory of a process; None where it has ended."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return None
    return parse_rollup(text) if text else None


def measure_tree(root: int) -> dict[str, Memory]:
    """The processes of a tree but Ray's own: "PID command" -> memory. Those that end meanwhile are left out."""
    parents = {pid: parent_of(stat) for pid, stat in _processes()}
    found = {}
    for pid in sorted(descendants(root, parents)):
        try:
            command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if command and not is_rays_own(command) and (memory := measure(pid)):
            found[f"{pid} {command}"] = memory
    return found
