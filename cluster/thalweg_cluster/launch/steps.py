"""What a step of a job is, from the job file and the lengths of the run."""

from __future__ import annotations

from thalweg_cluster.step import StepSpec
from thalweg_proto.job import Job, ResolvedTrain


def step_spec(job: Job, lengths: ResolvedTrain, chunks: int) -> StepSpec:
    """What a step of the job is; the held-out set is cut into `chunks`."""
    train = job.train
    return StepSpec(
        microbatches=lengths.microbatches,
        batch_size=lengths.batch_size,
        steps=lengths.steps,
        rule=job.optimizer.rule,
        rule_options=job.optimizer.options_for("rule"),
        schedule={
            "name": job.optimizer.schedule,
            "learning_rate": job.optimizer.learning_rate,
            "warmup_steps": job.optimizer.warmup_steps,
            **job.optimizer.options_for("schedule"),
        },
        clip_norm=job.optimizer.clip_norm,
        skip=train.non_finite == "skip",
        eval_every=train.eval_every,
        save_every=job.checkpoint.every_steps,
        chunks=chunks,
        consistency=train.consistency,
        staleness=train.staleness,
        staleness_scaling=bool(train.staleness_scaling),
        backup=train.backup_workers or 0,
        local_steps=train.local_steps or 1,
        outer_learning_rate=train.outer_learning_rate or 1.0,
        outer_momentum=train.outer_momentum or 0.0,
    )
