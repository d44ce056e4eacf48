"""Which job starts next, and why each other one waits. Pure.

Rules:
  - A higher priority goes first; of one priority, who came first.
  - The first one that does not fit holds up all behind it: else small jobs would keep a large one waiting for ever.
  - One that the whole cluster would not hold holds up nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Waiting(Protocol):
    """A job in the queue. workers: it needs so many CPUs, at least."""

    @property
    def id(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def workers(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Room:
    """CPUs of the cluster: all, and those that nobody uses."""

    cpus: int
    free: int


@dataclass(frozen=True, kw_only=True)
class Decision:
    """start: the ids of those that start now, in order; why: for each other one, what it waits for."""

    start: tuple[int, ...]
    why: dict[int, str]


def decide(waiting: Iterable[Waiting], room: Room | None) -> Decision:
    """`room`: None where nothing is known of the cluster."""
    ordered = sorted(waiting, key=lambda job: (-job.priority, job.id))
    if room is None:
        return Decision(start=(), why={job.id: "the Ray cluster does not answer" for job in ordered})
    start: list[int] = []
    why: dict[int, str] = {}
    free, first = room.free, None  # first: of those that wait for room
    for job in ordered:
        needs = f"needs {cpus(job.workers)}"
        if job.workers > room.cpus:
            why[job.id] = f"{needs}, the cluster has {room.cpus}"
        elif first is not None:
            why[job.id] = f"{needs}, behind job {first}"
        elif job.workers > free:
            why[job.id] = f"{needs}, {free} free"
            first = job.id
        else:
            start.append(job.id)
            free -= job.workers
    return Decision(start=tuple(start), why=why)


def room_of(cpus: int, unused: float, started: Iterable[int]) -> Room:
    """What is free for the jobs of the service on a cluster that others may use, too.

    cpus:    of the cluster
    unused:  CPUs that nobody has, as Ray says
    started: how many CPUs each job that was started needs at least; Ray may not have given them to it yet

    What Ray has given away beyond that belongs to others, or to jobs that took more than the least.
    """
    ours = sum(started)
    others = max(0.0, cpus - unused - ours)
    return Room(cpus=cpus, free=max(0, int(cpus - ours - others)))


def cpus(count: int) -> str:
    """e.g. "4 CPUs"."""
    return f"{count} CPU{'' if count == 1 else 's'}"
