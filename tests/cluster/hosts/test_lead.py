from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.checkpoints import TrainingState
from thalweg_cluster.consistency import Verdict
from thalweg_cluster.hosts.lead import BarrierLead, StaleLead
from thalweg_cluster.hosts.replicating import NOTICE
from thalweg_cluster.hosts.spec import ServedSpec, Topology
from thalweg_cluster.server.account import Account
from thalweg_cluster.step import StepSpec
from thalweg_proto.layout import Layout
from thalweg_proto.messages import StepRecord, pack_step
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage

SIZE = 3 * CHUNK


class Hosts:
    """A lead, and hosts that say what a test lets them say. What it tells them is kept in words: "1: norm step=0"."""

    kind: Any

    def __init__(
        self, workers=(1, 1), owns=None, size: int = SIZE, replicate_every_s: float = 0.0, **changed: Any
    ) -> None:
        given = {
            "microbatches": sum(workers),
            "batch_size": sum(workers),
            "steps": 3,
            "rule": "sgd",
            "schedule": {"name": "constant", "learning_rate": 0.5, "warmup_steps": 0},
        }
        ends = [sum(workers[: host + 1]) for host in range(len(workers))]
        ranks = tuple(range(end - count, end) for end, count in zip(ends, workers, strict=True))
        step = StepSpec(**given | changed)
        spec = ServedSpec(
            host=0,
            address="",
            job_id="job",
            layout=Layout.of({"w": (size,)}),
            topology=Topology(ranks=ranks, owns=tuple(owns or [True] * len(workers))),
            step=step,
            replicate_every_s=replicate_every_s,
        )
        self.account = Account(step, first=0, workers=sum(workers), bytes_pushed=0, bytes_published=0)
        self.committed: list[tuple[int, list[str]]] = []
        self.lead = self.kind(
            spec,
            self.account,
            lambda host, message: self.told.append((host, words(message))),
            lambda version, parts: self.committed.append((version, [part.file for part in parts])),
            TrainingState.new(np.zeros(size, np.float32)),
        )
        self.told: list[tuple[int, str]] = []
        self.hosts = range(len(workers))

    def say(self, host: int, **message: Any) -> list[str]:
        """A host's word; what is told for it: "all: ..." where all hosts are told the same."""
        return self.after(lambda: self.lead.on(host, HostMessage(**message)))

    def after(self, call: Any) -> list[str]:
        """What is told while `call` runs."""
        self.told = []
        call()
        heard = {word: [host for host, other in self.told if other == word] for _, word in self.told}
        to_all = [word for word, hosts in heard.items() if hosts == list(self.hosts)]
        return [
            *(f"all: {word}" for word in to_all),
            *(f"{host}: {word}" for host, word in self.told if word not in to_all),
        ]

    def ready(self) -> list[str]:
        """All hosts are; what is told with the last one."""
        return [self.say(host, ready=HostMessage.Ready()) for host in self.hosts][-1]

    def pushed(self, host: int, step: int, part: int, loss: float = 1.0, rank: int = 0) -> list[str]:
        return self.say(host, pushed=HostMessage.Pushed(step=step, part=part, loss=loss, rank=rank))

    def applied(self, host: int, rank: int) -> list[str]:
        return self.say(host, applied=HostMessage.Applied(rank=rank))

    def whole(self, host: int, version: int) -> list[str]:
        return self.say(host, whole=HostMessage.Whole(version=version))

    def squares(self, host: int, step: int, first_chunk: int, *squares: float) -> list[str]:
        return self.say(host, squares=HostMessage.Squares(step=step, first_chunk=first_chunk, squares=squares))

    def left(self) -> list[list[str]]:
        return [self.say(host, left=HostMessage.Left()) for host in self.hosts]

    @property
    def steps(self) -> int:
        """Which are accounted."""
        return self.account.telemetry.steps

    @property
    def rows(self) -> list[tuple[int, float | None, float | None]]:
        """Of metrics.jsonl: step, loss and norm."""
        return [(row.step, row.train_loss, row.gradient_norm) for row in self.account.watch(0, 0.0).rows]

    def pushes(self, verdict: Verdict) -> int:
        return self.account.telemetry.pushes[verdict]


