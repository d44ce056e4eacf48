"""A worker that is slow in the middle of a microbatch: another one computes it, too, and the first result is used."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tests.integration.local_run import Engine, Killed, remembering, start_locally
from tests.tiers import slow_but

STEPS, STEP = 20, 5
SHAPES = [{}, {"clip_norm": 0.1}, {"skip": True}, {"rule": "adam", "rule_options": {}}, {"eval_every": 3}]
WAIT_S = 30.0


@pytest.fixture(scope="module")
def undisturbed():
    """The results of runs in which nobody is slow, by what they are of."""
    return remembering(steps=STEPS, microbatches=6)


class Plot:
    """What shall happen at microbatch `m` of step STEP: who comes there first is slow, who comes second has the copy.

    begun, done: by turn, 0 and 1: set where each begins, and where it is done
    reached:     by step: set where the first microbatch of it begins
    """

    def __init__(self, m: int, slow, copy=lambda plot: None):
        """`slow` and `copy` are called with the plot when these begin, and wait for something."""
        self.m, self.acts = m, (slow, copy)
        self.begun, self.done = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
        self.reached = [threading.Event() for _ in range(STEPS)]
        self.turns: dict[int, int] = {}  # by thread
        self._lock = threading.Lock()

    def engine(self, engine):
        plot = self

        class Acting(Engine):
            def before(self, step, microbatch):
                plot.reached[step].set()
                if (step, microbatch) != (STEP, plot.m):
                    return
                with plot._lock:
                    turn = len(plot.turns)
                    plot.turns[threading.get_ident()] = turn
                if turn < 2:
                    plot.begun[turn].set()
                    plot.acts[turn](plot)

            def after(self, step, microbatch, loss, out):
                turn = plot.turns.get(threading.get_ident(), 2)
                if (step, microbatch) == (STEP, plot.m) and turn < 2:
                    plot.done[turn].set()
                return loss

        return Acting(engine)


def waits(event: threading.Event) -> None:
    assert event.wait(WAIT_S)


def ran(plot, **options):
    """Options of `start_locally`, and the shape of the job."""
    return start_locally(steps=STEPS, microbatches=6, **{"workers": 3, "engine": plot.engine} | options)


def same(run, expected) -> None:
    """It came to the same, and tells the same of each step."""
    result, rows = expected
    assert (run.result.error, run.result.steps, run.worker_errors) == (None, STEPS, [])
    assert run.result.weights_sha256 == result.weights_sha256
    assert [(row.step, row.train_loss, row.evaluation) for row in run.rows] == rows


def copies(run) -> tuple[bool, int, int]:
    """Whether one was given; how many were not first, and how many results came late, of all that were given. Small
    microbatches are taken several at once: there may be more than one."""
    telemetry = run.servers[0].account.telemetry
    given = telemetry.copies_given
    return given > 0, given - telemetry.copies_won, given - run.result.dropped


@pytest.mark.faults("worker slow in the middle of a microbatch", how="it waits", expected="a copy wins, =bits")
@pytest.mark.parametrize("of", slow_but(SHAPES, 0), ids=repr)
@pytest.mark.parametrize("m", [0, 1, 5])
def test_another_computes_what_a_slow_worker_is_in_the_middle_of(undisturbed, m, of):
    """One of three waits in a microbatch until the others are four steps further, and then writes its gradient, which
    would lie where a version, a state, or a gradient of a later step is: the same bits and the same lines."""
    plot = Plot(m, slow=lambda plot: waits(plot.reached[STEP + 4]))
    run = ran(plot, **of).join()
    same(run, undisturbed(**of))
    assert copies(run) == (True, 0, 0)


def test_what_the_slow_worker_has_is_used_where_it_is_there_first(undisturbed):
    """The copy is not done before the next step has begun: the first result was the slow worker's."""
    plot = Plot(
        2,
        slow=lambda plot: waits(plot.begun[1]),
        copy=lambda plot: (waits(plot.done[0]), waits(plot.reached[STEP + 2])),
    )
    run = ran(plot).join()
    same(run, undisturbed())
    given, lost, _ = copies(run)
    assert given
    assert lost > 0


def test_both_of_two_are_slow_in_turn(undisturbed):
    """The only other one has the copy: the run goes on with the one whose result is there."""
    plot = Plot(3, slow=lambda plot: waits(plot.begun[1]), copy=lambda plot: waits(plot.reached[STEP + 1]))
    run = ran(plot, workers=2).join()
    same(run, undisturbed())
    given, lost, _ = copies(run)
    assert given
    assert lost > 0


def test_the_slow_worker_dies_after_its_copy_has_won(undisturbed):
    """Nobody waits for it, and another one takes its place."""

    def dies(plot):
        waits(plot.reached[STEP + 2])
        raise Killed

    run = ran(Plot(0, slow=dies))
    run.replace(run.killed.get(timeout=WAIT_S))
    same(run.join(), undisturbed())
    assert copies(run)[:2] == (True, 0)


def test_who_has_the_copy_dies(undisturbed):
    """A third one computes it: the slow worker still waits."""

    def dies(plot):
        raise Killed

    run = ran(Plot(1, slow=lambda plot: waits(plot.reached[STEP + 2]), copy=dies))
    run.killed.get(timeout=WAIT_S)
    same(run.join(), undisturbed())
    assert copies(run)[:2] == (True, 0)


def test_what_goes_wrong_on_parameters_of_later_steps_is_nobodys_mistake(undisturbed):
    """A model that fails where it is left out, since what it reads has changed, does not end the run."""

    def fails(plot):
        waits(plot.reached[STEP + 4])
        raise ValueError("what is this")

    run = ran(Plot(4, slow=fails)).join()
    same(run, undisturbed())
    assert copies(run)[:2] == (True, 0)


def test_a_torn_mixture_is_never_read(undisturbed):
    """The slow worker spoils its own gradient, again and again, while the others are at the steps after."""

    class Spoiling(Plot):
        def engine(self, engine):
            acting, plot = super().engine(engine), self
            gradient = acting.gradient

            def spoiling(parameters, batch, *, weight, out, **hooks):
                compute = gradient(parameters, batch, weight=weight, out=out, **hooks)

                def then():
                    loss = compute()
                    if batch.key[1] == STEP and batch.key[2] == plot.m and plot.turns.get(threading.get_ident()) == 0:
                        while not plot.reached[STEP + 6].is_set():
                            for array in out.values():
                                array[...] = np.nan
                    return loss

                return then

            acting.gradient = spoiling
            return acting

    run = ran(Spoiling(0, slow=lambda plot: waits(plot.begun[1]))).join()
    same(run, undisturbed())
    assert copies(run) == (True, 0, 0)
