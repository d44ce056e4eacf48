"""A data set of a user's own code, as the step loop sees it: each sample is fetched where and when it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.batch import DataSpec
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

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: NDArray[np.int64], x_out: NDArray[Any], y_out: NDArray[Any]) -> None:
        """See `Samples.take`."""
        samples = self.source.open()
        convert = sample_conversion(samples.x.dtype, x_out.dtype, self.scaling) or cast
        for place, row in enumerate(self.rows.at(indices).tolist()):
            x, y = samples.sample(row)
            if self.spec.task == "classification":
                problem = wrong_label(f"{samples.name}, sample {row}", y, self.spec.classes)
                if problem is not None:
                    raise InputError([problem])
            convert(x, x_out[place])
            y_out[place] = y

    def to_shipment(self) -> FetchedDataset:
        """Itself: the text of the user's file, and what to call in it."""
        return self

    def open(self) -> FetchedDataset:
        """Calls the user's function, once in this process. Raises InputError."""
        self.source.open()
        return self


def wrong_label(name: str, y: Array, classes: int | None) -> Problem | None:
    """A label that is no class; classes: how many there are, None where it is not known yet."""
    limit = CLASSES_MAX if classes is None else classes
    least, largest = int(y.min()), int(y.max())
    if least >= 0 and largest < limit:
        return None
    found = least if least < 0 else largest
    return Problem(name, f"labels from 0 to {limit - 1}", f"{found}", "labels out of range: classes count from 0")
