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

from thalweg_cluster.resources import DIGITS, Resources, counted


class Waiting(Protocol):
    """A job in the queue. workers: it needs so many CPUs, at least; gpus: of all these workers together."""

    @property
    def id(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def gpus(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Room:
    """CPUs and GPUs of the cluster: all, and those that nobody uses."""

    cpus: int
    free: int
    gpus: float = 0.0
    free_gpus: float = 0.0


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
    free, first = Resources(room.free, room.free_gpus), None  # first: of those that wait for room
    for job in ordered:
        needs = Resources(job.workers, job.gpus)
        if lack := _lack(needs, Resources(room.cpus, room.gpus), "the cluster has {:g}"):
            why[job.id] = lack
        elif first is not None:
            why[job.id] = f"needs {counted(needs.cpus, 'CPU')}, behind job {first}"
        elif lack := _lack(needs, free, "{:g} free"):
            why[job.id] = lack
            first = job.id
        else:
            start.append(job.id)
            free = Resources(free.cpus - needs.cpus, round(free.gpus - needs.gpus, DIGITS))
    return Decision(start=tuple(start), why=why)


def _lack(needs: Resources, there: Resources, words: str) -> str:
    """Of what there is too little, and how much there is, in `words`; "": of nothing."""
    for needed, found, what in zip(needs, there, ("CPU", "GPU"), strict=True):
        if needed > found:
            return f"needs {counted(needed, what)}, {words.format(found)}"
    return ""


def room_of(there: Resources, unused: Resources, started: Iterable[Waiting]) -> Room:
    """What is free for the jobs of the service on a cluster that others may use, too.

    there:   of the cluster
    unused:  what nobody has, as Ray says
    started: the jobs that were started; Ray may not have given them yet what they need

    What Ray has given away beyond that belongs to others, or to jobs that took more than the least.
    """
    jobs = list(started)
    cpus = _free(there.cpus, unused.cpus, sum(job.workers for job in jobs))
    gpus = _free(there.gpus, unused.gpus, sum(job.gpus for job in jobs))
    return Room(cpus=int(there.cpus), free=int(cpus), gpus=there.gpus, free_gpus=round(gpus, DIGITS))


def _free(there: float, unused: float, ours: float) -> float:
    others = max(0.0, there - unused - ours)
    return max(0.0, there - ours - others)
