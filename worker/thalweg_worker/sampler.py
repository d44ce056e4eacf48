"""Which samples are in microbatch m of step t: a pure function of (seed, t, m).

Rules:

- A job walks one endless stream of samples. Position p of the stream is in epoch e = p // N, and each epoch
  is a fresh permutation of the N samples, so within an epoch each sample comes exactly once.
- Step t takes the positions [t B, (t + 1) B). A batch may cross into the next epoch, or hold several.
- Microbatch m of V is the fixed slice [m B // V, (m + 1) B // V) of the batch: sizes differ by at most one.
- Nothing is remembered: any (t, m), asked in any order by any process, gets the same answer. So there is no
  loader state to save with a checkpoint, and a microbatch can be computed again by another worker.

`Sampler` is the function; `SampleStream` gives the same answers for one worker's microbatches at a cost that
does not count beside a step of half a millisecond, by working out many steps in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.shares import share
from thalweg_worker.permutation import SIZE_MAX, permute, splitmix64, word

_POSITION_MAX = 2**63 - 1
_WINDOW = 16384  # indices that a stream works out at once: 128 KiB


@dataclass(frozen=True)
class Sampler:
    """The samples of each microbatch of each step.

        sampler = Sampler(0, samples=60_000, batch_size=128, microbatches=8)
        sampler.indices(step=10_000, microbatch=3)     # 16 rows of the training set

    seed:         any integer; the epoch e is permuted by the e-th number of a splitmix64 that `seed` starts
    samples:      N, how many rows the training set has; 1 .. 2**62
    batch_size:   B, samples of one step over the whole cluster; 1 .. 2**62, and may be larger than N
    microbatches: V, slices of a batch; 1 .. B

    A value out of range raises ValueError.
    """

    seed: int
    _: KW_ONLY
    samples: int
    batch_size: int
    microbatches: int

    def __post_init__(self) -> None:
        for name, high in (
            ("samples", SIZE_MAX),
            ("batch_size", SIZE_MAX),
            ("microbatches", self.batch_size),
        ):
            value = getattr(self, name)
            if not 1 <= value <= high:
                raise ValueError(f"{name} must be 1 .. {high}; found {value}")

    def indices(self, step: int, microbatch: int) -> NDArray[np.int64]:
        """The rows of a microbatch of a step: (size(microbatch),) int64 within [0, samples).

        Raises IndexError where step < 0 or microbatch is not in [0, microbatches), and OverflowError where
        the stream would pass position 2**63 (a million samples a second get there in 290,000 years).
        """
        begin, end = self.slice(microbatch)
        self._check_steps(step, step + 1)
        return self._rows(np.arange(begin, end, dtype=np.int64) + step * self.batch_size)

    def size(self, microbatch: int) -> int:
        """How many samples the microbatch has; the same in each step."""
        begin, end = self.slice(microbatch)
        return end - begin

    def slice(self, microbatch: int) -> tuple[int, int]:
        """The part [begin, end) of the batch that the microbatch is."""
        if not 0 <= microbatch < self.microbatches:
            raise IndexError(f"microbatch must lie in [0, {self.microbatches}); found {microbatch}")
        part = share(self.batch_size, microbatch, self.microbatches)
        return part.start, part.stop

    def epoch(self, step: int) -> int:
        """The epoch, counted from 0, in which the step's first sample lies."""
        return step * self.batch_size // self.samples

    def _check_steps(self, begin: int, end: int) -> None:
        if begin < 0:
            raise IndexError(f"step must be >= 0; found {begin}")
        if end * self.batch_size > _POSITION_MAX:
            raise OverflowError(f"step {end - 1} of batch_size {self.batch_size} lies beyond 2**63 samples")

    def _rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """positions: (n,) int64 of the stream, in any order; returns (n,) int64."""
        epochs = positions // self.samples
        keys = splitmix64(splitmix64(word(self.seed), word(0)), epochs.view(np.uint64))
        return permute(positions - epochs * self.samples, keys, self.samples)


class SampleStream:
    """A sampler's answers for some microbatches, worked out for many steps at once.

        stream = SampleStream(sampler, microbatches=[0, 1])
        for step in range(steps):
            for microbatch in stream.microbatches:
                x = data[stream.indices(step, microbatch)]

    It holds one window: the indices of as many steps as make 16384, or of one step where a step has more. A
    step outside the window moves it, to a multiple of its length, so steps may be asked in any order.
    """

    def __init__(self, sampler: Sampler, microbatches: Sequence[int]) -> None:
        self.sampler = sampler
        self.microbatches = tuple(microbatches)
        slices = [sampler.slice(microbatch) for microbatch in self.microbatches]
        self._within_batch = np.concatenate([np.arange(*s, dtype=np.int64) for s in slices] or [_NONE])
        ends = accumulate(end - begin for begin, end in slices)
        self._columns = {m: slice(end - sampler.size(m), end) for m, end in zip(self.microbatches, ends, strict=True)}
        self._steps_max = max(1, _WINDOW // max(1, self._within_batch.size))
        self._begin = self._end = 0
        self._window = _NONE.reshape(0, 0)

    def indices(self, step: int, microbatch: int) -> NDArray[np.int64]:
        """`sampler.indices(step, microbatch)`: a read-only view that stays valid and never changes.

        Raises KeyError where the microbatch is none of `microbatches`, else as the sampler does.
        """
        if not self._begin <= step < self._end:
            self._move(step)
        view: NDArray[np.int64] = self._window[step - self._begin, self._columns[microbatch]]
        return view

    def _move(self, step: int) -> None:
        sampler = self.sampler
        sampler._check_steps(step, step + 1)
        begin = step - step % self._steps_max
        end = min(begin + self._steps_max, _POSITION_MAX // sampler.batch_size)
        first_positions = np.arange(begin, end, dtype=np.int64)[:, None] * sampler.batch_size
        # A new array each time: views of the old window may still be in use.
        window = sampler._rows((first_positions + self._within_batch).reshape(-1))
        window = window.reshape(end - begin, self._within_batch.size)
        window.setflags(write=False)
        self._begin, self._end, self._window = begin, end, window


_NONE = np.empty(0, dtype=np.int64)
