from __future__ import annotations

import math

import numpy as np
import pytest

from thalweg_cluster.consistency import Verdict
from thalweg_cluster.server.account import Account
from thalweg_cluster.server.telemetry import WARM_UP_STEPS
from thalweg_cluster.step import StepSpec
from thalweg_proto.messages import STEP_DTYPE, Evaluated

BATCH = 8


class Run:
    """An account, which a test tells what happened."""

    def __init__(self, **changed) -> None:
        given = {
            "microbatches": 2,
            "batch_size": BATCH,
            "steps": 100,
            "rule": "sgd",
            "schedule": {"name": "step", "learning_rate": 1.0, "step_size": 10, "gamma": 0.5},
        }
        self.account = Account(StepSpec(**given | changed), first=0, workers=2, bytes_pushed=4, bytes_published=4)
        self.began_s = self.account.begin()

    def stepped(self, first: int, *after_s: float, loss: float = 0.5, norm: float = math.nan) -> None:
        """Versions from `first` on, each there so many seconds after the begin."""
        n = len(after_s)
        self.account.stepped(first, np.full(n, loss), np.full(n, norm), self.began_s + np.array(after_s))

    def evaluated(self, version: int, chunk: int = 0, loss_sum: float = 4.0, correct: int = 1) -> None:
        self.account.evaluated(Evaluated(version, chunk, 2, correct, loss_sum))

    def rows(self):
        return self.account.watch(0, 0.0).rows

    def result(self, version: int, after_s: float, error: str | None = None):
        return self.account.result(
            error=error, version=version, published_s=self.began_s + after_s, weights_sha256="ab12"
        )


def test_a_row_is_the_state_after_its_step():
    """With the learning rate that the step was taken with, and no norm where none was taken."""
    run = Run()
    run.stepped(1, *[0.1 * step for step in range(1, 11)], loss=0.25)
    run.stepped(11, 1.5, loss=math.nan, norm=3.0)
    tenth, eleventh = run.rows()[9:]
    assert (tenth.step, tenth.time_s, tenth.train_loss) == (10, pytest.approx(1.0), 0.25)
    assert (tenth.learning_rate, tenth.gradient_norm, tenth.evaluation) == (1.0, None, None)
    assert (eleventh.learning_rate, eleventh.gradient_norm, eleventh.train_loss) == (0.5, 3.0, None)


def test_a_row_that_waits_for_an_evaluation_holds_up_those_after_it():
    """Version 2 of four is evaluated, in two chunks: rows come in the order of the steps."""
    run = Run(steps=4, chunks=2, eval_every=2)
    run.stepped(1, 0.1, 0.2, 0.3)
    assert [row.step for row in run.rows()] == [1]
    run.evaluated(2, 0)
    assert [row.step for row in run.rows()] == [1]
    run.evaluated(2, 1)
    assert [(row.step, row.evaluation) for row in run.rows()] == [
        (1, None),
        (2, {"loss": 2.0, "accuracy": 0.5}),
        (3, None),
    ]


def test_an_evaluation_may_be_there_before_its_step_is_told():
    """What workers tell of their steps comes many at a time."""
    run = Run(steps=4, chunks=1, eval_every=2)
    run.evaluated(2)
    assert run.rows() == ()
    run.stepped(1, 0.1, 0.2)
    assert [(row.step, row.evaluation is not None) for row in run.rows()] == [(1, False), (2, True)]


def test_two_evaluations_may_be_under_way():
    """The later one is there first: both rows wait for the earlier one, and each gets its own."""
    run = Run(steps=4, chunks=1, eval_every=2)
    run.stepped(1, 0.1, 0.2, 0.3, 0.4)
    run.evaluated(4, loss_sum=8.0, correct=-1)
    assert [row.step for row in run.rows()] == [1]
    run.evaluated(2, loss_sum=2.0)
    assert [row.evaluation for row in run.rows()] == [
        None,
        {"loss": 1.0, "accuracy": 0.5},
        None,
        {"loss": 4.0, "accuracy": None},
    ]


def test_what_was_not_evaluated_by_the_end_has_its_row_without():
    """A run that is stopped or fails loses nothing of what it knows of its steps."""
    run = Run(steps=100, chunks=1, eval_every=2)
    run.stepped(1, 0.1, 0.2, 0.3, 0.4)
    run.evaluated(4)
    run.account.end()
    snapshot = run.account.watch(1, 1000.0)
    assert not snapshot.running
    assert [(row.step, row.evaluation and row.evaluation["loss"]) for row in snapshot.rows] == [
        (2, None),
        (3, None),
        (4, 2.0),
    ]


def test_a_version_of_local_steps_is_several_steps():
    """Ten steps in rounds of four: versions 1 to 3 are steps 4, 8 and 10."""
    run = Run(steps=10, local_steps=4, schedule={"name": "step", "learning_rate": 1.0, "step_size": 4, "gamma": 0.5})
    for version in (1, 2, 3):
        run.stepped(version, 0.1 * version)
    assert [(row.step, row.learning_rate) for row in run.rows()] == [(4, 1.0), (8, 0.5), (10, 0.25)]
    assert (run.account.telemetry.steps, run.account.telemetry.learning_rate) == (10, 0.25)
    assert (run.result(3, 0.3).steps, run.result(3, 0.3).cancelled) == (10, False)
    assert (run.result(2, 0.2).steps, run.result(2, 0.2).cancelled) == (8, True)


