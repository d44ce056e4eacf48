"""Workers that die in the middle of a run, and others that join: threads, which go without a word."""

from __future__ import annotations

import threading
from time import sleep

import numpy as np
import pytest
from tests.integration.local_run import Engine, Killed, remembering, start_locally, train_locally
from tests.tiers import slow_but

from thalweg_cluster.step import HostStep

STEPS = 20
SHAPES = [{}, {"clip_norm": 0.1}, {"skip": True}, {"rule": "adam", "rule_options": {}}, {"eval_every": 3}]


@pytest.fixture(scope="module")
def undisturbed():
    """The results of runs in which nobody dies, by what they are of."""
    return remembering(steps=STEPS, microbatches=6)


def same(run, expected) -> None:
    """It came to the same, and tells the same of each step."""
    result, rows = expected
    assert (run.result.error, run.result.steps, run.worker_errors) == (None, STEPS, [])
    assert run.result.weights_sha256 == result.weights_sha256
    assert [(row.step, row.train_loss, row.evaluation) for row in run.rows] == rows
    assert run.result.evaluation == result.evaluation


def dies(at: tuple[int, int], *, when: str, once: threading.Event):
    """An engine of a worker that dies at that microbatch of that step, whoever computes it first."""

    class Dying(Engine):
        def before(self, step, microbatch):
            if when == "before" and (step, microbatch) == at and not once.is_set():
                once.set()
                raise Killed

        def after(self, step, microbatch, loss, out):
            if when == "after" and (step, microbatch) == at and not once.is_set():
                once.set()
                next(iter(out.values()))[...] = np.nan
                raise Killed
            return loss

    return Dying


@pytest.mark.faults("worker gone in a step, others take over", how="raised in its thread", expected="=bits")
@pytest.mark.parametrize("of", slow_but(SHAPES, 0), ids=repr)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [0, 3, STEPS - 1])
def test_the_living_take_over_what_a_dead_worker_had_in_hand(undisturbed, when, step, of):
    """One of three dies with a microbatch half done: the same bits and the same lines, made by two."""
    run = train_locally(
        steps=STEPS, microbatches=6, workers=3, engine=dies((step, 2), when=when, once=threading.Event()), **of
    )
    same(run, undisturbed(**of))


def dies_in(what: str, step: int, once: threading.Event) -> type[HostStep]:
    """A server's part of a step whose worker dies in it."""

    class Dying(HostStep):
        def _die(self, at: str) -> None:
            if what == at and self._board.version == step and not once.is_set():
                once.set()
                raise Killed

        def _apply(self) -> None:
            self._die("before apply")
            super()._apply()
            self._die("after apply")

        def _publish(self) -> None:
            self._die("before publish")
            if what == "in publish" and self._board.version == step and not once.is_set():
                once.set()
                publish = self._board.publish

                def half(version, *rest, **more):
                    self._board.mend = lambda *rest, **more: None
                    publish(version, *rest, **more)
                    raise Killed

                self._board.publish = half
            super()._publish()

        def pushed(self) -> None:
            self._die("before the sum of the losses")
            super().pushed()

    return Dying


@pytest.mark.faults("worker gone in apply or publish, others take over", how="raised in its thread", expected="=bits")
@pytest.mark.parametrize("of", slow_but(SHAPES, 1), ids=repr)
@pytest.mark.parametrize(
    "what", ["before the sum of the losses", "before apply", "after apply", "before publish", "in publish"]
)
@pytest.mark.parametrize("step", [0, 4, STEPS - 1])
def test_a_step_that_was_broken_off_is_made_again(undisturbed, what, step, of):
    """A worker dies in the middle of the update, or between the writes with which a version is published."""
    once = threading.Event()
    run = train_locally(steps=STEPS, microbatches=6, workers=3, host_step=dies_in(what, step, once), **of)
    assert once.is_set()
    same(run, undisturbed(**of))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_others_join_in_the_place_of_the_dead(undisturbed, workers):
    """At steps 3, 7 and 11 somebody dies, and is replaced. With one worker, nobody lives in between."""
    deaths = {step: threading.Event() for step in (3, 7, 11)}

    class Dying(Engine):
        def before(self, step, microbatch):
            if microbatch == 4 and step in deaths and not deaths[step].is_set():
                deaths[step].set()
                raise Killed

    run = start_locally(steps=STEPS, microbatches=6, workers=workers, engine=Dying)
    for _ in deaths:
        run.replace(run.killed.get(timeout=20), Dying)
    same(run.join(), undisturbed())


@pytest.mark.faults("all workers gone at once", how="raised in their threads", expected="=bits")
def test_all_die_at_once(undisturbed):
    """In step 5 or, who sits that one out, as soon as it has something to do: the run stands still, and goes on with
    those that join."""

    class Dying(Engine):
        def before(self, step, microbatch):
            if step >= 5:
                raise Killed

    run = start_locally(steps=STEPS, microbatches=6, workers=3, engine=Dying)
    for rank in [run.killed.get(timeout=20) for _ in range(3)]:
        run.replace(rank)
    same(run.join(), undisturbed())


@pytest.mark.faults("worker much slower than the others", how="it sleeps", expected="others help, =bits")
def test_the_others_do_the_work_of_a_slow_worker(undisturbed):
    """One takes 30 ms for each microbatch, where the others take less than one: most of its are taken over, and the
    bits are the same."""

    class Slow(Engine):
        def before(self, step, microbatch):
            sleep(0.03)  # this is what is slow, and waits for nothing

    run = train_locally(steps=STEPS, microbatches=6, workers=3, engines={1: Slow})
    same(run, undisturbed())
    assert run.servers[0].account.telemetry.taken_over > STEPS
