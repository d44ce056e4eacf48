"""The coordinator's way from one attempt to the next, with attempts that only say what they came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from thalweg_cluster.checkpoints import (
    FileStore,
    Manifest,
    ReplicaMemory,
    ReplicaStore,
    ShardState,
    Store,
    commit,
    write_shard,
)
from thalweg_cluster.launch.attempts import Outcome
from thalweg_cluster.launch.coordinator import Leading
from thalweg_cluster.launch.failures import Loss
from thalweg_cluster.launch.journal import Journal
from thalweg_cluster.launch.preparation import prepare
from thalweg_cluster.launch.record import Record, read_record
from thalweg_cluster.reporting.files import RunFolder, read_summary
from thalweg_cluster.server.spec import RunResult
from thalweg_proto.errors import RunError
from thalweg_proto.job import load_job
from thalweg_proto.layout import Layout

JOB = """
name = "small"
[data]
train = "small.csv"
[model]
use = "linear"
[train]
steps = 10
batch_size = 2
[optimizer]
rule = "sgd"
learning_rate = 0.1
"""
GOOD = Outcome(RunResult.of_checkpoint(10, "00"), None, [], hosts=1, servers=1, workers=2)
LOST = Outcome(
    None, "the server failed: its process died", [Loss("server", 0, "its process died")], hosts=1, servers=1, workers=2
)


class Attempts:
    """Come to what is written, one after the other; `made`: with which generation, from which step.

    dead: the workers that die in the first one; `replaced`: whether each of them might be replaced
    in_memory: where replicas are; those of a coordinator before, once they are taken over
    """

    def __init__(
        self,
        *outcomes: Outcome | Exception,
        opens: bool = True,
        dead: Sequence[int] = (),
        in_memory: Store | None = None,
        before: Store | None = None,
    ) -> None:
        self._outcomes = list(outcomes)
        self._opens = opens
        self._dead = dead
        self._in_memory = in_memory
        self._before = before
        self.replaced: list[bool] = []
        self.made: list[tuple[int, int]] = []

    def replicas(self) -> Store | None:
        return self._in_memory

    def take_over(self) -> None:
        self._in_memory = self._before

    def make(self, preparation, generation, on_opened, may_replace):
        self.made.append((generation, preparation.first))
        if self._opens:
            on_opened()
        self.replaced += [may_replace(Loss("worker", rank, "its process died")) for rank in self._dead]
        self._dead = ()
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def folder(tmp_path):
    """Of a run that has not begun."""
    (tmp_path / "small.csv").write_text("a,b,label\n1,2,0\n3,4,1\n5,6,0\n7,8,1\n")
    (tmp_path / "job.toml").write_text(JOB)
    return RunFolder(tmp_path)


def begin(folder, **changes) -> None:
    record = Record(address="x:1", namespace="n", name="small-0", started_at=0.0, first=0, generation=0)
    replace(record, **changes).write(folder.path)


def lead(folder, attempts, handed=True) -> tuple[dict, list[str]]:
    journal = Journal()
    leading = Leading(folder, journal, attempts)
    if handed:
        leading.prepared.put(prepare(load_job(folder.path / "job.toml", []), folder.path, None))
    summary = leading.lead()
    return summary, [entry for entry in journal.news("", 0, 0.0).entries if isinstance(entry, str)]


def test_each_attempt_is_a_generation_and_written_down(folder):
    """Two losses, then it goes well."""
    begin(folder)
    attempts = Attempts(LOST, LOST, GOOD)
    summary, lines = lead(folder, attempts)
    assert attempts.made == [(1, 0), (2, 0), (3, 0)]
    assert (summary["state"], summary["restarts"]) == ("succeeded", {"worker": 0, "server": 2})
    assert read_summary(folder.path) == summary
    record = read_record(folder.path)
    assert (record.generation, record.attempts, record.times, record.losses) == (3, 3, 2, tuple(LOST.losses * 2))
    assert lines[:2] == [
        "[yellow]lost[/] the server of host 0: its process died",
        "going on after step 0 of 10 (failure 1 of 3)",
    ]


def save(store: Store, layout: Layout, step: int) -> None:
    """What a run has to go on from after `step` steps."""
    part = np.zeros(layout.size, np.float32)
    state = ShardState(begin=0, end=layout.size, parameters=part, slots={}, updates=step)
    about = Manifest.about(job="", layout=layout, rule="sgd", slots=(), hosts=1, generation=1)
    file = write_shard(store, step, state, host=0, hosts=1)
    commit(store, replace(about, step=step, version=step, files=(file,)), keep=9)


@pytest.mark.parametrize(
    ("saved", "replicated", "spoilt", "goes_on", "warned"),
    [
        ([2], [5], False, "5 of 10 from replicas", False),
        ([6], [5], False, "6 of 10", False),
        ([5], [5], False, "5 of 10 from replicas", False),
        ([], [5], False, "5 of 10 from replicas", False),
        ([2], [], False, "2 of 10", False),
        ([2], [5], True, "2 of 10", True),
        ([], [5], True, "0 of 10", True),
    ],
)
def test_a_run_goes_on_from_the_newest_checkpoint_or_replica(saved, replicated, spoilt, goes_on, warned, folder):
    """Whichever is later and whole; a replica that is not is told by name."""
    begin(folder)
    layout = prepare(load_job(folder.path / "job.toml", []), folder.path, None).layout
    memories = [ReplicaMemory(), ReplicaMemory()]
    for step in saved:
        save(FileStore(folder.path / "checkpoints"), layout, step)
    for step in replicated:
        save(ReplicaStore(memories), layout, step)
    if spoilt:
        for memory in memories:
            [name] = [name for name in memory.names() if "shard" in name]
            memory.put(name, 0, 1, b"x")
    attempts = Attempts(LOST, GOOD, in_memory=ReplicaStore(memories))
    _, lines = lead(folder, attempts)
    assert attempts.made == [(1, 0), (2, int(goes_on.split()[0]))]
    assert lines[-1] == f"going on after step {goes_on} (failure 1 of 3)"
    name = "not used: replica checkpoint_000005: shard_00000_of_00001.safetensors: expected"
    assert [name in line for line in lines[:-2]] == [True] * warned


def test_a_worker_that_died_may_be_replaced_as_often_as_the_job_allows(folder):
    """Three are; it is written down before it is done. The fourth one ends the attempt, and the run."""
    begin(folder)
    attempts = Attempts(
        Outcome(None, "worker 1 failed", [Loss("worker", 1, "its process died")], hosts=1, servers=1, workers=2),
        dead=[0, 1, 1, 1],
    )
    summary, lines = lead(folder, attempts)
    assert attempts.replaced == [True, True, True, False]
    assert lines[0] == (
        "[yellow]lost[/] worker 0: its process died; the others go on, and another one takes its place (failure 1 of 3)"
    )
    assert (summary["state"], summary["restarts"]) == ("failed", {"worker": 4, "server": 0})
    assert "1 x worker 0: its process died\n  3 x worker 1: its process died" in summary["error"]
    assert read_record(folder.path).times == 3


def test_a_run_that_grows_has_not_failed(folder):
    """It goes on with more workers, in another generation; nothing is lost and nothing counted."""
    begin(folder)
    attempts = Attempts(replace(GOOD, resizes=True), replace(GOOD, workers=4))
    summary, lines = lead(folder, attempts)
    assert attempts.made == [(1, 0), (2, 0)]
    assert lines == ["going on after step 0 of 10 (there is room for more workers)"]
    assert (summary["workers"], summary["restarts"]) == (4, {"worker": 0, "server": 0})
    assert read_record(folder.path).times == 0


def test_a_coordinator_that_comes_after_another_counts_that_as_a_failure(folder):
    """It prepares the job itself, and goes on counting where the one before was."""
    begin(folder, attempts=1, generation=1, opened=True, times=1, losses=tuple(LOST.losses))
    attempts = Attempts(GOOD)
    summary, lines = lead(folder, attempts, handed=False)
    assert attempts.made == [(2, 0)]
    assert summary["restarts"] == {"worker": 0, "server": 1}
    assert lines == [
        "[yellow]lost[/] the coordinator: its process died",
        "going on after step 0 of 10 (failure 2 of 3)",
    ]


def test_a_coordinator_goes_on_from_the_replicas_of_the_one_before(folder):
    """They are in memories that have outlived it; the newest checkpoint is older."""
    begin(folder, attempts=1, generation=1, opened=True)
    layout = prepare(load_job(folder.path / "job.toml", []), folder.path, None).layout
    memories = [ReplicaMemory(), ReplicaMemory()]
    save(FileStore(folder.path / "checkpoints"), layout, 3)
    save(ReplicaStore(memories), layout, 6)
    attempts = Attempts(GOOD, before=ReplicaStore(memories))
    _, lines = lead(folder, attempts, handed=False)
    assert attempts.made == [(2, 6)]
    assert lines[-1] == "going on after step 6 of 10 from replicas (failure 1 of 3)"


def test_coordinators_that_die_again_and_again_end_the_run(folder):
    """Beyond max_failures nothing is started; the causes are told."""
    died = Loss("coordinator", 0, "its process died")
    begin(folder, attempts=4, generation=4, opened=True, times=3, losses=(died,) * 3)
    summary, _ = lead(folder, Attempts(), handed=False)
    assert summary["state"] == "failed"
    assert summary["error"] == (
        "the coordinator failed: its process died\nmore than cluster.max_failures = 3 failures:\n"
        "  4 x the coordinator: its process died"
    )


def test_a_run_that_has_its_summary_is_over(folder):
    """A coordinator that is started again while the one before lingered does nothing."""
    begin(folder, attempts=1, generation=1)
    folder.write_summary({"state": "succeeded"})
    assert lead(folder, Attempts(), handed=False) == ({"state": "succeeded"}, [])


def test_where_nothing_could_be_started_there_is_no_run(folder):
    """No room at the first attempt: the error is told, and the record removed."""
    begin(folder)
    with pytest.raises(RunError, match="no room"):
        lead(folder, Attempts(RunError("no room"), opens=False))
    assert not (folder.path / "coordinator.json").exists()


def test_a_run_that_went_on_from_a_checkpoint_does_not_begin_anew_without_it(folder):
    """It fails, with the place."""
    begin(folder, first=5, attempts=1, generation=1)
    with pytest.raises(RunError, match=r"checkpoints: expected a whole checkpoint of step 5 or later; found none"):
        lead(folder, Attempts(), handed=False)
