"""The sample phase: from (step, microbatch) to a Batch in buffers that stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import InputError
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.datasets import Samples
from thalweg_worker.datasets.dataset import target_dtype
from thalweg_worker.ledger import Ledger
from thalweg_worker.sampler import Sampler, SampleStream

EVALUATION_CHUNK = 512
"""Samples in a held-out chunk. Fixed, so that the evaluation has the same bits for any number of workers."""


class BatchSource:
    """Draws microbatches, into one buffer for each size of a microbatch."""

    def __init__(
        self, dataset: Samples, sampler: Sampler, microbatches: Sequence[int] = (), ledger: Ledger | None = None
    ) -> None:
        """`ledger`: where it is written down which samples were taken; None: nowhere"""
        self._dataset = dataset
        self._ledger = ledger
        self._sampler = sampler
        self._stream = SampleStream(sampler, microbatches)
        self._buffers: dict[int, Batch] = {}
        self._drawn: tuple[int, int] | None = None
        self._step = -1  # the newest that was begun
        self._own: list[int] = []  # microbatches that it begins with
        self._taken: set[int] = set()  # of these
        self._rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # of the data set, that were drawn last

    def expect(self, microbatches: Sequence[int]) -> None:
        """These will be drawn in most steps: their samples are worked out for many steps at once."""
        if self._stream.microbatches != tuple(microbatches):
            self._stream = SampleStream(self._sampler, microbatches)

    def begin(self, step: int, microbatches: Sequence[int]) -> None:
        """These will be drawn in `step`, and probably in the next one: where samples are fetched apart, that begins
        now, with this step's. It may be called again with more of the same step."""
        if not self._dataset.apart:
            return
        if step != self._step:
            self._step, self._own, self._taken = step, [], set()
        self._own += [m for m in microbatches if m not in self._own]
        now = [(step, m) for m in self._own if m not in self._taken]
        self.ahead([*now, *((step + 1, m) for m in self._own)])

    def ahead(self, units: Iterable[tuple[int, int]]) -> None:
        """Steps and microbatches that will probably be drawn next."""
        if self._dataset.apart:
            self._dataset.ahead([self._indices(*unit) for unit in units])

    def draw_early(self, step: int, microbatch: int) -> None:
        """`draw`, in time that would be waited away; nothing where samples are fetched apart, since that goes on."""
        if not self._dataset.apart:
            self.draw(step, microbatch)

    def batch(self, microbatch: int) -> Batch:
        """Where the samples of `microbatch` are drawn to; it may serve other microbatches, too."""
        samples = self._sampler.size(microbatch)
        if samples not in self._buffers:
            key = np.array([self._sampler.seed, 0, 0], dtype=np.uint64)
            self._buffers[samples] = empty_batch(self._dataset.spec, samples, key)
        return self._buffers[samples]

    def draw(self, step: int, microbatch: int) -> None:
        """Puts the samples of microbatch `microbatch` of step `step` into `batch(microbatch)`.

        Where nothing else was drawn since, the same again costs nothing: so the next microbatch may be drawn early,
        while others still compute. Raises InputError where a sample is of no use.
        """
        if self._drawn == (step, microbatch):
            return
        batch = self.batch(microbatch)
        self._rows = self._indices(step, microbatch)
        self._taken.add(microbatch)
        try:
            self._dataset.take(self._rows, batch.x, batch.y)
        except InputError as error:
            where = f"in microbatch {microbatch} of step {step}"
            raise InputError([replace(each, found=f"{each.found}, {where}") for each in error.problems]) from None
        assert batch.key is not None
        batch.key[1:] = step, microbatch
        self._drawn = (step, microbatch)

    def _indices(self, step: int, microbatch: int) -> NDArray[np.int64]:
        expected = microbatch in self._stream.microbatches
        return (self._stream if expected else self._sampler).indices(step, microbatch)

    def take(self, step: int, microbatch: int) -> None:
        """Draws the samples, for a gradient that will be pushed: they go into the step.

        LedgerError where the ledger cannot be written.
        """
        self.draw(step, microbatch)
        if self._ledger is not None:
            self._ledger.take(step, microbatch, self._rows)


def evaluation_chunks(samples: int) -> int:
    """Into how many chunks a held-out set of `samples` samples is cut."""
    return -(-samples // EVALUATION_CHUNK)


def evaluation_batch(dataset: Samples, chunk: int) -> Batch:
    """Chunk `chunk` of a held-out set, in its own order."""
    begin = chunk * EVALUATION_CHUNK
    end = min(begin + EVALUATION_CHUNK, len(dataset))
    batch = empty_batch(dataset.spec, end - begin, None)
    dataset.take(np.arange(begin, end, dtype=np.int64), batch.x, batch.y)
    return batch


def first_batch(dataset: Samples, samples: int = 4) -> Batch:
    """The first few samples, with a key, as a training batch: to try a model on before it is trained."""
    samples = min(samples, len(dataset))
    batch = empty_batch(dataset.spec, samples, np.zeros(3, dtype=np.uint64))
    dataset.take(np.arange(samples, dtype=np.int64), batch.x, batch.y)
    return batch


def made_up_batch(spec: DataSpec, samples: int = 4) -> Batch:
    """Samples without meaning, with a key, in place of `first_batch` where the data itself has a mistake.

    Noise, as after scaling, for numbers; 0, which is always there, for tokens and classes.
    """
    batch = empty_batch(spec, samples, np.zeros(3, dtype=np.uint64))
    rng = np.random.default_rng(0)
    for array in (batch.x, batch.y):
        array[...] = rng.standard_normal(array.shape) if array.dtype == np.float32 else 0
    return batch


def empty_batch(spec: DataSpec, samples: int, key: NDArray[np.uint64] | None) -> Batch:
    """Room for `samples` samples."""
    x = np.empty((samples, *spec.input_shape), dtype=spec.input_dtype)
    return Batch(x, np.empty((samples, *spec.target_shape), dtype=target_dtype(spec)), key)
