"""Who starts, ends and settles jobs: with a table, and without Ray, sockets or commands."""

from __future__ import annotations

import json
import signal
import sqlite3

import pytest
from tests.cluster.service.rows import submission

from thalweg_cluster.resources import Resources
from thalweg_cluster.service.cluster import Seen
from thalweg_cluster.service.keeper import INSIST_S, KILL_S, Changes, Keeper, tail
from thalweg_cluster.service.table import JobTable
from thalweg_proto.jobs import State


class FakeRunner:
    """alive: folders whose command goes on; ended: exit statuses; said: what was done, in order."""

    def __init__(self):
        self.alive, self.ended, self.said, self.refuses = set(), {}, [], False

    def start(self, folder, cluster, *, again, same):
        self.said.append(("start", folder.name, cluster, again, same))
        self.alive.add(folder)

    def going_on(self, folder):
        return folder in self.alive

    def status(self, folder):
        return self.ended.pop(folder, None)

    def signal(self, folder, number):
        if self.refuses:
            return False
        self.said.append(("signal", folder.name, signal.Signals(number).name))
        return True

    def end(self, folder, status, summary=None):
        folder.mkdir(exist_ok=True)
        if summary is not None:
            (folder / "summary.json").write_text(json.dumps({"state": summary, "workers": 2}))
        self.alive.discard(folder)
        self.ended[folder] = status


class FakeCluster:
    own, why_not = True, "it is being started"

    def __init__(self):
        self.seen = Seen(address="here:1", nodes=(Resources(2), Resources(2)), unused=Resources(4))


class World:
    """A keeper with a clock that the test sets."""

    def __init__(self, folder):
        self.folder = folder
        self.table = JobTable(folder / "jobs.sqlite3")
        self.runner, self.cluster, self.now = FakeRunner(), FakeCluster(), 100.0
        self.again()

    def again(self):
        """As after a restart of the service."""
        self.keeper = Keeper(self.table, self.folder, self.runner, self.cluster, Changes(), lambda: self.now)

    def add(self, **values):
        number = self.table.count() + 1
        return self.table.add(submission(f"request-{number}", **values), lambda _: None).id

    def states(self):
        self.keeper.look()
        return {job.id: job.state.value for job in reversed(self.table.newest(100))}

    def job(self, job_id):
        return self.table.get(job_id)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.table.close()


def test_gpus_of_jobs_that_run_are_taken(world):
    """Two jobs share the one GPU; the third waits for it, however many CPUs there are."""
    world.cluster.seen = Seen(address="here:1", nodes=(Resources(16, 1),), unused=Resources(16, 1))
    for gpus in (0.5, 0.5, 0.25):
        world.add(workers=1, gpus=gpus)
    assert world.states() == {1: "running", 2: "running", 3: "queued"}
    assert world.keeper.why == {3: "needs 0.25 GPUs, 0 free"}
    assert world.states()[3] == "queued"  # also at the next look, when the others count as started


def test_jobs_start_as_there_is_room_and_the_next_when_one_has_ended(world):
    """What it took is counted; each says why it waits."""
    for _ in range(3):
        world.add()
    assert world.states() == {1: "running", 2: "running", 3: "queued"}
    assert world.keeper.why == {3: "needs 2 CPUs, 0 free"}
    assert world.runner.said == [("start", "1", "here:1", False, False), ("start", "2", "here:1", False, False)]
    world.now = 110.0
    world.runner.end(world.keeper.folder(1), 0, "succeeded")
    assert world.states() == {1: "succeeded", 2: "running", 3: "running"}
    done = world.job(1)
    assert (done.worker_seconds, done.ended_s, done.attempts) == (20.0, 110.0, 1)


def test_nothing_starts_before_the_cluster_is_there(world):
    """It says why there is none."""
    world.cluster.seen = None
    world.add()
    assert world.states() == {1: "queued"}
    assert world.keeper.why == {1: "no Ray cluster: it is being started"}


def test_a_command_that_dies_is_started_again_and_goes_on(world):
    """On the same cluster, where something of it may be alive; until it has failed too often."""
    world.add(max_failures=1)
    world.states()
    world.runner.end(world.keeper.folder(1), -9)
    assert world.states() == {1: "running"}
    assert world.runner.said[-1] == ("start", "1", "here:1", True, True)
    assert world.job(1).failures == 1
    world.runner.end(world.keeper.folder(1), -9)
    assert world.states() == {1: "failed"}


def test_a_service_that_is_started_again_finds_commands_that_go_on(world):
    """It starts nothing twice, and hears how they end."""
    world.add(max_failures=0)
    world.states()
    world.again()
    assert world.states() == {1: "running"}
    assert len(world.runner.said) == 1
    world.runner.end(world.keeper.folder(1), 0, "succeeded")
    assert world.states() == {1: "succeeded"}


def test_a_job_whose_command_went_with_the_service_goes_on_and_it_does_not_count(world):
    """Also one that was killed before it started the command that the table tells of."""
    world.add(max_failures=0)
    world.states()
    world.runner.alive.clear()
    world.again()
    assert world.states() == {1: "running"}
    assert (world.job(1).failures, world.job(1).attempts) == (0, 2)


