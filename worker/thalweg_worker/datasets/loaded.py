"""What is known of the data of a job."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg_proto.errors import Problem
from thalweg_worker.batch import DataSpec
from thalweg_worker.datasets.samples import Samples
from thalweg_worker.datasets.scaling import Scaling


@dataclass(frozen=True, kw_only=True)
class TrainEval:
    """The data of a job.

    eval:        None where nothing is held out
    class_names: the labels of the classes 0 .. k-1 as text; () for a regression
    scaling:     what was done to the features, for whoever feeds the trained model; None: nothing
    """

    train: Samples
    eval: Samples | None
    spec: DataSpec
    class_names: tuple[str, ...]
    scaling: Scaling | None


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What is known of the data of a job.

    problems: every mistake that was found
    data:     all of it; None where there is a problem or a wrong key
    spec:     of the training set; None where it could not be read, or its samples or labels not understood
    samples:  how many there are to train on; None where the training set could not be read
    """

    problems: tuple[Problem, ...]
    data: TrainEval | None = None
    spec: DataSpec | None = None
    samples: int | None = None
