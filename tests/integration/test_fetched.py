"""Samples that are fetched ahead, in whole runs: the bits of an array, and each batch known before it is needed."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tests.integration.local_run import train_locally

from thalweg_worker.datasets import Dataset, FetchedDataset, Fetcher
from thalweg_worker.datasets.fetched import FetchedAhead
from thalweg_worker.datasets.rows import all_rows
from thalweg_worker.datasets.user_set import UserSet

STEPS = 20


class Counted(FetchedAhead):
    """Counts what is taken, what of it was expected, and what of it was when something was expected before that."""

    before: tuple[bytes, ...] = ()
    expected: tuple[bytes, ...] = ()
    taken = known = early = 0

    def ahead(self, batches: Any) -> None:
        batches = list(batches)
        self.before, self.expected = self.expected, tuple(rows.tobytes() for rows in batches)
        super().ahead(batches)

    def take(self, indices: Any, x_out: Any, y_out: Any) -> None:
        self.taken += 1
        self.known += indices.tobytes() in self.expected
        self.early += indices.tobytes() in self.before
        super().take(indices, x_out, y_out)


def fetched(stack: ExitStack, sets: list[Counted]) -> Any:
    """Makes of an array what a user's function would give of the same samples."""

    def opened(data: Dataset) -> Counted:
        x, y = data.x.array, data.y.array
        rows = UserSet("rows", [(x[i], int(y[i])) for i in range(len(x))])
        samples = FetchedDataset(
            spec=data.spec,
            source=cast(Any, SimpleNamespace(open=lambda: rows)),
            rows=all_rows(len(x)),
            scaling=None,
        )
        fetcher = Fetcher()
        stack.callback(fetcher.close)
        sets.append(Counted(samples, fetcher))
        return sets[-1]

    return opened


@pytest.mark.parametrize(
    "how", [{"workers": 2}, {"workers": 3}, {"workers": [1, 1]}, {"workers": [2, 1], "local_steps": 2}], ids=str
)
def test_what_is_fetched_ahead_gives_the_bits_of_an_array(how):
    """On one host, where a worker may take what was dealt to another, and on several, where each step but the first was
    expected in the one before."""
    plain = train_locally(steps=STEPS, **how)
    sets: list[Counted] = []
    with ExitStack() as stack:
        run = train_locally(steps=STEPS, opened=fetched(stack, sets), **how)
    assert run.worker_errors == []
    assert run.result.error is None
    for name, array in plain.weights.items():
        np.testing.assert_array_equal(run.weights[name], array)
    assert sum(each.taken for each in sets) >= 4 * STEPS
    early = sum(each.early for each in sets)
    assert early == 4 * (STEPS - 1) if isinstance(how["workers"], list) else early > 0


@pytest.mark.parametrize("how", [{"consistency": "ssp", "staleness": 1}, {"consistency": "async"}], ids=str)
def test_who_gets_what_is_foreseen_where_one_worker_takes_all(how):
    """With others it is a guess, and a wrong one costs no more than a sample."""
    sets: list[Counted] = []
    with ExitStack() as stack:
        run = train_locally(steps=STEPS, workers=[1], opened=fetched(stack, sets), **how)
        assert run.worker_errors == []
        both = train_locally(steps=STEPS, workers=[1, 1], opened=fetched(stack, sets), **how)
        assert both.worker_errors == []
    alone, *others = sets
    assert (alone.taken, alone.known) == (4 * STEPS, 4 * STEPS - 1)
    assert sum(each.taken for each in others) == 4 * STEPS