def words(message: LeadMessage) -> str:
    """A message to a host: its kind, and its fields that are not 0."""
    kind = message.WhichOneof("kind")
    body = getattr(message, kind)
    fields = [(f.name, value if isinstance(value, (int, float)) else list(value)) for f, value in body.ListFields()]
    return " ".join([kind, *(f"{name}={value}" for name, value in fields)])


class Barriered(Hosts):
    kind = BarrierLead


class Staled(Hosts):
    kind = StaleLead


both = pytest.mark.parametrize("kind", [Barriered, lambda *a, **k: Staled(*a, consistency="async", **k)])


# What holds in every job.


@both
def test_the_run_begins_when_all_hosts_are_ready(kind):
    """In any order; nobody is told anything before."""
    hosts = kind((1, 1, 1))
    assert [hosts.say(host, ready=HostMessage.Ready()) for host in (2, 0)] == [[], []]
    assert not hosts.lead.began
    assert hosts.say(1, ready=HostMessage.Ready())[0] == "all: begin"
    assert hosts.lead.began


@both
def test_a_failure_ends_the_run_on_all_hosts(kind):
    """The first one is the one that is told; a host without workers counts, too."""
    hosts = kind((1, 1, 0))
    assert hosts.say(2, failed=HostMessage.Failed(error="no room")) == ["all: stop"]
    hosts.say(1, failed=HostMessage.Failed(error="the other end is gone"))
    assert hosts.lead.error == "no room"
    hosts.lead.fail("host 1 is gone")
    assert hosts.lead.error == "no room"


@both
def test_the_run_is_done_when_the_workers_of_all_hosts_have_left(kind):
    """Of those that failed, too."""
    hosts = kind((1, 1))
    hosts.ready()
    hosts.lead.fail("no")
    hosts.say(0, left=HostMessage.Left())
    assert not hosts.lead.done
    hosts.say(1, left=HostMessage.Left())
    assert hosts.lead.done


@both
def test_records_and_evaluations_reach_the_account(kind):
    """Two steps of a worker, and the two chunks of the held-out set."""
    hosts = kind(chunks=2)
    record = pack_step(StepRecord(rank=1, microbatches=1, step=0, **dict.fromkeys(StepRecord._fields[3:], 0.25)))
    hosts.say(1, records=HostMessage.Records(records=record + record))
    assert hosts.account.telemetry.phases["compute"].count == 2
    for host in hosts.hosts:
        evaluated = HostMessage.Evaluated(version=3, chunk=host, labels=4, correct=1 + host, loss_sum=2.0)
        hosts.say(host, evaluated=evaluated)
    telemetry = hosts.account.telemetry
    assert (telemetry.evaluation_loss, telemetry.evaluation_accuracy) == (0.5, 3 / 8)


@both
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(kind, loss):
    """Its step, its microbatch and the learning rate are named; what comes after it changes nothing."""
    hosts = kind((2, 1))
    hosts.ready()
    assert hosts.pushed(0, 0, 1, loss, rank=1) == ["all: stop"]
    assert f"step 0: the loss of microbatch 1 is {loss}; the learning rate was 0.5" in hosts.lead.error
    assert [hosts.pushed(0, 0, 0), hosts.pushed(1, 0, 2, rank=2), hosts.whole(0, 1)] == [[], [], []]
    assert [hosts.applied(0, 0), hosts.applied(0, 1), hosts.applied(1, 2)] == [[], [], []]
    hosts.left()
    assert (hosts.steps, hosts.lead.done) == (0, True)


