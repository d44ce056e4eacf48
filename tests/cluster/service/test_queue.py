"""Which job starts next, and why the others wait."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.resources import Resources
from thalweg_cluster.service.queue import Room, decide, room_of


@dataclass(frozen=True)
class Job:
    id: int
    workers: int = 1
    priority: int = 0
    gpus: float = 0.0


ROOM = Room(cpus=4, free=4)


def test_jobs_start_by_priority_and_then_by_age():
    """The higher number first; of one priority, who came first."""
    waiting = [Job(1), Job(2, priority=5), Job(3, priority=-1), Job(4, priority=5)]
    assert decide(waiting, ROOM).start == (2, 4, 1, 3)


def test_a_job_that_does_not_fit_says_what_it_needs_and_what_there_is():
    """In CPUs."""
    decision = decide([Job(7, workers=4)], Room(cpus=4, free=2))
    assert decision.start == ()
    assert decision.why == {7: "needs 4 CPUs, 2 free"}


def test_what_starts_takes_its_room_from_those_behind():
    """Two of two fit into four; a third one waits."""
    decision = decide([Job(1, workers=2), Job(2, workers=2), Job(3)], ROOM)
    assert decision.start == (1, 2)
    assert decision.why == {3: "needs 1 CPU, 0 free"}


def test_a_large_job_is_not_kept_waiting_by_small_ones_behind_it():
    """They wait behind it, and say so."""
    decision = decide([Job(1, workers=4), Job(2), Job(3, workers=2)], Room(cpus=4, free=3))
    assert decision.start == ()
    assert decision.why == {1: "needs 4 CPUs, 3 free", 2: "needs 1 CPU, behind job 1", 3: "needs 2 CPUs, behind job 1"}


def test_a_job_that_no_room_would_be_enough_for_holds_up_nobody():
    """The cluster has lost a node since it was taken."""
    decision = decide([Job(1, workers=8), Job(2)], ROOM)
    assert decision.start == (2,)
    assert decision.why == {1: "needs 8 CPUs, the cluster has 4"}


def test_nothing_starts_while_nothing_is_known_of_the_cluster():
    """And each says why."""
    assert decide([Job(1)], None).why == {1: "the Ray cluster does not answer"}


jobs = st.lists(st.tuples(st.integers(1, 6), st.integers(-2, 2)), max_size=8)


@given(jobs, st.integers(1, 6), st.integers(0, 6))
def test_law_of_the_queue(shapes, cpus, free):
    """What starts fits; each job either starts or says why not; and nobody who fits the cluster is overtaken."""
    waiting = [Job(i, workers, priority) for i, (workers, priority) in enumerate(shapes)]
    free = min(free, cpus)
    decision = decide(waiting, Room(cpus=cpus, free=free))
    by_id = {job.id: job for job in waiting}
    assert sum(by_id[i].workers for i in decision.start) <= free
    assert sorted([*decision.start, *decision.why]) == [job.id for job in waiting]
    order = [job.id for job in sorted(waiting, key=lambda job: (-job.priority, job.id)) if job.workers <= cpus]
    assert list(decision.start) == order[: len(decision.start)]
    if len(decision.start) < len(order):
        taken = sum(by_id[i].workers for i in decision.start)
        assert by_id[order[len(decision.start)]].workers > free - taken, "the next one did not fit"


@pytest.mark.parametrize(
    ("cpus", "unused", "started", "free"),
    [
        (4, 4.0, [], 4),
        (4, 2.0, [2], 2),  # Ray has given ours to it
        (4, 4.0, [2], 2),  # Ray has not yet
        (4, 1.0, [2], 1),  # somebody else has one
        (4, 3.5, [], 3),  # or a part of one
        (4, 0.0, [2], 0),  # ours took more than the least
        (2, 2.0, [4], 0),  # a node was lost
    ],
)
def test_what_is_free_for_jobs_of_the_service(cpus, unused, started, free):
    """What Ray has not given away yet counts as taken, and what others have is not ours."""
    jobs = [Job(i, workers) for i, workers in enumerate(started)]
    assert room_of(Resources(cpus), Resources(unused), jobs) == Room(cpus=cpus, free=free)


def test_gpus_are_counted_beside_cpus():
    """Of what there is too little is what the message says; who needs no GPU is not kept by that."""
    room = Room(cpus=8, free=8, gpus=2.0, free_gpus=1.0)
    decision = decide([Job(1, workers=2, gpus=2.0)], room)
    assert decision.why == {1: "needs 2 GPUs, 1 free"}
    decision = decide([Job(1, workers=2, gpus=0.6), Job(2, gpus=0.4), Job(3, gpus=0.5), Job(4, gpus=3.0)], room)
    assert decision.start == (1, 2)
    assert decision.why == {3: "needs 0.5 GPUs, 0 free", 4: "needs 3 GPUs, the cluster has 2"}


def test_gpus_of_started_jobs_and_of_others_are_not_free():
    """Of three GPUs ours have one and a half, of which Ray knows one; somebody else has a half."""
    started = [Job(1, gpus=1.0), Job(2, gpus=0.5)]
    room = room_of(Resources(8, 3.0), Resources(6.0, 1.0), started)
    assert (room.free, room.free_gpus) == (6, 1.0)
    room = room_of(Resources(8, 3.0), Resources(5.0, 0.5), started)
    assert (room.free, room.free_gpus) == (5, 0.5)
