"""A worker that is slow in the middle of a microbatch: another one computes it, too, and the first result is used."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tests.integration.local_run import Engine, Killed, remembering, start_locally
from tests.tiers import slow_but

from thalweg_cluster.ledger import read_ledger
from thalweg_proto.shared_memory import CHUNK

STEPS, STEP = 20, 5
SHAPES = [{}, {"clip_norm": 0.1}, {"skip": True}, {"rule": "adam", "rule_options": {}}, {"eval_every": 3}]
WAIT_S = 30.0
WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
SLOW_RATE = {"schedule": {"name": "constant", "learning_rate": 0.005, "warmup_steps": 0}}


@pytest.fixture(scope="module")
def undisturbed():
    """The results of runs in which nobody is slow, by what they are of."""
    return remembering(steps=STEPS, microbatches=6)


@pytest.fixture(scope="module")
def undisturbed_on_hosts():
    """The same of a larger model."""
    return remembering(steps=STEPS, microbatches=6, model=WIDE, **SLOW_RATE)


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


def on_hosts(plot, workers=(3, 1), **options):
    """The same on several hosts, with blocks small enough that each gradient has many."""
    return ran(plot, workers=list(workers), of_server={"block": CHUNK}, model=WIDE, **options)


def same(run, expected) -> None:
    """It came to the same, and tells the same of each step."""
    result, rows = expected
    assert (run.result.error, run.result.steps, run.worker_errors) == (None, STEPS, [])
    assert run.result.weights_sha256 == result.weights_sha256
    assert [(row.step, row.train_loss, row.evaluation) for row in run.rows] == rows


def copies(run) -> tuple[int, int]:
    """How many were first, and how many were not. There may be more than those of the plot: small microbatches are
    taken several at once, and the machine may disturb any worker. Of each a result may be dropped, unless the run ends
    before it is there."""
    given, won = run.result.copies["given"], run.result.copies["won"]
    assert run.result.dropped <= given
    return won, given - won


@pytest.mark.faults("worker slow in the middle of a microbatch", how="it waits", expected="a copy wins, =bits")
@pytest.mark.parametrize("of", slow_but(SHAPES, 0), ids=repr)
@pytest.mark.parametrize("m", [0, 1, 5])
def test_another_computes_what_a_slow_worker_is_in_the_middle_of(undisturbed, m, of):
    """One of three waits in a microbatch until the others are four steps further, and then writes its gradient, which
    would lie where a version, a state, or a gradient of a later step is: the same bits and the same lines."""
    plot = Plot(m, slow=lambda plot: waits(plot.reached[STEP + 4]))
    run = ran(plot, **of).join()
    same(run, undisturbed(**of))
    assert copies(run)[0] > 0


def test_what_the_slow_worker_has_is_used_where_it_is_there_first(undisturbed):
    """The copy is not done before the next step has begun: the first result was the slow worker's."""
    plot = Plot(
        2,
        slow=lambda plot: waits(plot.begun[1]),
        copy=lambda plot: (waits(plot.done[0]), waits(plot.reached[STEP + 2])),
    )
    run = ran(plot).join()
    same(run, undisturbed())
    assert copies(run)[1] > 0


def test_both_of_two_are_slow_in_turn(undisturbed):
    """The only other one has the copy: the run goes on with the one whose result is there."""
    plot = Plot(3, slow=lambda plot: waits(plot.begun[1]), copy=lambda plot: waits(plot.reached[STEP + 1]))
    run = ran(plot, workers=2).join()
    same(run, undisturbed())
    assert copies(run)[1] > 0


def test_the_slow_worker_dies_after_its_copy_has_won(undisturbed):
    """Nobody waits for it, and another one takes its place."""

    def dies(plot):
        waits(plot.reached[STEP + 2])
        raise Killed

    run = ran(Plot(0, slow=dies))
    run.replace(run.killed.get(timeout=WAIT_S))
    same(run.join(), undisturbed())
    assert copies(run)[0] > 0


def test_who_has_the_copy_dies(undisturbed):
    """A third one computes it: the slow worker still waits."""

    def dies(plot):
        raise Killed

    run = ran(Plot(1, slow=lambda plot: waits(plot.reached[STEP + 2]), copy=dies))
    run.killed.get(timeout=WAIT_S)
    same(run.join(), undisturbed())
    assert copies(run)[0] > 0


def test_what_goes_wrong_on_parameters_of_later_steps_is_nobodys_mistake(undisturbed):
    """A model that fails where it is left out, since what it reads has changed, does not end the run."""

    def fails(plot):
        waits(plot.reached[STEP + 4])
        raise ValueError("what is this")

    run = ran(Plot(4, slow=fails)).join()
    same(run, undisturbed())
    assert copies(run)[0] > 0


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
    assert copies(run)[0] > 0


