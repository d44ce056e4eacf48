"""`train.non_finite = "skip"` in real runs: the same steps are skipped, to the same bits, whoever computes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tests.integration.local_run import Engine, train_locally

BAD = {2: 0, 7: 3, 8: 1, 19: 2}
"""Which microbatch of which step is not finite; the last step is one of them."""


class Poisoned(Engine):
    """Its loss, or one element of its gradient, is not finite where BAD says so."""

    def after(self, step: int, microbatch: int, loss: float, out: Any) -> float:
        if BAD.get(step) == microbatch:
            if step % 2:
                return math.nan
            next(iter(out.values())).reshape(-1)[-1] = math.inf
        return loss


class Hopeless(Engine):
    """No gradient from step 5 on is finite."""

    def after(self, step: int, microbatch: int, loss: float, out: Any) -> float:
        return math.inf if step >= 5 else loss


ONE_HOST, TWO_HOSTS, THREE_HOSTS = 2, (1, 1), (1, 2, 1)


@pytest.fixture(scope="module")
def alone():
    """The run of one worker, clipped or not."""
    return {clip: train_locally(workers=1, engine=Poisoned, skip=True, clip_norm=clip) for clip in (0.0, 0.5)}


@pytest.mark.faults("gradient becomes NaN, policy skip", how="engine", expected="skipped on all shards alike")
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("workers", [ONE_HOST, 3, (2,), TWO_HOSTS, THREE_HOSTS], ids=str)
def test_the_same_steps_are_skipped_to_the_same_bits(workers, clip_norm, alone):
    """A loss and a gradient in turn, two in a row, and in the last step."""
    run = train_locally(workers=workers, engine=Poisoned, skip=True, clip_norm=clip_norm)
    assert (run.result.error, run.result.steps, run.result.skipped) == (None, 20, len(BAD))
    assert run.result.weights_sha256 == alone[clip_norm].result.weights_sha256
    rows = {row.step: row for row in run.rows}
    assert [step for step, row in rows.items() if row.train_loss is None] == [8, 20]
    assert rows[3].gradient_norm is None, "the norm of what is not finite is no number"
    assert rows[4].gradient_norm is not None
    assert run.result.train_loss is None


def test_a_skipped_step_leaves_parameters_and_state_as_they_were(alone):
    """The weights are finite, and others than those of a run without bad steps; a step that is skipped counts."""
    weights = alone[0.0].weights
    assert all(np.isfinite(array).all() for array in weights.values())
    assert alone[0.0].result.weights_sha256 != train_locally(workers=1, skip=True).result.weights_sha256


@pytest.mark.parametrize("workers", [ONE_HOST, TWO_HOSTS], ids=str)
def test_where_nothing_is_skipped_the_bits_are_those_of_stop(workers):
    """The policy costs a pass over memory, and no bit."""
    run = train_locally(workers=workers, skip=True)
    assert (run.result.error, run.result.skipped) == (None, 0)
    assert run.result.weights_sha256 == train_locally(workers=workers).result.weights_sha256


@pytest.mark.faults(
    "gradients become NaN ten times in a row, policy skip", how="engine", expected="failed, with advice"
)
@pytest.mark.parametrize("workers", [ONE_HOST, TWO_HOSTS], ids=str)
def test_ten_in_a_row_end_the_run_with_advice(workers):
    """Steps 5 to 13 are skipped; nothing of step 14 is published."""
    run = train_locally(workers=workers, engine=Hopeless, skip=True)
    result = run.results[0]
    assert (result.steps, result.skipped) == (14, 9)
    assert "step 14: the loss" in result.error
    assert "9 steps before" in result.error
    assert "Lower optimizer.learning_rate" in result.error