def test_a_command_on_a_cluster_of_ours_that_is_gone_is_killed_and_goes_on_on_the_new_one(world):
    """It could hang on to the old one for a minute."""
    world.add(max_failures=0)
    world.states()
    world.cluster.seen = Seen(address="here:2", nodes=(Resources(2),), unused=Resources(2))
    assert world.states() == {1: "running"}
    assert world.runner.said[-1] == ("signal", "1", "SIGKILL")
    world.runner.end(world.keeper.folder(1), -9)
    assert world.states() == {1: "running"}
    assert world.runner.said[-1] == ("start", "1", "here:2", True, False)
    assert world.job(1).failures == 0


def test_while_the_cluster_is_away_a_lost_command_is_not_judged(world):
    """It may have been lost with it."""
    world.add(max_failures=0)
    world.states()
    world.runner.end(world.keeper.folder(1), 1)
    world.cluster.seen = None
    assert world.states() == {1: "running"}
    world.cluster.seen = Seen(address="here:2", nodes=(Resources(2),), unused=Resources(2))
    assert world.states() == {1: "running"}
    assert world.job(1).attempts == 2


def test_a_job_that_is_cancelled_is_asked_to_end_then_told_then_made_to(world):
    """Once each: the second signal leaves out the last checkpoint, the third is SIGKILL."""
    world.add()
    world.states()
    world.table.change(1, State.CANCELLING, cancelled_s=world.now)
    world.runner.refuses = True  # it is not there yet
    world.states()
    world.runner.refuses = False
    for later, said in ((0, 1), (1, 1), (INSIST_S + 1, 2), (KILL_S + 1, 3), (KILL_S + 2, 3)):
        world.now = 100.0 + later
        assert world.states() == {1: "cancelling"}
        assert len(world.runner.said) == 1 + said
    assert [what[2] for what in world.runner.said[1:]] == ["SIGTERM", "SIGTERM", "SIGKILL"]
    world.runner.end(world.keeper.folder(1), -9)
    assert world.states() == {1: "cancelled"}


def test_when_the_service_ends_so_do_the_jobs_on_its_own_cluster_and_they_go_on_later(world):
    """With a checkpoint; none starts meanwhile."""
    world.add()
    world.states()
    world.add()
    world.keeper._leaving = True
    assert world.states() == {1: "running", 2: "queued"}
    assert world.runner.said[-1] == ("signal", "1", "SIGTERM")
    world.runner.end(world.keeper.folder(1), 130, "cancelled")
    assert world.states() == {1: "queued", 2: "queued"}
    world.again()
    assert world.states() == {1: "running", 2: "running"}


def test_when_the_service_ends_jobs_on_a_given_cluster_go_on(world):
    """They are not the service's."""
    world.cluster.own = False
    world.add()
    world.states()
    world.keeper.close()
    assert world.states() == {1: "running"}
    assert len(world.runner.said) == 1


def test_a_resume_that_finds_nothing_to_go_on_from_trains_anew(world):
    """The coordinator that it was to join is gone, and there was no checkpoint yet."""
    world.add()
    world.states()
    folder = world.keeper.folder(1)
    world.runner.end(folder, -9)
    (folder / "coordinator.json").touch()
    world.states()
    world.runner.end(folder, 2)
    assert world.states() == {1: "running"}
    assert not (folder / "coordinator.json").exists()


def test_a_disk_that_is_full_starts_nothing_and_stops_nothing(world, monkeypatch):
    """A job is not started that the table could not say was; when there is room again, it starts."""
    world.add()
    world.add()
    real = world.table.change

    def full(*args, **values):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(world.table, "change", full)
    with pytest.raises(sqlite3.OperationalError):
        world.keeper.look()
    assert world.runner.said == []
    monkeypatch.setattr(world.table, "change", real)
    assert world.states() == {1: "running", 2: "running"}


def test_the_thread_goes_on_after_a_mistake(world, monkeypatch):
    """It is logged, and the next look does what there is to do."""
    world.add()
    real, times = world.keeper.look, []

    def look():
        times.append(1)
        if len(times) < 3:
            raise OSError("no space left on device") if len(times) == 1 else ValueError("a mistake")
        real()

    monkeypatch.setattr(world.keeper, "look", look)
    world.cluster.own = False
    world.keeper.open()
    known = 0
    while world.job(1).state is State.QUEUED:
        known = world.keeper._changes.wait(known, 10.0)
    world.keeper.close()
    assert len(times) >= 3


def test_the_last_lines_of_a_log_are_whole(tmp_path):
    """However long it is."""
    file = tmp_path / "log.txt"
    assert tail(file) == ""
    file.write_text("".join(f"line {i}\n" for i in range(1000)))
    lines = tail(file).splitlines()
    assert lines == [f"line {i}" for i in range(1000 - len(lines), 1000)]
    assert 100 < len(lines) < 300