def replicated(hosts: Hosts, version: int, **of: Any) -> list[list[str]]:
    """All hosts have their parts of a replica."""
    parts = [HostMessage.Saved(version=version, replica=True, file=str(host), **of) for host in hosts.hosts]
    return [hosts.say(host, saved=saved) for host, saved in zip(hosts.hosts, parts, strict=True)]


@both
def test_a_job_without_replicas_has_none(kind):
    """However late it is; nor has one that has not begun."""
    without, waiting = kind((1, 1), steps=100), kind((1, 1), steps=100, replicate_every_s=1.0)
    without.ready()
    assert without.after(lambda: without.lead.replicate(1e9)) == []
    assert waiting.after(lambda: waiting.lead.replicate(1e9)) == []


# sync


def test_one_replica_at_a_time_of_a_version_that_no_host_has_yet():
    """All hosts are told of it; when all have their parts it is committed, and the next one may be due."""
    hosts = Barriered((1, 1), steps=100, replicate_every_s=1.0)
    hosts.ready()
    assert hosts.after(lambda: hosts.lead.replicate(1e9)) == [f"all: save version={NOTICE} replica=True"]
    assert hosts.after(lambda: hosts.lead.replicate(2e9)) == []
    replicated(hosts, NOTICE)
    assert hosts.committed == [(NOTICE, ["0", "1"])]
    assert hosts.after(lambda: hosts.lead.replicate(2e9)) == [], "the manifest is not written yet"
    hosts.lead.replica_ended()
    assert not hosts.lead.done, "a replica is no checkpoint of the last version"
    hosts.whole(0, 7)
    assert hosts.after(lambda: hosts.lead.replicate(3e9)) == [f"all: save version={7 + NOTICE} replica=True"]


def test_what_a_checkpoint_holds_is_not_replicated():
    """The same version, the last one included: nobody is told anything, and the next version will do."""
    hosts = Barriered((1, 1), steps=NOTICE + 3, save_every=NOTICE, replicate_every_s=1.0)
    hosts.ready()
    assert hosts.after(lambda: hosts.lead.replicate(1e9)) == []
    hosts.whole(0, 1)
    assert hosts.after(lambda: hosts.lead.replicate(1e9)) == [f"all: save version={NOTICE + 1} replica=True"]
    replicated(hosts, NOTICE + 1)
    hosts.lead.replica_ended()
    hosts.whole(0, 3)
    assert hosts.after(lambda: hosts.lead.replicate(2e9)) == []


def test_a_step_is_accounted_when_its_losses_are_known_and_its_version_is_there():
    """Whichever comes last; the loss is the mean over the batch, of which microbatch 0 is 2 samples and 1 is 3."""
    hosts = Barriered(batch_size=5, steps=1000)
    hosts.ready()
    hosts.pushed(1, 0, 1, 3.0)
    hosts.pushed(0, 0, 0, 1.0)
    assert hosts.steps == 0
    hosts.whole(0, 1)
    assert (hosts.steps, hosts.account.telemetry.loss) == (1, pytest.approx(0.4 * 1.0 + 0.6 * 3.0))
    hosts.pushed(0, 1, 0, 1.0)
    hosts.whole(0, 2)
    assert hosts.steps == 1
    hosts.pushed(1, 1, 1, 2.0)
    assert (hosts.steps, hosts.account.telemetry.loss) == (2, pytest.approx(1.6))


def test_a_host_may_be_heard_ahead_of_another():
    """Host 0's pushes of steps 0 to 2 come before the first one of host 1: all are accounted, in order."""
    hosts = Barriered(steps=1000)
    hosts.ready()
    for step in range(3):
        hosts.pushed(0, step, 0, float(step))
        hosts.whole(0, step + 1)
    assert hosts.steps == 0
    for step in range(3):
        hosts.pushed(1, step, 1, 10.0)
        assert (hosts.steps, hosts.account.telemetry.loss) == (step + 1, (step + 10) / 2)


