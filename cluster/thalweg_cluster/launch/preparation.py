"""Everything that can be checked before anything starts: the job, its data, its model, and whether they fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.reporting.files import check_folder
from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job import Job, ResolvedTrain, resolve
from thalweg_proto.layout import Layout
from thalweg_proto.shared_memory import bytes_free, check_room
from thalweg_worker.batches import evaluation_chunks, first_batch
from thalweg_worker.datasets import TrainEval, load_dataset
from thalweg_worker.models import ModelSource, check_model, generator, initial_parameters, load_init
from thalweg_worker.sampler import Sampler


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A job that can start.

    initial: version 0 of the parameters, flat, shape (layout.size,)
    chunks:  into how many chunks the held-out set is cut; 0: there is none
    """

    job: Job
    lengths: ResolvedTrain
    data: TrainEval
    model: ModelSource
    sampler: Sampler
    layout: Layout
    initial: NDArray[np.float32]
    chunks: int


def prepare(job: Job, out: Path) -> Preparation:
    """Loads data and model and checks them, and the folder `out`. Raises InputError with all problems found."""
    problems = check_supported(job) + check_folder(out)
    loaded = load_dataset(job.data, job.seed)
    data = loaded.data
    if data is None:
        raise InputError([*problems, *loaded.problems])
    spec = data.spec
    lengths, more = resolve(job, len(data.train))
    problems += more
    try:
        # The job file's reader has made the path of a user's model absolute.
        model = ModelSource.read(job.model.use, job.model.options, folder=Path())
        built = model.build(spec)
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    problems += check_model(built, spec, first_batch(data.train), generator(job.seed))
    if problems:
        raise InputError(problems)
    parameters = initial_parameters(built, job.seed)
    if job.model.init is not None:
        problems += load_init(job.model.init, parameters)
    layout = Layout.of({name: array.shape for name, array in parameters.items()})
    problems += check_room(layout.size, lengths.microbatches, bytes_free())
    if problems:
        raise InputError(problems)
    initial = np.zeros(layout.size, dtype=np.float32)
    for name, view in layout.views(initial).items():
        view[...] = parameters[name]
    sampler = Sampler(
        seed=job.seed,
        samples=len(data.train),
        batch_size=lengths.batch_size,
        microbatches=lengths.microbatches,
    )
    return Preparation(
        job=job,
        lengths=lengths,
        data=data,
        model=model,
        sampler=sampler,
        layout=layout,
        initial=initial,
        chunks=evaluation_chunks(len(data.eval)) if data.eval is not None else 0,
    )


def check_supported(job: Job) -> list[Problem]:
    """What a job file may say that this version cannot run yet."""
    problems = []
    if job.train.consistency != "sync":
        problems.append(Problem("train.consistency", '"sync" in this version', repr(job.train.consistency)))
    if job.train.backup_workers:
        problems.append(Problem("train.backup_workers", "0 in this version", str(job.train.backup_workers)))
    if job.cluster.engine != "numpy":
        problems.append(Problem("cluster.engine", '"numpy" in this version', repr(job.cluster.engine)))
    if job.cluster.gpus_per_worker:
        expected, found = "0 with the engine numpy, which uses no GPU", str(job.cluster.gpus_per_worker)
        problems.append(Problem("cluster.gpus_per_worker", expected, found))
    if job.cluster.placement != "PACK":
        expected = '"PACK" in this version: all workers on one host'
        problems.append(Problem("cluster.placement", expected, repr(job.cluster.placement)))
    return problems
