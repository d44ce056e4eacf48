"""Everything that can be checked before anything starts: the job, its data, its model, and whether they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thalweg_cluster.checkpoints import Checkpoint, TrainingState
from thalweg_cluster.launch.cores import check_local
from thalweg_cluster.launch.resuming import check_fits
from thalweg_cluster.reporting.files import check_folder
from thalweg_cluster.reporting.sources import UserSource
from thalweg_cluster.rules import make_rule
from thalweg_proto.errors import InputError, Problem, attempt
from thalweg_proto.faults import RECORD, Plan, PlannedFaults
from thalweg_proto.job import Draft, Job, ResolvedTrain, resolve, resolve_batch
from thalweg_proto.job.parsing import describe
from thalweg_proto.layout import Layout
from thalweg_proto.ledger import FOLDER as LEDGER
from thalweg_proto.shared_memory import MemoryPlan, bytes_free, check_room
from thalweg_worker.batches import evaluation_chunks, first_batch, made_up_batch
from thalweg_worker.datasets import FetchedDataset, Loaded, TrainEval, load_dataset
from thalweg_worker.engines import averaged_for, check_compiler, check_for, model_for
from thalweg_worker.models import ModelSource, Parameters, generator, initial_parameters, load_init
from thalweg_worker.sampler import Sampler

TRIED = 4
"""Samples of the batch that a model is tried on."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A job that can start.

    start:  what the run starts from, given how many hosts it will have
    first:  steps that were taken before
    generation: of the checkpoint that the run goes on from; 0: there is none
    chunks:  into how many chunks the held-out set is cut; 0: there is none
    ledger:  folder in which workers write down which samples go into which step; None: nowhere
    faults:  what shall go wrong
    """

    job: Job
    lengths: ResolvedTrain
    data: TrainEval
    model: ModelSource
    sampler: Sampler
    layout: Layout
    start: Callable[[int], TrainingState]
    first: int
    generation: int
    chunks: int
    ledger: Path | None
    faults: PlannedFaults

    @property
    def sources(self) -> dict[str, UserSource]:
        """The user's files that run, by key of the job that names them."""
        sets = (self.data.train, self.data.eval)
        files = [self.model.file, *(part.source.file for part in sets if isinstance(part, FetchedDataset))]
        return {
            file.key: UserSource(path=file.path, files={file.name: file.source, **file.beside})
            for file in files
            if file is not None
        }


def prepare(
    draft: Draft,
    out: Path,
    cores: int | None,
    others: Sequence[Problem] = (),
    *,
    checkpoint: Checkpoint | None = None,
    with_ledger: bool = False,
    faults: Plan = Plan(),
) -> Preparation:
    """Loads data and model and checks them, the folder `out` and the number of workers.

    cores:      of this machine, where the Ray cluster will be one of our own; None where it is there already
    others:     what was found wrong elsewhere, to be told with the rest
    checkpoint: what the run goes on from; None: a new one
    with_ledger: whether the workers write down which samples go into which step
    faults:     what shall go wrong

    Each check that needs only what is right is made. Raises InputError with all problems, those of the draft first.
    """
    job = draft.job
    problems = [*draft.problems, *others, *check_folder(out)]
    if cores is not None and draft.right("cluster.workers"):
        problems += check_local(job.cluster.most, cores)
    if draft.right("cluster.engine", "cluster.compile"):
        problems += check_compiler(bool(job.cluster.compile))
    seed = job.seed if draft.right("seed") else 0  # what is wrong does not depend on it
    loaded = load_dataset(job.data, seed, draft.wrong_in("data"))
    lengths, microbatches, length_problems = _lengths(draft, loaded.samples)
    smallest = TRIED if lengths is None else lengths.batch_size // lengths.microbatches
    model, parameters, averaged, model_problems = _model(draft, loaded, seed, smallest)
    problems += [*loaded.problems, *length_problems, *model_problems, *_check_averaged(draft, averaged)]
    layout = None
    if parameters is not None:
        layout = Layout.of({name: array.shape for name, array in parameters.items()}, averaged)
    if layout is not None and microbatches is not None and not draft.wrong_in("optimizer"):
        slots = len(make_rule(job.optimizer.rule, job.optimizer.options_for("rule")).slots)
        problems += check_room(MemoryPlan(size=layout.size, microbatches=microbatches, slots=slots), bytes_free())
    if checkpoint is not None:
        problems += check_fits(checkpoint, draft, layout, lengths)
    if with_ledger and draft.right("train.backup_workers", "train.consistency"):
        problems += _check_ledger(job)
    if problems:
        raise InputError(problems)
    # Where nothing is wrong all is known.
    data = loaded.data
    assert data is not None
    assert lengths is not None
    assert model is not None
    assert parameters is not None
    assert layout is not None
    if checkpoint is None:
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
        start=(lambda _: TrainingState.new(initial)) if checkpoint is None else checkpoint.state,
        first=0 if checkpoint is None else checkpoint.manifest.step,
        generation=0 if checkpoint is None else checkpoint.manifest.generation,
        chunks=evaluation_chunks(len(data.eval)) if data.eval is not None else 0,
        ledger=out.absolute() / LEDGER if with_ledger else None,
        faults=PlannedFaults(faults, out.absolute() / RECORD),
    )