@given(st.data(), st.integers(1, 4))
def test_the_account_is_the_same_in_whatever_order_hosts_are_heard(data, steps):
    """Each host's words come in its own order, those of several hosts in any: rows have the same losses and norms."""
    hosts = Barriered((2, 1, 1), steps=steps)
    hosts.ready()
    streams = [deque() for _ in hosts.hosts]
    for step in range(steps):
        for part, host in enumerate((0, 0, 1, 2)):
            streams[host].append(("pushed", step, part, float(step + part)))
        for host in hosts.hosts:
            streams[host].append(("squares", step, host, float((step + 1) ** 2)))
            streams[host].append(("whole", step + 1))
    while any(streams):
        host = data.draw(st.sampled_from([host for host in hosts.hosts if streams[host]]))
        name, *values = streams[host].popleft()
        getattr(hosts, name)(host, *values)
    norms = [math.sqrt(3 * (step + 1) ** 2) for step in range(steps)]
    assert hosts.rows == [(step + 1, step + 1.5, norms[step]) for step in range(steps)]
    assert hosts.pushes(Verdict.ACCEPTED) == 4 * steps
    hosts.left()
    assert hosts.lead.done


def test_the_run_is_not_done_before_its_last_step_is_accounted():
    """All workers have left, and host 1's push of the last step is still to be heard."""
    hosts = Barriered(steps=1)
    hosts.ready()
    hosts.pushed(0, 0, 0)
    hosts.squares(0, 0, 0, 1.0, 1.0, 1.0)
    hosts.whole(0, 1)
    hosts.left()
    assert not hosts.lead.done
    hosts.pushed(1, 0, 1)
    assert hosts.lead.done


def test_a_push_that_comes_twice_counts_as_a_duplicate():
    """Its loss is the first one's."""
    hosts = Barriered(steps=1000)
    hosts.ready()
    hosts.pushed(0, 0, 0, 1.0)
    hosts.pushed(0, 0, 0, 9.0)
    hosts.pushed(1, 0, 1, 1.0)
    hosts.whole(0, 1)
    assert hosts.account.telemetry.loss == 1.0
    assert (hosts.pushes(Verdict.ACCEPTED), hosts.pushes(Verdict.DUPLICATE)) == (2, 1)


def test_the_norm_is_told_when_all_shards_are_measured():
    """Chunks of two owners, the later ones first: sqrt(4 + 4 + 8) = 4. The step is accounted with it."""
    hosts = Barriered(steps=1000, clip_norm=1.0)
    hosts.ready()
    for host in hosts.hosts:
        hosts.pushed(host, 0, host)
    assert hosts.squares(1, 0, 1, 4.0, 8.0) == []
    assert hosts.squares(0, 0, 0, 4.0) == ["all: norm norm=4.0"]
    assert hosts.steps == 0
    hosts.whole(0, 1)
    assert (hosts.steps, hosts.account.telemetry.gradient_norm) == (1, 4.0)
    hosts.squares(0, 1, 0, 1.0)
    assert hosts.squares(1, 1, 1, 4.0, 4.0) == ["all: norm step=1 norm=3.0"]


@pytest.mark.parametrize("loss_last", [False, True])
@pytest.mark.parametrize(("loss", "squares"), [(math.nan, 4.0), (1.0, math.inf), (math.inf, math.nan)])
def test_a_step_that_is_not_finite_is_told_to_be_skipped(loss, squares, loss_last):
    """All owners hear one word, once loss and norm are known, whichever comes last; the step is accounted."""
    hosts = Barriered(steps=1000, skip=True)
    hosts.ready()
    calls = [
        lambda: hosts.pushed(0, 0, 0, loss),
        lambda: hosts.pushed(1, 0, 1),
        lambda: hosts.squares(0, 0, 0, squares),
        lambda: hosts.squares(1, 0, 1, 8.0, 4.0),
    ]
    told = [call() for call in (calls[2:] + calls[:2] if loss_last else calls)]
    assert told == [[], [], [], ["all: norm norm=nan"]]
    hosts.whole(0, 1)
    assert (hosts.steps, hosts.account.telemetry.skipped) == (1, 1)


