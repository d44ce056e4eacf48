"""The same final bits, whatever the number of workers; checked on the real server, sockets and shared memory."""

from __future__ import annotations

import numpy as np
import pytest
from tests.integration.local_run import Engine, train_locally


@pytest.mark.parametrize("microbatches", [4, 7])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_any_number_of_workers_gives_the_same_bits(microbatches, clip_norm):
    """1 to 4 workers end in one weights_sha256 and one held-out loss, also where V is no multiple of the workers."""
    runs = [train_locally(workers=workers, microbatches=microbatches, clip_norm=clip_norm) for workers in (1, 2, 3, 4)]
    assert len({run.result.weights_sha256 for run in runs}) == 1
    assert len({run.result.evaluation["loss"] for run in runs}) == 1
    assert len({run.result.train_loss for run in runs}) == 1


def test_any_number_of_threads_gives_the_same_bits():
    """The update's threads deal out blocks, not order."""
    one, two = (train_locally(threads=threads, clip_norm=0.5) for threads in (1, 2))
    assert one.result.weights_sha256 == two.result.weights_sha256


def test_another_number_of_microbatches_agrees_up_to_rounding():
    """The gradient is the mean over the batch: V changes the rounding, not the result."""
    one, eight = (train_locally(microbatches=v, workers=1).weights for v in (1, 8))
    for name, array in one.items():
        np.testing.assert_allclose(eight[name], array, rtol=1e-4, atol=1e-5)


def test_a_microbatch_of_another_worker_makes_no_difference_but_one_missing_does():
    """A run in which one microbatch is left out of the mean ends elsewhere: the check above can fail."""

    class Skewed(Engine):
        def after(self, step, microbatch, loss, out):
            if microbatch == 3:
                for array in out.values():
                    array[...] = 0
            return loss

    whole, skewed = train_locally(), train_locally(engine=Skewed)
    assert whole.result.weights_sha256 != skewed.result.weights_sha256