def _lengths(draft: Draft, samples: int | None) -> tuple[ResolvedTrain | None, int | None, list[Problem]]:
    """The lengths of the run, at least its microbatches, None where they are not known, and what is wrong with them."""
    train = draft.job.train
    if samples is None or not draft.right("train.batch_size", "train.microbatches"):
        return None, None, []
    if not draft.right("train.steps", "train.epochs", "cluster.workers"):
        return None, resolve_batch(train, samples)[1], []
    lengths, problems = resolve(draft.job, samples)
    return lengths, None if problems else lengths.microbatches, problems


def _model(
    draft: Draft, loaded: Loaded, seed: int, smallest: int
) -> tuple[ModelSource | None, Parameters | None, list[str], list[Problem]]:
    """The model and its parameters before step 0, None where they are not known; the names of those that are averaged;
    and what is wrong with them. `smallest`: samples of the smallest microbatch."""
    section = draft.job.model
    problems: list[Problem] = []
    source = parameters = None
    averaged: list[str] = []
    if draft.right("model.use"):
        # The job file's reader has made the path of a user's model absolute.
        source = attempt(problems, lambda: ModelSource.read(section.use, section.options, folder=Path()))
    if source is not None:
        parameters, averaged, problems = _drawn(source, loaded, seed, draft.job.cluster.engine, smallest)
    if section.init is not None and draft.right("model.init"):
        problems += load_init(section.init, parameters)
    return source, parameters, averaged, problems


def _drawn(
    source: ModelSource, loaded: Loaded, seed: int, engine: str, smallest: int
) -> tuple[Parameters | None, list[str], list[Problem]]:
    """What the model begins with, None where it has a mistake or the data is not known; the names of what is averaged;
    and the mistakes."""
    spec = loaded.spec
    if spec is None:
        return None, [], source.check()
    problems: list[Problem] = []
    model = attempt(problems, lambda: model_for(engine, source, spec, seed))
    if model is None:
        return None, [], problems
    # A BatchNorm has no statistics of one sample: PyTorch's own word on that is to come before the start.
    samples = min(TRIED, smallest) if engine == "torch" else TRIED
    training = loaded.data.train if loaded.data is not None else None
    batch = (
        made_up_batch(spec, samples) if training is None else attempt(problems, lambda: first_batch(training, samples))
    )
    if batch is None:
        return None, [], problems
    problems = check_for(engine, model, spec, batch, generator(seed))
    if problems:
        return None, [], problems
    averaged = averaged_for(engine, model, batch)
    return initial_parameters(model, seed) | averaged, list(averaged), []


def _check_averaged(draft: Draft, averaged: Sequence[str]) -> list[Problem]:
    """What a job whose model has running statistics cannot have. Between workers they move with gradients, in the
    format of these; a lossy one may hold back what it owes until a variance falls below zero."""
    if not averaged:
        return []
    with_them = f"with a model that has running statistics ({averaged[0]}, ...)"
    train, cluster = draft.job.train, draft.job.cluster
    hint = "a worker's own rule would not know what they are; a norm without them: GroupNorm, LayerNorm"
    found = (
        ("train.local_steps", train.local_steps or 1, 1, hint),
        ("cluster.wire", cluster.wire, "float32", "they are averaged exactly"),
        ("cluster.wire_parameters", cluster.wire_parameters, "float32", "they are averaged exactly"),
    )
    return [
        Problem(field, f"{describe(right)} {with_them}", describe(value), hint)
        for field, value, right, hint in found
        if draft.right(field) and value != right
    ]


def _check_ledger(job: Job) -> list[Problem]:
    """Workers know what they take. Of a step that leaves out what comes late they do not know what went into it."""
    backup = job.train.backup_workers or 0
    return [Problem("train.backup_workers", "0 with --ledger", str(backup))] if backup else []