def test_the_tenth_step_in_a_row_that_is_not_finite_ends_the_run():
    """Nine are skipped, and one that is finite begins the count anew; the owners hear nothing of the tenth."""
    hosts = Barriered(steps=1000, skip=True)
    hosts.ready()
    losses = [math.nan] * 9 + [1.0] + [math.nan] * 10
    for step, loss in enumerate(losses):
        for host in hosts.hosts:
            hosts.pushed(host, step, host, loss)
        hosts.squares(0, step, 0, 1.0)
        told = hosts.squares(1, step, 1, 1.0, 2.0)
        hosts.whole(0, step + 1)
    assert told == ["all: stop"]
    assert hosts.account.telemetry.skipped == 18
    assert "step 19: the loss is nan, the norm of the gradient 2.0" in hosts.lead.error
    assert "Lower optimizer.learning_rate" in hosts.lead.error


def test_without_clipping_nobody_is_told_a_norm():
    """It is kept for the row, and the row waits for it."""
    hosts = Barriered(steps=1)
    hosts.ready()
    for host in hosts.hosts:
        hosts.pushed(host, 0, host)
    hosts.whole(0, 1)
    assert hosts.rows == []
    assert [hosts.squares(0, 0, 0, 9.0), hosts.squares(1, 0, 1, 8.0, 8.0)] == [[], []]
    assert hosts.rows == [(1, 1.0, 5.0)]


def test_a_step_without_a_row_waits_for_no_norm():
    """Of 1,000 steps every tenth has a row."""
    hosts = Barriered(steps=1000)
    hosts.ready()
    for step in range(10):
        for host in hosts.hosts:
            hosts.pushed(host, step, host)
        hosts.whole(0, step + 1)
    assert (hosts.steps, hosts.rows) == (9, [])
    hosts.squares(0, 9, 0, 1.0, 4.0, 4.0)
    assert (hosts.steps, hosts.rows) == (10, [(10, 1.0, 3.0)])


def test_a_run_that_is_asked_to_stop_makes_the_version_under_way_and_the_next():
    """No host can be further; and no version is made that the job has not."""
    hosts = Barriered(steps=4)
    hosts.ready()
    assert hosts.after(hosts.lead.stop) == ["all: last version=2"]
    hosts.whole(0, 1)
    assert hosts.after(hosts.lead.stop) == ["all: last version=3"]
    hosts.whole(0, 3)
    assert hosts.after(hosts.lead.stop) == ["all: last version=4"]


# Backup workers


def test_with_a_backup_worker_a_step_is_closed_without_the_slowest():
    """All are told who is in it; the loss is the mean over those who are."""
    hosts = Barriered((1, 2), backup=1, steps=1000)
    hosts.ready()
    assert hosts.pushed(1, 0, 2, 4.0) == []
    assert hosts.pushed(0, 0, 0, 2.0) == ["all: closed parts=[0, 2]"]
    assert hosts.pushed(1, 0, 1, 100.0) == []
    hosts.whole(0, 1)
    assert hosts.account.telemetry.loss == pytest.approx(3.0)
    assert (hosts.pushes(Verdict.ACCEPTED), hosts.pushes(Verdict.LATE)) == (2, 1)


