"""A data set as the step loop sees it: rows by index, float32, scaled, into buffers that stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from thalweg_worker.batch import DataSpec
from thalweg_worker.datasets.fetcher import Fetcher
from thalweg_worker.datasets.gather import Gather, label_conversion, sample_conversion
from thalweg_worker.datasets.rows import Rows
from thalweg_worker.datasets.scaling import Scaling
from thalweg_worker.datasets.stored import Array, Place, StoredArray

ROW_TABLE_MAX = 1 << 22  # rows: a table of 32 MiB


def target_dtype(spec: DataSpec) -> np.dtype[Any]:
    """int64 for class indices, float32 for the targets of a regression."""
    return np.dtype(np.int64 if spec.task == "classification" else np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shipment:
    """A data set on its way to another process: arrays, or the files and places that they are mapped from.

    See `Shipped`.
    """

    spec: DataSpec
    x: Array | Place
    y: Array | Place
    rows: Rows
    scaling: Scaling | None
    classes: Array | None

    def open(self, fetcher: Fetcher) -> Dataset:
        return Dataset.from_shipment(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Samples and targets by index, from arrays: see `Samples`.

        x, y = np.empty((128, *data.spec.input_shape), np.float32), np.empty(128, np.int64)
        data.take(indices, x, y)

    spec:    shapes and dtypes of what `take` writes
    x, y:    (size, ...) in the file's dtype, or ready to be copied
    rows:    which of them belong to this set
    scaling: what is still to be done to x; None where it is ready
    classes: (k,) the sorted distinct labels, where y holds labels that are not class indices; None where it is ready

    Not for two threads at once: `take` converts in a buffer of its own.
    """

    apart: ClassVar[bool] = False
    spec: DataSpec
    x: StoredArray
    y: StoredArray
    rows: Rows
    scaling: Scaling | None
    classes: Array | None
    _row_table: NDArray[np.int64] | None = field(init=False, repr=False)
    _gather_x: Gather = field(init=False, repr=False)
    _gather_y: Gather = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Up to some million rows a table is the quickest way from index to row; beyond, each is computed.
        small = len(self.rows) <= ROW_TABLE_MAX
        table = self.rows.at(np.arange(len(self.rows), dtype=np.int64)) if small else None
        object.__setattr__(self, "_row_table", table)
        x, y = self.x.array, self.y.array
        convert_x = sample_conversion(x.dtype, np.dtype(self.spec.input_dtype), self.scaling)
        convert_y = label_conversion(y.dtype, target_dtype(self.spec), self.classes)
        object.__setattr__(self, "_gather_x", Gather(x, convert_x))
        object.__setattr__(self, "_gather_y", Gather(y, convert_y))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: NDArray[np.int64], x_out: NDArray[Any], y_out: NDArray[Any]) -> None:
        """See `Samples.take`."""
        rows = self._row_table.take(indices) if self._row_table is not None else self.rows.at(indices)
        self._gather_x(rows, x_out)
        self._gather_y(rows, y_out)

    def ahead(self, batches: Iterable[NDArray[np.int64]]) -> None:
        """Nothing: to gather rows costs no more than to hand them over."""

    def to_shipment(self) -> Shipment:
        """What another process needs to have this set: small where the arrays are mapped from files."""
        return Shipment(
            spec=self.spec,
            x=self.x.ship(),
            y=self.y.ship(),
            rows=self.rows,
            scaling=self.scaling,
            classes=self.classes,
        )

    @staticmethod
    def from_shipment(shipment: Shipment) -> Dataset:
        """The set of a shipment; maps its files, and raises InputError where they cannot be mapped."""
        return Dataset(
            spec=shipment.spec,
            x=StoredArray.unship(shipment.x),
            y=StoredArray.unship(shipment.y),
            rows=shipment.rows,
            scaling=shipment.scaling,
            classes=shipment.classes,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset.from_shipment, (self.to_shipment(),)
