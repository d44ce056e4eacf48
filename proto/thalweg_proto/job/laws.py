"""What fields of a job must hold together.

Each law names the fields that it needs: it is tried where all of them are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from thalweg_proto.errors import Problem
from thalweg_proto.job.data_section import is_text
from thalweg_proto.job.draft import Draft
from thalweg_proto.job.sections import Job

GPU_ENGINES = ("torch", "jax", "cupy")
"""Which can compute on a GPU."""


@dataclass(frozen=True)
class Law:
    """One law: the problem where a job breaks it, else None."""

    needs: tuple[str, ...]
    problem: Callable[[Job], Problem | None]


def broken_laws(draft: Draft) -> list[Problem]:
    """The problems of all laws whose fields are right one by one."""
    found = [law.problem(draft.job) for law in LAWS if draft.right(*law.needs)]
    return [problem for problem in found if problem is not None]


def _one_length(job: Job) -> Problem | None:
    steps, epochs = job.train.steps, job.train.epochs
    if steps is not None and epochs is not None:
        return Problem("train.steps", "steps or epochs, not both", f"steps = {steps}, epochs = {epochs:g}")
    if steps is None and epochs is None:
        return Problem("train.steps", "steps or epochs", "neither")
    return None


def microbatches_for_all(microbatches: int, workers: int) -> Problem | None:
    """Each worker needs at least one microbatch, or it has nothing to do."""
    if microbatches >= workers:
        return None
    return Problem(
        "train.microbatches",
        f"at least cluster.workers ({workers})",
        str(microbatches),
        "microbatches not at least workers: a worker would have nothing to do",
    )


def batch_for_all(batch_size: int, microbatches: int) -> Problem | None:
    """Each microbatch needs at least one sample."""
    if batch_size >= microbatches:
        return None
    return Problem(
        "train.batch_size",
        f"at least train.microbatches ({microbatches})",
        str(batch_size),
        "batch smaller than microbatches: a microbatch would be empty",
    )


def _microbatches(job: Job) -> Problem | None:
    if job.train.microbatches is None:
        return None
    return microbatches_for_all(job.train.microbatches, job.cluster.most)


def _batch(job: Job) -> Problem | None:
    if job.train.microbatches is None or job.train.batch_size == "full":
        return None
    return batch_for_all(job.train.batch_size, job.train.microbatches)


def _backup_workers(job: Job) -> Problem | None:
    backup, workers = job.train.backup_workers or 0, job.cluster.least
    if backup < workers:
        return None
    return Problem("train.backup_workers", f"fewer than cluster.workers ({workers})", str(backup))


def _local_steps(job: Job) -> Problem | None:
    local, backup = job.train.local_steps or 1, job.train.backup_workers or 0
    if local == 1 or backup == 0:
        return None
    return Problem("train.backup_workers", "0 with local_steps", str(backup), "a round waits for all workers")


def _skip_local_steps(job: Job) -> Problem | None:
    local = job.train.local_steps or 1
    if local == 1 or job.train.non_finite != "skip":
        return None
    return Problem("train.non_finite", '"stop" with local_steps', "'skip'", "a worker's own rule keeps no step before")


def _skip_wire(job: Job) -> Problem | None:
    if job.train.non_finite != "skip" or job.cluster.wire == "float32":
        return None
    hint = "what a lossy format owes of a step that is skipped would go into the next one"
    return Problem("cluster.wire", '"float32" with train.non_finite = "skip"', repr(job.cluster.wire), hint)


def _nesterov(job: Job) -> Problem | None:
    if job.optimizer.rule != "nesterov" or job.optimizer.momentum:
        return None
    return Problem("optimizer.momentum", 'a number > 0 for rule "nesterov"', "0.0", 'without momentum it is "sgd"')


def _min_learning_rate(job: Job) -> Problem | None:
    least, most = job.optimizer.min_learning_rate or 0.0, job.optimizer.learning_rate
    if least <= most:
        return None
    return Problem("optimizer.min_learning_rate", f"at most optimizer.learning_rate ({most:g})", f"{least:g}")


def _one_gpu(job: Job) -> Problem | None:
    gpus = job.cluster.gpus_per_worker
    if gpus <= 1 or job.cluster.engine not in GPU_ENGINES:
        return None
    hint = "a worker computes on one GPU: set cluster.workers to use more of them"
    return Problem("cluster.gpus_per_worker", "a share of one GPU, or 1", f"{gpus:g}", hint)


def _engine_of_gpus(job: Job) -> Problem | None:
    gpus, engine = job.cluster.gpus_per_worker, job.cluster.engine
    if engine == "cupy" and gpus == 0:
        return Problem("cluster.gpus_per_worker", 'more than 0 with the engine "cupy", which needs a GPU', "0")
    if gpus == 0 or engine in GPU_ENGINES:
        return None
    hint = f"with a GPU compute {', '.join(GPU_ENGINES[:-1])} and {GPU_ENGINES[-1]}"
    return Problem(
        "cluster.gpus_per_worker", f'0 with the engine "{engine}", which computes on the CPU', f"{gpus:g}", hint
    )


def _emulated_ms(job: Job) -> Problem | None:
    times, workers = job.cluster.emulated_ms, job.cluster.most
    if not isinstance(times, tuple) or len(times) == workers:
        return None
    expected = f"one number, or one for each of cluster.workers ({workers})"
    return Problem("cluster.emulated_ms", expected, f"{len(times)} numbers")


def _context(job: Job) -> Problem | None:
    if job.data.context is None or is_text(job.data.train):
        return None
    return Problem("data.context", "a text as data.train (.txt or .md), which alone takes it", str(job.data.context))


def _text_is_classes(job: Job) -> Problem | None:
    if job.data.task != "regression" or not is_text(job.data.train):
        return None
    return Problem("data.task", '"classification" of a text, whose targets are its characters', '"regression"')


LAWS = (
    Law(("data.context", "data.train"), _context),
    Law(("data.task", "data.train"), _text_is_classes),
    Law(("train.steps", "train.epochs"), _one_length),
    Law(("train.microbatches", "train.batch_size", "cluster.workers"), _microbatches),
    Law(("train.microbatches", "train.batch_size"), _batch),
    Law(("train.backup_workers", "train.consistency", "cluster.workers"), _backup_workers),
    Law(("train.backup_workers", "train.local_steps", "train.consistency"), _local_steps),
    Law(("train.non_finite", "train.local_steps", "train.consistency"), _skip_local_steps),
    Law(("train.non_finite", "train.consistency", "cluster.wire"), _skip_wire),
    Law(("optimizer.rule", "optimizer.momentum"), _nesterov),
    Law(
        ("optimizer.rule", "optimizer.learning_rate", "optimizer.schedule", "optimizer.min_learning_rate"),
        _min_learning_rate,
    ),
    Law(("cluster.gpus_per_worker", "cluster.engine"), _one_gpu),
    Law(("cluster.gpus_per_worker", "cluster.engine"), _engine_of_gpus),
    Law(("cluster.emulated_ms", "cluster.engine", "cluster.workers"), _emulated_ms),
)
