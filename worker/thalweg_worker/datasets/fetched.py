"""A data set of a user's own code, as the step loop sees it: each sample is fetched where it is needed, by a worker
before it is needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.batch import DataSpec
from thalweg_worker.datasets.dataset import target_dtype
from thalweg_worker.datasets.fetcher import Fetcher
from thalweg_worker.datasets.gather import cast, sample_conversion
from thalweg_worker.datasets.labels import CLASSES_MAX
from thalweg_worker.datasets.rows import Rows
from thalweg_worker.datasets.scaling import Scaling
from thalweg_worker.datasets.stored import Array
from thalweg_worker.datasets.user_set import UserFunction


@dataclass(frozen=True, kw_only=True, eq=False)
class FetchedDataset:
    """Samples and targets by index, from a user's function: see `Samples`. It travels as it is.

    rows:    which of the function's samples belong to this set
    scaling: what is still to be done to x; None where it is ready
    """

    spec: DataSpec
    source: UserFunction
    rows: Rows
    scaling: Scaling | None
    apart: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: NDArray[np.int64], x_out: NDArray[Any], y_out: NDArray[Any]) -> None:
        """See `Samples.take`."""
        batch = _Batch(self, indices, x_out, y_out)
        while not batch.done:
            batch.go_on()

    def ahead(self, batches: Iterable[NDArray[np.int64]]) -> None:
        """Nothing: see `Samples.apart`."""

    def to_shipment(self) -> FetchedDataset:
        """Itself: the text of the user's file, and what to call in it."""
        return self

    def open(self, fetcher: Fetcher) -> FetchedAhead:
        """Calls the user's function, once in this process, in the fetcher's thread. Raises InputError."""
        fetcher.call(self.source.open)
        return FetchedAhead(self, fetcher)


class FetchedAhead:
    """The same in a worker: see `Samples`. The user's code runs in the fetcher's thread only."""

    apart = True

    def __init__(self, samples: FetchedDataset, fetcher: Fetcher) -> None:
        self.spec = samples.spec
        self._samples = samples
        self._fetcher = fetcher

    def __len__(self) -> int:
        return len(self._samples)

    def take(self, indices: NDArray[np.int64], x_out: NDArray[Any], y_out: NDArray[Any]) -> None:
        """See `Samples.take`."""
        batch = self._fetcher.result(self._batch(indices))
        assert isinstance(batch, _Batch)
        np.copyto(x_out, batch.x)
        np.copyto(y_out, batch.y)

    def ahead(self, batches: Iterable[NDArray[np.int64]]) -> None:
        """See `Samples.ahead`."""
        self._fetcher.expect(map(self._batch, batches))

    def to_shipment(self) -> FetchedDataset:
        return self._samples

    def _batch(self, indices: NDArray[np.int64]) -> _Batch:
        return _Batch(self._samples, indices, None, None)


class _Batch:
    """Samples that are fetched one by one, checked and scaled: see `Piecewise`."""

    def __init__(
        self,
        samples: FetchedDataset,
        indices: NDArray[np.int64],
        x: NDArray[Any] | None,
        y: NDArray[Any] | None,
    ) -> None:
        """x, y: where they go; None: to arrays of their own, made with the first one."""
        spec = samples.spec
        self.key = (id(samples), indices.tobytes())
        self._samples = samples
        self._indices = indices
        self._shapes = (len(indices), *spec.input_shape), (len(indices), *spec.target_shape)
        self._dtypes = np.dtype(spec.input_dtype), target_dtype(spec)
        self.nbytes = sum(int(np.prod(s)) * d.itemsize for s, d in zip(self._shapes, self._dtypes, strict=True))
        self._x, self._y = x, y
        self._rows: list[int] = []
        self._place = 0

    @property
    def x(self) -> NDArray[Any]:
        assert self._x is not None
        return self._x

    @property
    def y(self) -> NDArray[Any]:
        assert self._y is not None
        return self._y

    @property
    def done(self) -> bool:
        return self._place == len(self._indices)

    def go_on(self) -> None:
        """The next sample. Raises InputError where it is of no use."""
        if not self._place:
            self._begin()
        samples, place = self._samples, self._place
        user_set = samples.source.open()
        x, y = user_set.sample(self._rows[place])
        if samples.spec.task == "classification":
            problem = wrong_label(f"{user_set.name}, sample {self._rows[place]}", y, samples.spec.classes)
            if problem is not None:
                raise InputError([problem])
        self._convert(x, self.x[place])
        self.y[place] = y
        self._place += 1

    def _begin(self) -> None:
        samples = self._samples
        self._rows = samples.rows.at(self._indices).tolist()
        if self._x is None or self._y is None:
            self._x, self._y = (np.empty(s, d) for s, d in zip(self._shapes, self._dtypes, strict=True))
        found = samples.source.open().x.dtype
        self._convert = sample_conversion(found, self._x.dtype, samples.scaling) or cast


def wrong_label(name: str, y: Array, classes: int | None) -> Problem | None:
    """A label that is no class; classes: how many there are, None where it is not known yet."""
    limit = CLASSES_MAX if classes is None else classes
    least, largest = int(y.min()), int(y.max())
    if least >= 0 and largest < limit:
        return None
    found = least if least < 0 else largest
    return Problem(name, f"labels from 0 to {limit - 1}", f"{found}", "labels out of range: classes count from 0")
