"""What a job's training comes to once the number of samples is known."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from thalweg_proto.errors import Problem
from thalweg_proto.job.laws import batch_for_all, microbatches_for_all
from thalweg_proto.job.sections import MICROBATCHES, Job, TrainSection


@dataclass(frozen=True, kw_only=True)
class ResolvedTrain:
    """The lengths of a run: `steps` updates of `batch_size` samples each, cut into `microbatches` slices."""

    batch_size: int
    steps: int
    microbatches: int


def resolve(job: Job, samples: int) -> tuple[ResolvedTrain, list[Problem]]:
    """The lengths of a job on `samples` (>= 1) training samples, and what is wrong with them.

    A full batch is all samples. Epochs become ceil(epochs * samples / batch_size) steps: the last step may
    reach into the next epoch, since every batch is whole. The product is exact: 0.1 epochs are a tenth of an
    epoch, not the float a little above it.
    """
    train = job.train
    batch_size, microbatches = resolve_batch(train, samples)
    steps = train.steps or ceil(Fraction(repr(train.epochs)) * samples / batch_size)
    problems = [
        batch_for_all(batch_size, microbatches),
        microbatches_for_all(microbatches, job.cluster.most),
    ]
    lengths = ResolvedTrain(batch_size=batch_size, steps=steps, microbatches=microbatches)
    return lengths, [problem for problem in problems if problem is not None]


def resolve_batch(train: TrainSection, samples: int) -> tuple[int, int]:
    """How many of `samples` training samples a batch has, and how many microbatches: all of `resolve` but the steps."""
    batch_size = samples if train.batch_size == "full" else train.batch_size
    return batch_size, train.microbatches or min(MICROBATCHES, batch_size)
