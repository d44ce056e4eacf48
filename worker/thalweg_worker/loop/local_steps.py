"""Local SGD: a worker takes some steps by itself, and hands in what they changed.

The change (start - end) takes the place of a gradient: the servers average it over the workers and apply an outer rule
to it, so that with plain averaging (outer learning rate 1, no momentum) the new parameters are the mean of the
workers'. Sources: Stich, "Local SGD Converges Fast and Communicates Little", 2019; Douillard et al., "DiLoCo", 2023.

A worker's own rule reads its state where it lies at version t, and writes that of version t + 1 elsewhere: whoever
takes the place of a worker that died makes the round again, from what was there at its begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class LocalUpdate(Protocol):
    """The update rule as one worker applies it to parameters of its own; its state lasts from round to round."""

    def __call__(
        self,
        step: int,
        parameters: NDArray[np.float32],
        gradient: NDArray[np.float32],
        before: Sequence[NDArray[np.float32]],
        after: Sequence[NDArray[np.float32]],
    ) -> None:
        """Takes step `step` (of the whole job) in place; the gradient is overwritten.

        before, after: the rule's state, arrays of the flat vector's size: read from the one and written to the other,
                       which may be the same
        """
        ...


class NewLocalUpdate(Protocol):
    """Makes the LocalUpdate of one worker."""

    def __call__(self) -> LocalUpdate: ...
