"""What the step loop asks of a gradient engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg_worker.batch import Batch

Arrays = dict[str, NDArray[np.float32]]
BeforeRead = Callable[[str, int], None]  # (name, end)
OnReady = Callable[[str, int], None]  # (name, first)


class Evaluation(NamedTuple):
    """What the labels of a batch come to: one of each sample, or one at each position of a sequence.

    loss_sum: sum of their losses; correct: how many are rightly classified, -1 where that says nothing
    """

    loss_sum: float
    correct: int


class GradientEngine(Protocol):
    """Evaluates the loss of one microbatch and its gradient.

    deterministic: whether the same microbatch gives the same bits each time, which exactness stands on
    """

    deterministic: bool

    def gradient(
        self,
        parameters: Arrays,
        batch: Batch,
        *,
        weight: float,
        out: Arrays,
        before_read: BeforeRead | None = None,
        on_ready: OnReady | None = None,
    ) -> Callable[[], float]:
        """The function that computes the mean loss of `batch`, and writes `weight` times its gradient into `out`.

        It works on these very arrays, and on what they hold when it is called: the loop has a few buffers that stay,
        and asks once for each combination of them.

        parameters:  by name, float32, read in place and never written
        weight:      samples of this microbatch / samples of the batch, so that the sum over all microbatches is the
                     gradient of the mean over the batch
        out:         the names and shapes of `parameters`; every element is written. Of a parameter that is averaged
                     and not trained (`Layout`) it gets `weight` times (what it was - what this microbatch made of it)
        before_read: called with (name, end) before elements of the parameter `name` before `end` are read, unless it
                     was for these; may wait until they are there. It was called with end = size for each parameter
                     before anything is written to `out`
        on_ready:    called with (name, first) when elements [first, size) of the gradient `name` are final in `out`;
                     the last call for each name says 0

        Elements are counted in the flat array. The hooks are called by the function that is returned, in its thread,
        and change no bit of what it computes; what one raises comes out of it.
        """
        ...

    def evaluate(self, parameters: Arrays, batch: Batch) -> Evaluation:
        """Loss and hits of `batch`, without a gradient and without anything random."""
        ...
