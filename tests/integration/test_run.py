"""What a run does from its first step to its last, with threads instead of Ray."""

from __future__ import annotations

import gc
import math
import os
import re
import threading

import numpy as np
import pytest
from tests.integration.local_run import Engine, train_locally

from thalweg_proto import messages
from thalweg_proto.errors import ServerError
from thalweg_worker.models import UserFile


def test_it_learns_and_says_so():
    """60 steps on three well-separated classes: the loss falls and most held-out samples are right."""
    run = train_locally(steps=60, eval_every=20)
    assert (run.result.error, run.result.cancelled, run.result.steps) == (None, False, 60)
    assert run.rows[0].train_loss > 2 * run.result.train_loss
    assert run.result.evaluation["accuracy"] > 0.8
    assert [row.step for row in run.rows if row.evaluation] == [20, 40, 60]


ONE_NUMBER = """
import numpy as np
from thalweg_worker import autodiff as ad

class Model:
    def init(self, rng):
        return {"w": np.zeros((6, 3), np.float32), "scale": np.ones((), np.float32)}
    def predict(self, params, x):
        return x @ params["w"] * params["scale"]
    def loss(self, params, batch):
        return ad.softmax_cross_entropy(self.predict(params, batch.x), batch.y) + 1e-3 * params["scale"]

def build(data_spec):
    return Model()
"""


@pytest.mark.parametrize("workers", [2, [1, 1]], ids=["a host", "two hosts"])
def test_a_parameter_may_be_a_single_number(workers):
    """It has no axis where the model sees it, nor in the weights."""
    model = {"use": "build", "file": UserFile(path="/jobs/one.py", source=ONE_NUMBER.encode())}
    run = train_locally(model=model, workers=workers, steps=30)
    assert (run.result.error, run.worker_errors) == (None, [])
    assert run.weights["scale"].shape == ()
    assert run.weights["scale"] != 1.0


def test_the_time_split_covers_the_step():
    """sample + compute + push + wait of a worker is the time of a step, evaluations left out."""
    result = train_locally(steps=200, workers=1, microbatches=1).result
    assert sum(result.phase_ms.values()) == pytest.approx(1e3 * result.train_s / result.steps, rel=0.2)


def test_gradient_norms_are_taken_with_each_row():
    """Each line of metrics.jsonl has a finite gradient norm and the learning rate of its step."""
    rows = train_locally(steps=30).rows
    assert all(math.isfinite(row.gradient_norm) and row.learning_rate == 0.05 for row in rows)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 2])  # microbatch 0's gradient is overwritten by the update
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_the_run_and_is_never_published(bad, at, clip_norm):
    """The error names step, microbatch, tensor and learning rate; the weights are those of the step before."""

    class Bad(Engine):
        def after(self, step, microbatch, loss, out):
            if (step, microbatch) == (5, at):
                sorted(out.items())[-1][1].flat[1] = bad
            return loss

    run = train_locally(engine=Bad, clip_norm=clip_norm)
    assert run.result.steps == 5
    for part in ("step 5", f"microbatch {at}", f"is {bad}", "learning rate was 0.05", "Lower optimizer.learning_rate"):
        assert part in run.result.error
    assert all(np.isfinite(array).all() for array in run.weights.values())
    assert run.worker_errors == []


def test_a_loss_that_is_not_finite_stops_the_run():
    """Even where the gradients are finite."""

    class Bad(Engine):
        def after(self, step, microbatch, loss, out):
            return math.nan if step == 3 else loss

    run = train_locally(engine=Bad)
    assert run.result.steps == 3
    assert "step 3: the loss of microbatch 0 is nan" in run.result.error


def test_a_learning_rate_far_too_large_is_told_as_such():
    """The run overflows within a few steps and ends with the advice, not with NaN weights."""
    run = train_locally(schedule={"name": "constant", "learning_rate": 1e30, "warmup_steps": 0}, steps=50)
    assert run.result.steps < 50
    assert "learning rate was 1e+30" in run.result.error
    assert all(np.isfinite(array).all() for array in run.weights.values())