def test_a_step_is_closed_only_when_all_hosts_have_what_it_started_from():
    """Host 1 has no part in steps 0 and 1; host 2 has no workers, and a shard. Either may be last with version 1."""
    for last, other in ((1, 2), (2, 1)):
        hosts = Barriered((2, 1, 0), owns=[True, False, True], backup=1, steps=1000)
        hosts.ready()
        hosts.pushed(0, 0, 0)
        assert hosts.pushed(0, 0, 1) == ["all: closed parts=[0, 1]"]
        hosts.whole(0, 1)
        hosts.pushed(0, 1, 0)
        assert [hosts.pushed(0, 1, 1), hosts.whole(other, 1), hosts.pushed(1, 1, 2)] == [[], [], []]
        assert hosts.whole(last, 1) == ["all: closed step=1 parts=[0, 1]"]
        assert hosts.pushes(Verdict.LATE) == 1


def test_a_server_without_workers_and_without_a_shard_is_not_waited_for():
    """A vector of one chunk has one owner of two: the other one has no version that it could lack."""
    hosts = Barriered((1, 1, 0, 0), owns=[False, False, True, True], size=100, backup=1, steps=1000)
    hosts.ready()
    hosts.pushed(0, 0, 0)
    for host in (0, 1, 3):
        hosts.whole(host, 1)
    assert hosts.pushed(1, 1, 1) == ["all: closed step=1 parts=[1]"]


# Local steps


def test_with_local_steps_a_part_is_a_worker():
    """A round of four steps of two workers: the loss is the mean of theirs, and four steps are done."""
    hosts = Barriered(local_steps=4, steps=1000, microbatches=7, batch_size=7)
    hosts.ready()
    hosts.pushed(0, 0, 0, 1.0)
    hosts.pushed(1, 0, 1, 2.0)
    hosts.whole(0, 1)
    assert (hosts.steps, hosts.account.telemetry.loss) == (4, 1.5)


def test_a_loss_of_local_steps_that_is_not_finite_is_a_workers():
    """It is named, with the first step of its round."""
    hosts = Barriered(local_steps=4, steps=1000, microbatches=7, batch_size=7)
    hosts.ready()
    for host in hosts.hosts:
        hosts.pushed(host, 0, host)
    hosts.pushed(0, 1, 0)
    assert hosts.pushed(1, 1, 1, math.nan) == ["all: stop"]
    assert "step 4: the loss of worker 1 is nan" in hosts.lead.error


# ssp, async


def test_each_worker_is_granted_its_first_unit_on_its_own_host():
    """In the order of the ranks; the bound holds back those for whom there is none."""
    hosts = Staled((1, 2), microbatches=2, batch_size=2, consistency="ssp", staleness=0)
    assert hosts.ready() == ["all: begin", "0: granted", "1: granted rank=1 microbatch=1"]
    hosts = Staled((1, 2), microbatches=2, batch_size=2, consistency="ssp", staleness=1)
    assert hosts.ready()[-1] == "1: granted rank=2 step=1"


def test_async_knows_no_bound():
    """Whatever the job says of staleness."""
    hosts = Staled((1, 1), microbatches=1, batch_size=1, consistency="async", staleness=0)
    hosts.ready()
    hosts.pushed(1, 1, 0, rank=1)
    assert hosts.applied(1, 1) == ["1: granted rank=1 step=2"]


def test_what_a_push_sets_free_goes_to_the_hosts_that_wait():
    """Worker 2 waits for version 1; with it, worker 0 gets the unit after."""
    hosts = Staled((2, 1), microbatches=2, batch_size=2, consistency="ssp", staleness=0)
    hosts.ready()
    for rank in (1, 0):
        hosts.pushed(0, 0, rank, rank=rank)
    assert hosts.applied(0, 1) == []
    assert hosts.applied(0, 0) == [
        "1: granted rank=2 step=1 version=1",
        "0: granted rank=1 step=1 microbatch=1 version=1",
    ]


