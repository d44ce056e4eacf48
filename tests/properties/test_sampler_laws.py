"""Laws of the sampler, on random sizes."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg_worker.sampler import Sampler, SampleStream


@st.composite
def samplers(draw: st.DrawFn, samples_max: int = 60) -> Sampler:
    """N from 1, B from 1 to several N, V from 1 to B."""
    samples = draw(st.integers(1, samples_max))
    batch_size = draw(st.sampled_from([1, samples]) | st.integers(1, 3 * samples))
    microbatches = draw(st.integers(1, batch_size))
    return Sampler(draw(st.integers(0, 2**63)), samples=samples, batch_size=batch_size, microbatches=microbatches)


@settings(max_examples=40, deadline=None)
@given(sampler=samplers(), first=st.integers(0, 10**6))
def test_each_sample_comes_once_in_each_epoch(sampler: Sampler, first: int) -> None:
    """For any N, B and V: cut at multiples of N, the stream of all microbatches in order is permutations."""
    samples, size = sampler.samples, sampler.batch_size
    begin = first * samples  # an epoch's first position, and of the two epochs from there the steps that hold them
    steps = range(begin // size, -(-(begin + 2 * samples) // size))
    stream = np.concatenate([sampler.indices(t, m) for t in steps for m in range(sampler.microbatches)])
    skipped = begin - steps[0] * size
    for epoch in range(2):
        rows = stream[skipped + epoch * samples : skipped + (epoch + 1) * samples]
        assert np.array_equal(np.sort(rows), np.arange(samples))


@settings(max_examples=40, deadline=None)
@given(sampler=samplers(), step=st.integers(0, 10**9))
def test_microbatch_sizes_differ_by_at_most_one_and_make_up_the_batch(sampler: Sampler, step: int) -> None:
    """The slices follow one another, and each holds floor(B / V) or ceil(B / V) samples."""
    slices = [sampler.slice(m) for m in range(sampler.microbatches)]
    assert [begin for begin, _ in slices] + [sampler.batch_size] == [0] + [end for _, end in slices]
    low, high = sampler.batch_size // sampler.microbatches, -(-sampler.batch_size // sampler.microbatches)
    assert all(low <= sampler.size(m) <= high for m in range(sampler.microbatches))
    assert sampler.indices(step, 0).shape == (sampler.size(0),)


@settings(max_examples=40, deadline=None)
@given(sampler=samplers(), data=st.data())
def test_a_stream_gives_what_the_sampler_gives(sampler: Sampler, data: st.DataObject) -> None:
    """Any microbatches in any order, steps asked back and forth, far and near."""
    chosen = data.draw(st.lists(st.integers(0, sampler.microbatches - 1), min_size=1, max_size=6, unique=True))
    stream = SampleStream(sampler, chosen)
    near = data.draw(st.integers(0, 10**7))
    for step in data.draw(st.lists(st.integers(0, 10**12) | st.integers(near, near + 3), max_size=4)):
        for microbatch in chosen:
            assert np.array_equal(stream.indices(step, microbatch), sampler.indices(step, microbatch)), (
                step,
                microbatch,
            )


@settings(max_examples=40, deadline=None)
@given(sampler=samplers(), microbatches=st.integers(1, 40))
def test_the_batch_does_not_depend_on_the_number_of_microbatches(sampler: Sampler, microbatches: int) -> None:
    """V only cuts the batch: the samples of a step, in order, are the same for each V."""
    microbatches = min(microbatches, sampler.batch_size)
    other = Sampler(sampler.seed, samples=sampler.samples, batch_size=sampler.batch_size, microbatches=microbatches)
    whole, again = (np.concatenate([s.indices(7, m) for m in range(s.microbatches)]) for s in (sampler, other))
    assert np.array_equal(whole, again)


def test_another_process_in_another_order_gives_the_same() -> None:
    """A fresh interpreter, asked for the same (t, m) in a shuffled order, answers the same rows."""
    sampler = Sampler(11, samples=1000, batch_size=96, microbatches=5)
    asked = [(t, m) for t in (0, 3, 10, 11, 10**9) for m in range(5)]
    random.Random(0).shuffle(asked)
    program = (
        "import json, sys\n"
        "from thalweg_worker.sampler import Sampler\n"
        "sampler = Sampler(11, samples=1000, batch_size=96, microbatches=5)\n"
        "print(json.dumps([sampler.indices(t, m).tolist() for t, m in json.load(sys.stdin)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    answers = dict(zip(asked, json.loads(done.stdout), strict=True))
    assert answers == {(t, m): sampler.indices(t, m).tolist() for t, m in sorted(asked)}


def test_memory_does_not_grow_with_the_data_set() -> None:
    """A window over 10**12 samples takes at most a tenth more memory than one over 10**3, and under 4 MiB."""

    def peak_bytes(samples: int) -> int:
        sampler = Sampler(0, samples=samples, batch_size=128, microbatches=2)
        tracemalloc.start()
        stream = SampleStream(sampler, [0])
        for step in range(0, 10**6, 10**5):
            stream.indices(step, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(10)  # whatever is made once, before the measurement
    assert peak_bytes(10**12) <= 1.1 * peak_bytes(10**3)
    assert peak_bytes(10**12) < 4 * 2**20


def test_positions_are_uniform() -> None:
    """Over 20,000 epochs of 20 samples, each sample is at each position about equally often (chi-square)."""
    samples, epochs = 20, 20_000
    sampler = Sampler(4, samples=samples, batch_size=samples * epochs, microbatches=1)
    rows = sampler.indices(0, 0).reshape(epochs, samples)
    cells = rows + samples * np.arange(samples)
    counts = np.bincount(cells.reshape(-1), minlength=samples**2)
    expected = epochs / samples
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    # Rows and columns of the table have fixed sums: 19 * 19 degrees of freedom, and the statistic of random
    # orders is N / (N - 1) chi-square. Once in 10,000 it lies outside of each bound: Wilson and Hilferty,
    # PNAS 17 (1931), z = 3.719.
    freedom, ninth = 19 * 19, 2 / (9 * 19 * 19)
    high, low = (freedom * (1 - ninth + z * math.sqrt(ninth)) ** 3 for z in (3.719, -3.719))
    assert low < chi_square * (samples - 1) / samples < high


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_batch_is_a_fair_sample(seed: int) -> None:
    """The first 1000 of 10**12 samples spread evenly over ten equal parts (chi-square)."""
    rows = Sampler(seed, samples=10**12, batch_size=1000, microbatches=1).indices(0, 0)
    counts = np.bincount(rows // 10**11, minlength=10)
    assert np.unique(rows).size == 1000
    # With 9 degrees of freedom 46.0 is passed 6 times in 10 million; the seeds change from run to run.
    assert float(((counts - 100) ** 2 / 100).sum()) < 46.0
