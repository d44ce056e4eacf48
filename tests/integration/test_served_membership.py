"""Workers that die in the middle of a run in which servers do their part of a step, and others that join: threads,
which go without a word."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
from tests.integration.local_run import Engine, Killed, remembering, start_locally
from tests.tiers import slow_but

from thalweg_cluster.server.speculation import Speculation
from thalweg_proto.errors import ServerError
from thalweg_proto.shared_memory import CHUNK
from thalweg_worker.exchange import ServedExchange

WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
STEPS = 12
SHAPES = [{}, {"clip_norm": 0.1}, {"rule": "adam", "rule_options": {}}, {"eval_every": 1}]
SLOW_RATE = {"name": "constant", "learning_rate": 0.005, "warmup_steps": 0}
STALE = [{"consistency": "async"}, {"consistency": "ssp", "staleness": 0}]
BACKUP = {"backup": 1}


def start(workers, **options):
    options = {"of_server": {"block": CHUNK}, "model": WIDE, "steps": STEPS, "microbatches": 6, **options}
    return start_locally(workers=workers, **options)


@pytest.fixture(scope="module")
def undisturbed():
    """The results of runs in which nobody dies, by what they are of."""
    return remembering(steps=STEPS, microbatches=6, model=WIDE)


def errors(run) -> list[BaseException]:
    """Of workers; but for those who came, in the place of the dead, when the others had done all that was left."""
    return [error for error in run.worker_errors if not isinstance(error, ServerError)]


def same(run, expected) -> None:
    """It came to the same, and tells the same of each step; each microbatch counts once."""
    result, rows = expected
    assert (run.result.error, run.result.steps, errors(run)) == (None, STEPS, [])
    assert run.result.weights_sha256 == result.weights_sha256
    assert [(row.step, row.train_loss, row.evaluation) for row in run.rows] == rows
    assert (run.result.evaluation, run.result.duplicates) == (result.evaluation, 0)


ANY = -1


class Deaths:
    """At each of `at`, (step, microbatch), whoever comes there first dies; at (step, ANY), at any microbatch of it.

    when: before the gradient is computed; when its last blocks are final, and told of; or when it is whole, and spoilt
          where nothing of it was told of
    """

    def __init__(self, *at: tuple[int, int], when: str = "before") -> None:
        self.open = list(at)
        deaths = self

        class Dying(Engine):
            told = False

            def gradient(self, parameters, batch, *, weight, out, **hooks):
                if when == "in the middle" and "on_ready" in hooks:
                    hooks = {**hooks, "on_ready": self.telling(batch, hooks["on_ready"])}
                return super().gradient(parameters, batch, weight=weight, out=out, **hooks)

            def telling(self, batch, tell):
                def on_ready(name, first):
                    tell(name, first)
                    if name == "hidden2.weight" and first == 0:
                        self.die("in the middle", *batch.key[1:].tolist())

                return on_ready

            def before(self, step, microbatch):
                self.die("before", step, microbatch)

            def after(self, step, microbatch, loss, out):
                self.die("after", step, microbatch)
                return loss

            def die(self, at, step, microbatch):
                for point in ((step, microbatch), (step, ANY)):
                    if when == at and point in deaths.open:
                        deaths.open.remove(point)
                        raise Killed

        self.engine = Dying


@pytest.mark.faults("worker gone in a step of several hosts, others take over", how="in its thread", expected="=bits")
@pytest.mark.parametrize("of", slow_but(SHAPES, 1), ids=repr)
@pytest.mark.parametrize("when", ["before", "in the middle", "after"])
@pytest.mark.parametrize("at", [(0, 1), (4, 3), (STEPS - 1, 0)], ids=repr)
def test_the_living_of_a_host_take_over_what_a_dead_worker_had_in_hand(undisturbed, at, when, of):
    """One of three on its host dies, with nothing of a microbatch told of, its end, or all but a word."""
    deaths = Deaths(at, when=when)
    run = start([3, 1], engine=deaths.engine, **of).join()
    assert (deaths.open, run.killed.qsize()) == ([], 1)
    same(run, undisturbed(**of))


def test_what_a_worker_says_twice_counts_once(undisturbed, monkeypatch):
    """Each of its words about its gradients: nothing is summed, or counted, a second time."""
    final = ServedExchange.final

    def twice(self, *word):
        final(self, *word)
        final(self, *word)

    monkeypatch.setattr(ServedExchange, "final", twice)
    same(start([2, 1]).join(), undisturbed())


@pytest.mark.faults("worker gone that was alone on its host, replaced", how="in its thread", expected="=bits")
@pytest.mark.parametrize("of", slow_but(SHAPES, 1), ids=repr)
@pytest.mark.parametrize("when", ["before", "in the middle", "after"])
def test_a_host_whose_only_worker_died_waits_for_another(undisturbed, when, of):
    """At three steps, the first and the last among them, on either host; the other host waits meanwhile."""
    deaths = Deaths((0, 1), (5, 4), (STEPS - 1, 5), when=when)
    run = start([1, 1], engine=deaths.engine, **of)
    for _ in range(3):
        run.replace(run.killed.get(timeout=20), deaths.engine)
    run.join()
    assert deaths.open == []
    same(run, undisturbed(**of))


def test_a_host_does_not_wait_for_another_worker_for_ever(monkeypatch):
    """The run ends, and says which host and which workers it was."""
    monkeypatch.setattr("thalweg_cluster.hosts.workers.REPLACE_S", 0.5)
    deaths = Deaths((4, 5))
    run = start([1, 1], engine=deaths.engine).join()
    assert run.result.error == (
        "host 1 has no worker at step 4: all of [1] are gone, and none took their place within 0.5 s"
    )


def test_who_takes_over_dies_too(undisturbed):
    """Three die at the same microbatch, one after the other, each when its end is told of; all are replaced."""
    deaths = Deaths(*[(4, 1)] * 3, when="in the middle")
    run = start([3, 1], engine=deaths.engine)
    for _ in range(3):
        run.replace(run.killed.get(timeout=20), deaths.engine)
    same(run.join(), undisturbed())
    assert deaths.open == []


def test_a_worker_that_dies_while_it_evaluates_leaves_its_chunks(undisturbed):
    """At the last version, when the others have nothing more to do."""
    died: list[bool] = []

    class Dying(Engine):
        def evaluate(self, parameters, batch):
            if not died:
                died.append(True)
                raise Killed
            return super().evaluate(parameters, batch)

    run = start([1, 2], engine=Dying, eval_every=STEPS)
    same(run.join(), undisturbed(eval_every=STEPS))
    assert died == [True]


@pytest.mark.faults("worker gone in ssp and async, others take over", how="in its thread", expected="each applied once")
@pytest.mark.parametrize("options", STALE, ids=repr)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("workers", slow_but([[1], [3], [2, 1], [1, 1]], 2), ids=repr)
def test_each_microbatch_is_applied_once_whoever_dies(workers, when, options, tmp_path):
    """At three units somebody dies and is replaced; with a bound of 0 nobody waits for the replacement, if there is
    another one."""
    deaths = Deaths((0, 1), (5, 3), (STEPS - 1, 5), when=when)
    computed = Counter()

    class Counting(deaths.engine):
        def after(self, step, microbatch, loss, out):
            loss = super().after(step, microbatch, loss, out)
            computed[step, microbatch] += 1
            return loss

    run = start(workers, engine=Counting, schedule=SLOW_RATE, **options)
    for _ in range(3):
        run.replace(run.killed.get(timeout=20), Counting)
    run.join()
    assert deaths.open == []
    assert (run.result.error, errors(run), run.result.steps) == (None, [], STEPS)
    assert computed == {(step, m): 1 for step in range(STEPS) for m in range(6)}
    assert run.servers[0].account.telemetry.staleness.count == 6 * STEPS
    assert all(np.isfinite(array).all() for array in run.weights.values())


@pytest.mark.parametrize("options", STALE, ids=repr)
def test_in_ssp_and_async_the_others_go_on_without_the_dead(options):
    """Nobody takes the place of one that died: the others do the rest, its unit first."""
    deaths = Deaths((3, 2))
    # The one chunk of the held-out set is the second host's, which has a worker left, whoever dies.
    run = start([1, 2], engine=deaths.engine, schedule=SLOW_RATE, **options).join()
    assert (run.result.error, run.result.steps, run.killed.qsize()) == (None, STEPS, 1)
    assert run.servers[0].account.telemetry.staleness.count == 6 * STEPS


@pytest.mark.parametrize("when", ["before", "in the middle"])
@pytest.mark.parametrize("workers", slow_but([[2], [1, 1], [2, 1]], 2), ids=repr)
def test_with_backup_workers_another_takes_the_place_of_the_dead(workers, when):
    """Each step still has all its microbatches but one, which may be any: it is not computed at all, then."""
    deaths = Deaths((3, ANY), (7, ANY), when=when)
    run = start(workers, engine=deaths.engine, **BACKUP)
    for _ in range(2):
        run.replace(run.killed.get(timeout=20), deaths.engine)
    run.join()
    assert (run.result.error, errors(run), run.result.steps) == (None, [], STEPS)
    assert run.servers[0].account.telemetry.staleness.count == 5 * STEPS


@pytest.mark.faults("worker gone in local steps, replaced", how="in its thread", expected="=bits")
@pytest.mark.parametrize("of", slow_but([{}, {"rule": "adam", "rule_options": {}}, {"clip_norm": 0.1}], 1), ids=repr)
@pytest.mark.parametrize("when", ["before", "after"])
def test_with_local_steps_another_makes_the_round_of_the_dead_again(when, of):
    """Rounds of three steps, in the first, a middle and the last of which somebody dies: the state of its own rule is
    what it was at the begin of the round, whatever it had made of it."""
    shape = {"local_steps": 3, "schedule": SLOW_RATE} | of
    undisturbed = start([2, 1], **shape).join()
    deaths = Deaths((1, 0), (5, 3), (STEPS - 1, 5), when=when)
    run = start([2, 1], engine=deaths.engine, **shape)
    for _ in range(3):
        run.replace(run.killed.get(timeout=20), deaths.engine)
    run.join()
    assert (run.result.error, errors(run), deaths.open) == (None, [], [])
    assert run.result.weights_sha256 == undisturbed.result.weights_sha256


def hangs(at: tuple[int, int], killed: threading.Event) -> type[Engine]:
    """An engine of a worker that hangs at that microbatch of that step, until it is killed."""
    hung = threading.Event()

    class Hanging(Engine):
        def before(self, step, microbatch):
            if (step, microbatch) == at and not hung.is_set():
                hung.set()
                assert killed.wait(30), "nobody noticed"
                raise Killed

    return Hanging


@pytest.mark.faults("worker that hangs on one of several hosts", how="in its thread", expected="killed, =bits")
@pytest.mark.parametrize("host", [0, 1])
def test_a_worker_that_hangs_is_killed_and_its_work_taken_over(undisturbed, host, monkeypatch):
    """Past its lease; the lead knows why, of whichever host. Who waits for it meanwhile is not taken to hang."""
    killed = threading.Event()
    ranks = []
    monkeypatch.setattr(Speculation, "stragglers", lambda *_: set())  # nobody computes it before

    def kill(rank):
        ranks.append(rank)
        killed.set()

    def made(servers):
        for each in servers:
            monkeypatch.setattr(each.workers._door, "kill", kill)

    run = start([2, 2], engine=hangs((4, 3 * host + 1), killed), made=made, of_server={"block": CHUNK, "lease_s": 0.5})
    same(run.join(), undisturbed())
    [rank] = set(ranks)
    assert rank in (2 * host, 2 * host + 1)
    [(hung, why)] = run.servers[0].watch(0, 0.0).hung.items()
    assert hung == rank
    assert why.startswith("it hung, and was killed: it was at one piece of work for ")