def test_a_version_is_accounted_when_all_its_units_are_applied():
    """With the mean of their losses, in the order of the versions; each push counts with its staleness."""
    hosts = Staled((1, 1, 1), microbatches=1, batch_size=1, consistency="async", steps=3)
    hosts.ready()
    for rank, loss in enumerate((1.0, 2.0, 4.0)):
        hosts.pushed(rank, rank, 0, loss, rank=rank)
    hosts.applied(2, 2)
    hosts.applied(1, 1)
    assert (hosts.steps, hosts.rows) == (0, [])
    hosts.applied(0, 0)
    assert hosts.rows == [(1, 1.0, None), (2, 2.0, None), (3, 4.0, None)]
    assert hosts.account.telemetry.staleness.summary() == {"mean": 1.0, "max": 2}


def test_a_version_is_evaluated_where_the_job_says_so_and_the_last_one_with_the_end():
    """Every second of three, and the last one, which all have then."""
    hosts = Staled((1, 0), microbatches=1, batch_size=1, consistency="async", steps=3, chunks=1, eval_every=2)
    hosts.ready()
    told = []
    for step in range(3):
        hosts.pushed(0, step, 0)
        told.append(hosts.applied(0, 0))
    assert told == [
        ["0: granted step=1 version=1"],
        ["all: evaluate version=2", "0: granted step=2 version=2"],
        ["all: last version=3 evaluate=True"],
    ]


def test_without_a_held_out_set_the_last_version_is_not_evaluated():
    """All are told that it is the last one, once."""
    hosts = Staled((1, 1), microbatches=2, batch_size=2, consistency="async", steps=1)
    hosts.ready()
    for rank in (0, 1):
        hosts.pushed(rank, 0, rank, rank=rank)
    assert hosts.applied(0, 0) == []
    assert hosts.applied(1, 1) == ["all: last version=1"]
    assert hosts.after(hosts.lead.stop) == []


def test_a_run_that_is_asked_to_stop_ends_with_the_step_that_has_begun():
    """Its units are still done, by whoever is free; the version that they make is the last, not evaluated for that."""
    hosts = Staled((1, 1), microbatches=3, batch_size=3, consistency="async", steps=9, chunks=1, eval_every=1)
    hosts.ready()
    assert hosts.after(hosts.lead.stop) == []
    for part, rank, told in (
        (0, 0, ["0: granted microbatch=2"]),
        (1, 1, []),
        (2, 0, ["all: last version=1"]),
    ):
        hosts.pushed(rank, 0, part, rank=rank)
        assert hosts.applied(rank, rank)[-1:] == told
    hosts.left()
    assert hosts.lead.done


def test_what_a_dead_worker_had_is_granted_to_one_who_waits():
    """At once; what it had pushed is applied still, and is followed by no grant before another has come."""
    hosts = Staled((1, 2), microbatches=2, batch_size=2, consistency="ssp", staleness=0)
    hosts.ready()
    assert hosts.say(0, gone=HostMessage.Gone(rank=0)) == []
    assert hosts.say(0, returned=HostMessage.Returned(rank=0)) == ["1: granted rank=2"]
    hosts.pushed(1, 0, 1, rank=1)
    assert hosts.say(1, gone=HostMessage.Gone(rank=1)) == []
    assert hosts.applied(1, 1) == []
    hosts.pushed(1, 0, 0, rank=2)
    assert hosts.applied(1, 2) == ["1: granted rank=2 step=1 version=1"]
    assert hosts.say(0, came=HostMessage.Came(rank=0)) == ["0: granted step=1 microbatch=1 version=1"]
    assert hosts.account.telemetry.generation == 4


def test_one_who_waits_and_is_gone_is_granted_nothing():
    """What falls free goes to the next one."""
    hosts = Staled((1, 1), microbatches=1, batch_size=1, consistency="ssp", staleness=0, steps=9)
    hosts.ready()
    hosts.say(1, gone=HostMessage.Gone(rank=1))
    hosts.pushed(0, 0, 0)
    assert hosts.applied(0, 0) == ["0: granted step=1 version=1"]


