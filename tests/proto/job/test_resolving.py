"""The lengths of a run follow from the job and the number of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.job import Job, ResolvedTrain, parse_job, resolve, resolve_batch


def job(workers: int = 1, **train: Any) -> Job:
    table = {
        "name": "a",
        "data": {"train": "digits"},
        "model": {"use": "mlp"},
        "train": train,
        "cluster": {"workers": workers},
    }
    return parse_job(table, folder=Path("/")).job


def test_steps_are_taken_as_they_are() -> None:
    """Steps do not depend on the data; a batch may be larger than the data set."""
    lengths, problems = resolve(job(steps=7, batch_size=128), samples=10)
    assert (lengths, problems) == (ResolvedTrain(batch_size=128, steps=7, microbatches=8), [])


def test_a_full_batch_is_all_samples() -> None:
    """One epoch of a full batch is one step, with as many microbatches as there are samples, up to 8."""
    lengths, problems = resolve(job(epochs=3, batch_size="full"), samples=5)
    assert (lengths, problems) == (ResolvedTrain(batch_size=5, steps=3, microbatches=5), [])
    assert resolve(job(epochs=1, batch_size="full"), samples=100)[0].microbatches == 8


def test_a_tenth_of_an_epoch_is_a_tenth() -> None:
    """0.1 epochs of 1000 samples in batches of 10 are 10 steps, although the float 0.1 is above a tenth."""
    assert resolve(job(epochs=0.1, batch_size=10), samples=1000)[0].steps == 10


@given(st.integers(1, 50), st.integers(1, 10**12), st.integers(1, 10**6))
def test_epochs_are_covered_by_the_fewest_whole_batches(epochs: int, samples: int, batch_size: int) -> None:
    """steps * B >= epochs * N > (steps - 1) * B, in whole numbers of any size."""
    steps = resolve(job(epochs=epochs, batch_size=batch_size), samples)[0].steps
    assert steps * batch_size >= epochs * samples > (steps - 1) * batch_size


def test_too_few_samples_for_the_microbatches_are_a_problem() -> None:
    """A full batch smaller than the microbatches, or than the workers, is named."""
    _, problems = resolve(job(epochs=1, batch_size="full", microbatches=8), samples=5)
    assert [problem.field for problem in problems] == ["train.batch_size"]
    _, problems = resolve(job(workers=6, epochs=1, batch_size="full"), samples=5)
    assert [problem.field for problem in problems] == ["train.microbatches"]


@given(st.integers(1, 50) | st.just("full"), st.none() | st.integers(1, 50), st.integers(1, 100))
def test_a_batch_does_not_depend_on_the_steps(batch_size: Any, microbatches: int | None, samples: int) -> None:
    """`resolve_batch` says of batch and microbatches what `resolve` does, whether it knows the steps or not."""
    table = {"batch_size": batch_size, "microbatches": microbatches}
    given_keys = {key: value for key, value in table.items() if value is not None}
    lengths, _ = resolve(job(steps=3, **given_keys), samples)
    assert resolve_batch(job(**given_keys).train, samples) == (lengths.batch_size, lengths.microbatches)