@pytest.mark.parametrize("start", [ran, on_hosts], ids=["workers that meet", "two hosts"])
def test_the_ledger_has_each_sample_once_an_epoch(start, tmp_path):
    """Both wrote down the same samples of the microbatch; it counts once."""
    plot = Plot(1, slow=lambda plot: waits(plot.reached[STEP + 2]))
    run = start(plot, ledger=tmp_path, **SLOW_RATE).join()
    assert copies(run)[0] > 0
    assert read_ledger(tmp_path, run.result.steps).account().findings == ()


# Several hosts


@pytest.mark.faults(
    "worker slow in the middle of a microbatch, several hosts", how="it waits", expected="a copy wins, =bits"
)
@pytest.mark.parametrize("of", slow_but(SHAPES, 0), ids=repr)
@pytest.mark.parametrize("m", [0, 1, 2])
def test_another_one_of_its_host_computes_it(undisturbed_on_hosts, m, of):
    """One of three on host 0 waits in a microbatch until the others are four steps further, and writes it then."""
    plot = Plot(m, slow=lambda plot: waits(plot.reached[STEP + 4]))
    run = on_hosts(plot, **SLOW_RATE, **of).join()
    same(run, undisturbed_on_hosts(**of))
    assert copies(run)[0] > 0


def test_what_a_slow_worker_had_told_of_may_be_summed_already(undisturbed_on_hosts):
    """Its last layers are final, told of and summed, when it stalls: the rest comes from the copy. The other host's
    part comes after that: till then the sums lie where the slow worker wrote."""
    copied = threading.Event()

    class Halfway(Plot):
        def engine(self, engine):
            acting, plot = super().engine(engine), self
            gradient = acting.gradient

            def telling(parameters, batch, *, weight, out, on_ready, **hooks):
                def tell(name, first):
                    on_ready(name, first)
                    if tuple(batch.key[1:]) == (STEP, 0) and name == "hidden2.weight" and first == 0:
                        plot.act()

                return gradient(parameters, batch, weight=weight, out=out, on_ready=tell, **hooks)

            def after(step, microbatch, loss, out):
                if (step, microbatch) == (STEP, 0):
                    copied.set()
                return loss

            acting.gradient, acting.after = telling, after
            return acting

        def act(self):
            with self._lock:
                self.halfway = getattr(self, "halfway", 0) + 1
                first = self.halfway == 1
            if first:
                waits(self.reached[STEP + 3])

    run = on_hosts(Halfway(5, slow=lambda plot: waits(copied)), **SLOW_RATE).join()
    same(run, undisturbed_on_hosts())
    assert copies(run)[0] > 0


def test_on_hosts_what_the_slow_worker_has_is_used_where_it_is_there_first(undisturbed_on_hosts):
    """The copy is not done before the next step but one has begun."""
    plot = Plot(1, slow=lambda plot: waits(plot.begun[1]), copy=lambda plot: waits(plot.reached[STEP + 2]))
    run = on_hosts(plot, **SLOW_RATE).join()
    same(run, undisturbed_on_hosts())
    assert copies(run)[1] > 0


def test_on_hosts_the_slow_worker_dies_after_its_copy_has_won(undisturbed_on_hosts):
    """Nobody waits for it, and another one takes its place."""

    def dies(plot):
        waits(plot.reached[STEP + 2])
        raise Killed

    run = on_hosts(Plot(0, slow=dies), **SLOW_RATE)
    run.replace(run.killed.get(timeout=WAIT_S))
    run.join()
    assert run.result.weights_sha256 == undisturbed_on_hosts()[0].weights_sha256
    assert copies(run)[0] > 0


def test_on_hosts_both_die(undisturbed_on_hosts):
    """The one that has the copy, and then the slow one: another one computes it."""

    def dies(plot):
        raise Killed

    run = on_hosts(Plot(1, slow=lambda plot: (waits(plot.begun[1]), dies(plot)), copy=dies), **SLOW_RATE).join()
    assert run.killed.qsize() == 2
    same(run, undisturbed_on_hosts())


def test_on_hosts_what_goes_wrong_on_parameters_of_later_steps_is_nobodys_mistake(undisturbed_on_hosts):
    """A model that fails in a step that is over does not end the run."""

    def fails(plot):
        waits(plot.reached[STEP + 4])
        raise ValueError("what is this")

    run = on_hosts(Plot(2, slow=fails), **SLOW_RATE).join()
    same(run, undisturbed_on_hosts())
    assert copies(run)[0] > 0


def test_who_is_alone_on_its_host_is_waited_for(undisturbed_on_hosts):
    """Another host's workers have none of its memory."""
    plot = Plot(5, slow=lambda plot: plot.begun[1].wait(0.5))  # this is what is slow, and waits for nothing
    run = on_hosts(plot, workers=(3, 1), **SLOW_RATE).join()
    same(run, undisturbed_on_hosts())
    assert len(plot.turns) == 1