def test_a_worker_that_raises_ends_the_run_for_all():
    """The server says who is gone; the others stop without an error of their own."""

    class Bad(Engine):
        def before(self, step, microbatch):
            if (step, microbatch) == (4, 3):
                raise RuntimeError("boom")

    run = train_locally(engine=Bad)
    assert run.result.steps == 4
    assert re.fullmatch("worker [01] is gone: it raised an exception", run.result.error)
    assert [str(error) for error in run.worker_errors] == ["boom"]


def test_dropout_follows_from_step_and_microbatch():
    """A model with something random in it gives the same bits for any number of workers, too."""
    model = {"use": "mlp", "options": {"hidden": [8], "dropout": 0.5}}
    one, three = (train_locally(workers=workers, model=model).result for workers in (1, 3))
    assert one.weights_sha256 == three.weights_sha256
    assert one.weights_sha256 != train_locally().result.weights_sha256


def test_nothing_is_left_in_shared_memory():
    """Names in /dev/shm, open descriptors and threads are those from before."""
    train_locally()  # warms up what stays for the process
    gc.collect()  # what tests before this one left is not this one's
    before = (set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd")), threading.active_count())
    train_locally()
    gc.collect()  # the run and what starts more workers in it know each other
    assert (set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd")), threading.active_count()) == before


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_stop_in_the_middle_of_a_step_is_no_error(clip_norm):
    """However far each worker is when the run is stopped, it ends as cancelled, with the version of that step."""
    for step in range(2, 12):
        made = []

        class Stopping(Engine):
            def before(self, step, microbatch, at=step, made=made):
                if (step, microbatch) == (at, 0):
                    made[0].stop()

        run = train_locally(engine=Stopping, made=made.extend, steps=50, clip_norm=clip_norm)
        assert (run.result.error, run.result.cancelled, run.worker_errors) == (None, True, [])
        assert run.result.steps == step + 1


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_hears_the_end_whether_it_ever_waits_or_not(workers):
    """One alone never waits for others, and still ends with the step in which the server says so."""
    made, said = [], []

    class Ended(Engine):
        def before(self, step, microbatch):
            # Once all have joined: on a busy machine, some may do so after others have begun.
            if step >= 3 and microbatch == 0 and not said and made[0]._door.full:
                said.append(step)
                for rank in range(workers):
                    made[0]._door.send(rank, messages.pack_stop())

    run = train_locally(engine=Ended, made=made.extend, steps=5000, workers=workers)
    assert (run.result.cancelled, run.worker_errors) == (True, [])
    assert run.result.steps - said[0] in (0, 1)


def test_clipping_keeps_the_norm_that_was_taken():
    """The rows show the norm before clipping, and a run that is clipped hard moves less."""
    free, clipped = train_locally(steps=30), train_locally(steps=30, clip_norm=1e-3)
    assert clipped.rows[0].gradient_norm == pytest.approx(free.rows[0].gradient_norm, rel=1e-6)
    assert clipped.result.train_loss > 1.5 * free.result.train_loss


def test_rows_come_in_the_order_of_their_versions():
    """Also where an evaluation is known later than the steps after it."""
    rows = train_locally(steps=60, eval_every=7, workers=3).rows
    assert [row.step for row in rows] == list(range(1, 61))
    assert [row.step for row in rows if row.evaluation] == [*range(7, 60, 7), 60]


def test_a_worker_with_no_server_says_so():
    """The error names the rank and the address."""
    from thalweg_proto.layout import Layout
    from thalweg_worker.exchange import join

    with pytest.raises(ServerError, match="worker 3: no server listens at 'thalweg-nowhere'"):
        join("thalweg-nowhere", job_id="j", rank=3, layout=Layout.of({"w": (1,)}))