def test_samples_per_s_leaves_the_warm_up_out():
    """Ten steps of 1 s, then steps of 0.1 s: 8 samples each make 80 a second."""
    run = Run()
    slow = [float(step) for step in range(1, WARM_UP_STEPS + 1)]
    fast = [WARM_UP_STEPS + 0.1 * step for step in range(1, 21)]
    run.stepped(1, *slow)
    assert run.account.watch(0, 0.0).samples_per_s == pytest.approx(BATCH)
    run.stepped(WARM_UP_STEPS + 1, *fast)
    assert run.account.watch(0, 0.0).samples_per_s == pytest.approx(10 * BATCH)
    assert run.rows()[WARM_UP_STEPS - 1].samples_per_s == pytest.approx(BATCH)
    assert run.rows()[-1].samples_per_s == pytest.approx(10 * BATCH)
    assert run.result(WARM_UP_STEPS + 20, fast[-1]).samples_per_s == pytest.approx(10 * BATCH)
    assert run.result(WARM_UP_STEPS + 20, fast[-1]).train_s == pytest.approx(fast[-1])


def test_a_row_tells_the_speed_since_the_row_before():
    """A run that becomes slow shows it at once, whatever it came to before."""
    run = Run()
    run.stepped(1, 0.5, 1.0, 3.0)
    assert [row.samples_per_s for row in run.rows()] == pytest.approx([2 * BATCH, 2 * BATCH, BATCH / 2])


def test_a_round_of_local_steps_in_which_the_warm_up_ends_is_left_out():
    """Rounds of four: the third one ends with step 12, and what counts begins there."""
    run = Run(local_steps=4, schedule={"name": "constant", "learning_rate": 1.0})
    for version, after_s in enumerate((4.0, 8.0, 12.0, 12.4, 12.8), start=1):
        run.stepped(version, after_s)
    assert run.account.watch(0, 0.0).samples_per_s == pytest.approx(10 * BATCH)


def test_a_run_of_which_nothing_is_known_is_zeros():
    """No step was taken, and no time can be divided by."""
    run = Run()
    snapshot, result = run.account.watch(0, 0.0), run.result(0, 0.0, error="no room")
    assert (snapshot.step, snapshot.loss, snapshot.samples_per_s, snapshot.rows) == (0, None, 0.0, ())
    assert (result.steps, result.samples_per_s, result.train_loss, result.evaluation) == (0, 0.0, None, None)
    assert (result.error, result.cancelled) == ("no room", False)


def test_each_reader_gets_what_it_has_not_seen():
    """And at the end at once, without waiting for the timeout."""
    run = Run()
    run.stepped(1, 0.1, 0.2)
    assert [row.step for row in run.account.watch(1, 0.0).rows] == [2]
    assert (run.account.running, run.account.watch(2, 0.0).rows) == (True, ())
    run.account.end()
    assert not run.account.watch(0, 1000.0).running
    assert not run.account.running


def test_the_result_tells_what_became_of_pushes_and_what_was_evaluated_last():
    """Duplicates, dropped ones, and the staleness of those that were applied."""
    run = Run(steps=2, chunks=1)
    telemetry = run.account.telemetry
    telemetry.pushed(Verdict.ACCEPTED, 3)
    telemetry.pushed(Verdict.ACCEPTED, 0)
    telemetry.pushed(Verdict.LATE, pushes=3)
    telemetry.pushed(Verdict.DUPLICATE)
    run.stepped(1, 0.1, 0.2)
    run.evaluated(2)
    result = run.result(2, 0.2)
    assert (result.staleness, result.duplicates, result.dropped) == ({"mean": 1.5, "max": 3}, 1, 3)
    assert (result.evaluation, result.weights_sha256) == ({"loss": 2.0, "accuracy": 0.5}, "ab12")
    assert (telemetry.evaluation_loss, telemetry.evaluation_accuracy) == (2.0, 0.5)


def test_where_rows_are_rare_there_is_one_after_a_time():
    """Every 100 steps of 10,000; a step takes a second: the fifth and the tenth have a row, and those after an hour are
    further apart."""
    run = Run(steps=10_000)
    run.stepped(1, *map(float, range(1, 13)))
    assert [row.step for row in run.rows()] == [5, 10]
    run.stepped(13, *(7200.0 + step for step in range(1, 17)))
    assert [row.step for row in run.rows()] == [5, 10, 13, 21]


def test_the_newest_of_the_rows_taken_at_one_look_has_what_the_run_has_come_to():
    """By worker, from the begin of the attempt on, warm-up and all; the rows before it have none."""
    run = Run()
    told = np.zeros(3, STEP_DTYPE)
    told["rank"], told["step"], told["microbatches"], told["compute_s"] = 1, range(3), 2, 0.25
    run.account.telemetry.heard(told)
    run.account.telemetry.pushed(Verdict.ACCEPTED, staleness=2)
    run.account.telemetry.pace_s = {0: math.inf, 1: 0.1}
    run.account.telemetry.checkpoints.saved(2, 0.1)
    run.stepped(1, 0.1, 0.2)
    first, newest = run.rows()
    assert first.so_far is None
    assert newest.so_far.pop("time_s") > 0
    assert newest.so_far == {
        "steps": 100,
        "workers": {
            "rank": [1], "steps": [3], "microbatches": [6], "sample_s": [0], "compute_s": [0.75], "push_s": [0],
            "wait_s": [0], "waited_for_s": [0],
        },
        "sits_out": [0],
        "staleness": {"mean": 2.0, "max": 2},
        "checkpoints": {"saved": 1, "failed": 0, "skipped": 0, "step": 2},
        "skipped": 0,
    }  # fmt: skip