def test_a_grant_that_crosses_the_word_that_its_worker_is_gone_is_returned_once():
    """The one in its place comes first, and does it; or it has not come, and it goes to another."""
    hosts = Staled((1, 1), microbatches=1, batch_size=1, consistency="async", steps=9)
    hosts.ready()
    hosts.say(1, gone=HostMessage.Gone(rank=1))
    assert hosts.say(1, came=HostMessage.Came(rank=1)) == []
    hosts.pushed(1, 1, 0, rank=1)
    assert hosts.applied(1, 1) == ["1: granted rank=1 step=2"]
    hosts.say(1, gone=HostMessage.Gone(rank=1))
    assert hosts.say(1, returned=HostMessage.Returned(rank=1)) == []
    hosts.pushed(0, 0, 0, rank=0)
    assert hosts.applied(0, 0) == ["0: granted step=2 version=2"]


def test_one_who_is_gone_before_the_run_begins_is_granted_nothing():
    """Until another has come."""
    hosts = Staled((1, 1), microbatches=1, batch_size=1, consistency="async", steps=9)
    hosts.say(1, gone=HostMessage.Gone(rank=1))
    assert hosts.ready() == ["all: begin", "0: granted"]
    assert hosts.say(1, came=HostMessage.Came(rank=1)) == ["1: granted rank=1 step=1"]


def test_why_a_worker_was_killed_is_known_of_any_host():
    """By rank."""
    hosts = Barriered()
    hosts.say(1, hung=HostMessage.Hung(rank=1, found="it hung"))
    assert hosts.lead.hung == {1: "it hung"}


def test_what_other_hosts_sent_and_received_is_in_the_leads_metrics():
    """As of their last beat."""
    hosts = Barriered()
    for sent in (5, 7):
        hosts.say(1, beat=HostMessage.Beat(gradients_sent=sent, parameters_received=2 * sent))
    counts = hosts.account.telemetry.wire[1].counts
    assert counts == {**dict.fromkeys(counts, 0), "gradients_sent": 7, "parameters_received": 14}


def test_in_async_a_replica_is_made_when_nothing_is_under_way():
    """Of the first step that nobody has begun; work goes on when all hosts have copied what they have."""
    hosts = Staled((1, 1), steps=100, consistency="async", replicate_every_s=1.0)
    assert hosts.ready() == ["all: begin", "0: granted", "1: granted rank=1 microbatch=1"]
    hosts.pushed(0, 0, 0)
    assert hosts.applied(0, 0) == ["0: granted step=1"]
    assert hosts.after(lambda: hosts.lead.replicate(1e9)) == []
    hosts.pushed(1, 0, 1)
    assert hosts.applied(1, 1) == ["1: granted rank=1 step=1 microbatch=1 version=1"]
    hosts.pushed(0, 1, 0)
    assert hosts.applied(0, 0) == []
    hosts.pushed(1, 1, 1)
    assert hosts.applied(1, 1) == ["all: save version=2 replica=True"]
    assert hosts.say(0, copied=HostMessage.Copied(version=2)) == []
    assert [word.split()[:2] for word in hosts.say(1, copied=HostMessage.Copied(version=2))] == [
        ["0:", "granted"],
        ["1:", "granted"],
    ]
    replicated(hosts, 2)
    assert hosts.committed == [(2, ["0", "1"])]


def test_the_lead_counts_the_copies_of_all_hosts():
    """Two given on host 1, of which one was whole first, and one result that came late; who was waited for is told."""
    hosts = Barriered()
    for counts in ({"given": 2, "rank": 1, "waited_s": 0.5}, {"won": 1}, {"late": 1}):
        hosts.say(1, copies=HostMessage.Copies(**counts))
    telemetry = hosts.account.telemetry
    assert (telemetry.copies_given, telemetry.copies_won, telemetry.pushes[Verdict.LATE]) == (2, 1, 1)
    assert telemetry.waiting.for_s.tolist() == [0.0, 0.5]
