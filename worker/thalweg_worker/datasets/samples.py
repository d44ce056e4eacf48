"""What the step loop asks of a data set, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg_worker.batch import DataSpec
from thalweg_worker.datasets.fetcher import Fetcher


class Samples(Protocol):
    """Samples and targets by index. Not for two threads at once."""

    @property
    def spec(self) -> DataSpec:
        """Shapes and dtypes of what `take` writes."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64], x_out: NDArray[Any], y_out: NDArray[Any]) -> None:
        """Write the samples at `indices` to x_out and their targets to y_out.

        indices: (n,) int64 within [0, len(self)); raises IndexError beyond
        x_out:   (n, *spec.input_shape) of spec.input_dtype
        y_out:   (n, *spec.target_shape), int64 class indices or float32 targets

        Raises InputError where a sample is of no use, which only user's code can give that late.
        """

    @property
    def apart(self) -> bool:
        """Whether samples are fetched in a thread of their own, so that `ahead` is of use."""

    def ahead(self, batches: Iterable[NDArray[np.int64]]) -> None:
        """These will probably be taken next, each as a whole and in this order: they are fetched meanwhile. What was
        said before, and is not again, counts no more. Raises nothing: what is wrong with a sample is told by `take`."""

    def to_shipment(self) -> Shipped:
        """What another process needs to have this set: small where it is not in memory."""


class Shipped(Protocol):
    """A data set on its way to another process: a plain picklable value.

    Where training and evaluation share something (arrays, a user's file), pickle both at once, so that it travels once.
    """

    def open(self, fetcher: Fetcher) -> Samples:
        """The set, whose user's code runs in the thread of `fetcher`. Raises InputError where this process cannot get
        at its files, or the user's code fails in it."""
